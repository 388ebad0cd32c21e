"""Why there is no engine: errors of the host, not of a guest. Importing this loads nothing."""


class EngineError(Exception):
    """The engine cannot be had on this host; str() is one line for the user."""


class CacheError(EngineError):
    """The cache directory cannot be used."""
