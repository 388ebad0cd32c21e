"""One execution: actors, of which one runs at a time, and everything that makes them wait."""
