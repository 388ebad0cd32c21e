"""Which schedules are tried, which can be left out, and what goes round for ever."""
