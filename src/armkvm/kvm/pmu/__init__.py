"""The guest's performance monitors, after pmu-emul.c and what belongs to it."""
