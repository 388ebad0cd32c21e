"""The one error of the boot side: something that the user gave, or that the machine lacks.

A message is a single line in plain words. ``armkvm`` prints it and exits with a documented code;
a program that uses the library catches the class.
"""


class GuestError(Exception):
    """A guest cannot be loaded, fetched or started; the message is one line for a person."""


class FetchError(GuestError):
    """The default guest could not be fetched: apt, the network, the disk; not the user's input."""


class NoDebianError(FetchError):
    """This machine cannot fetch Debian packages at all: no apt, or no Debian source in it."""
