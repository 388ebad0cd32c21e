"""What `armkvm bench` measures, and the rivals that it measures against."""


class BenchError(Exception):
    """A run that did not do what it should, so that there is nothing to measure; one line."""
