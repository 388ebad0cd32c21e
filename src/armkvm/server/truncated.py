"""Guest memory that its owner cuts off: a file that is truncated while it is mapped here.

The next access to a page that is gone raises SIGBUS, and the client decides when that is. In memory
that clients share such a page becomes zeros of this process's own; anywhere else SIGBUS ends the
process as ever. The handler has to be native code, because native code is what it interrupts: guest
instructions, or Python's own copying.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import threading

import llvmlite.binding as llvm

from armkvm.engine.build import native_target

_RANGES = 1 << 16
_SA_SIGINFO = 4
_MAP_FIXED = 0x10
_BUS_ADRERR = 2  # si_code: nothing is there

# The fields of siginfo_t: si_code at 8, si_addr at 16, as on every 64-bit Linux.
_HANDLER = """
define void @on_sigbus(i32 %number, ptr %info, ptr %context) {{
 %code.at = getelementptr i8, ptr %info, i64 8
 %code = load i32, ptr %code.at
 %missing = icmp eq i32 %code, {missing}
 br i1 %missing, label %look, label %give_up
look:
 %address.at = getelementptr i8, ptr %info, i64 16
 %address = load i64, ptr %address.at
 br label %next
next:
 %i = phi i64 [ 0, %look ], [ %i.next, %other ]
 %at = getelementptr {{ i64, i64 }}, ptr inttoptr (i64 {ranges} to ptr), i64 %i
 %size.at = getelementptr i8, ptr %at, i64 8
 %start = load volatile i64, ptr %at
 %size = load volatile i64, ptr %size.at
 %offset = sub i64 %address, %start
 %inside = icmp ult i64 %offset, %size
 br i1 %inside, label %replace, label %other
other:
 %i.next = add i64 %i, 1
 %more = icmp ult i64 %i.next, {count}
 br i1 %more, label %next, label %give_up
replace:
 %page = and i64 %address, -{page}
 %page.at = inttoptr i64 %page to ptr
 %mmap = inttoptr i64 {mmap} to ptr
 %got = call ptr %mmap(ptr %page.at, i64 {page}, i32 {prot}, i32 {flags}, i32 -1, i64 0)
 %done = icmp eq ptr %got, %page.at
 br i1 %done, label %back, label %give_up
give_up:
 %signal = inttoptr i64 {signal} to ptr
 call ptr %signal(i32 %number, ptr null)
 br label %back
back:
 ret void
}}
"""


class _Sigaction(ctypes.Structure):
    """struct sigaction of glibc and musl."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


class Guard:
    """The memory of clients in this process; there is one, `GUARD`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges = ((ctypes.c_uint64 * 2) * _RANGES)()
        self._free = list(range(_RANGES - 1, -1, -1))
        self._code: object = None

    def add(self, address: int, size: int) -> int | None:
        """Watch over a range; its number, or None where there are too many."""
        with self._lock:
            if self._code is None:
                self._code = self._install()
            if not self._free:
                return None
            n = self._free.pop()
            self._ranges[n][0] = address
            self._ranges[n][1] = size
            return n

    def remove(self, n: int | None) -> None:
        """It is not mapped any more."""
        if n is not None:
            with self._lock:
                self._ranges[n][1] = 0
                self._free.append(n)

    def _install(self) -> object:
        libc = ctypes.CDLL(None)
        text = _HANDLER.format(
            mmap=ctypes.cast(libc.mmap, ctypes.c_void_p).value,
            signal=ctypes.cast(libc.signal, ctypes.c_void_p).value,
            missing=_BUS_ADRERR,
            ranges=ctypes.addressof(self._ranges),
            count=_RANGES,
            page=mmap.PAGESIZE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED,
        )
        engine = llvm.create_mcjit_compiler(
            llvm.parse_assembly(text), native_target(), use_lmm=True
        )
        engine.finalize_object()
        act = _Sigaction(handler=engine.get_function_address("on_sigbus"), flags=_SA_SIGINFO)
        libc.sigaction(int(signal.SIGBUS), ctypes.byref(act), None)
        return engine


GUARD = Guard()
