"""What client and server say to each other: packets on a socket of the kind SOCK_SEQPACKET.

A client asks (OPEN, IOCTL, CANCEL). The answer is DONE; before that the server may want something
of the client's process: that it sends memory (READ), takes some in (WRITE, whose bytes are the next
packet), sends a descriptor (TAKE), shares memory (SHARE) or accepts a descriptor (INSTALL). Each is
answered by a REPLY with an errno or 0. An object of KVM is named by st_dev and st_ino of the
client's descriptor for it, so that close(), dup() and fork() need no words. All numbers are
little-endian; shim/wire.h is the other end.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple


class Ask(IntEnum):
    """The client's packets."""

    OPEN = 1
    IOCTL = 2
    CANCEL = 3
    REPLY = 4


class Want(IntEnum):
    """The server's packets."""

    DONE = 1
    READ = 2
    WRITE = 3
    TAKE = 4
    SHARE = 5
    INSTALL = 6


class Request(NamedTuple):
    """The head of a client's packet; an ioctl's structure or a reply's data follows."""

    op: int
    seq: int  # of the call; a CANCEL names the one that it means
    dev: int
    ino: int
    cmd: int  # REPLY: how many pieces
    arg: int  # REPLY: an errno, or the number of an installed descriptor
    pid: int
    tid: int


REQUEST = struct.Struct("<IIQQQQII")
ANSWER = struct.Struct("<IIqQQ")  # op, seq, ret, addr, len
PIECE = struct.Struct("<QQQ")  # addr, len, offset in its descriptor
PIECES = 64  # in one SHARE's reply

CHUNK = 1 << 16  # bytes of memory in one packet at most
STRUCTURE = (1 << 14) - 1  # bytes that an ioctl's number can tell
LONGEST = REQUEST.size + max(CHUNK, STRUCTURE)
