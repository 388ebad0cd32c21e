"""The far end of the serial line: bytes that the guest prints, keys that a person types.

Input arrives in a thread and waits in a queue; the machine takes it from there at points of its
own choosing, so that there is one place through which input enters (design: Time and
determinism). A callback tells the machine that something waits: it may be inside guest code.
``StdioConsole`` is the process's terminal or pipe, with QEMU's escape key; ``BufferConsole`` keeps
the output in memory, for programs and tests. Left out: serial breaks, window sizes.
"""

import atexit
import hashlib
import os
import select
import signal
import stat
import termios
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from armkvm.process.signals import NUMBERS, SIGNALS
from armkvm.process.stdio import Output, has_room

ESCAPE = 0x01  # Ctrl-A
HELP = (
    b"\r\n"
    b"Ctrl-A h  this help\r\n"
    b"Ctrl-A x  leave armkvm\r\n"
    b"Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n"
)
QUEUE_MAX = 4096  # bytes of input kept for a guest that does not read
OUTPUT_MAX = 4096  # bytes of output kept before they are written without a newline


class Console:
    """The queue of input and the digest of output; a base for the two kinds below."""

    def __init__(self) -> None:
        self.quit = False  # a person asked to leave
        self.ended = False  # no more input will ever come
        self._input = bytearray()
        self._changed = threading.Condition()
        self._wake: Callable[[], None] = lambda: None
        self._digest = hashlib.sha256()

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to take input; ``wake`` is called, from any thread, when there is some to see."""
        self._wake = wake

    def take(self, limit: int) -> bytes:
        """At most ``limit`` bytes of waiting input, without waiting for any."""
        with self._changed:
            taken = bytes(self._input[:limit])
            del self._input[:limit]
        return taken

    @property
    def waiting(self) -> int:
        """How many bytes of input wait."""
        return len(self._input)

    def wait(self, timeout: float | None) -> bool:
        """Sleep until there is input, a wish to leave or a signal, or ``timeout`` seconds."""
        with self._changed:
            if self._input or self.quit:
                return True
            return self._changed.wait(timeout)

    def feed(self, data: bytes) -> None:
        """Put bytes into the queue as if they had been typed."""
        with self._changed:
            self._input += data
        self._notify()

    def write(self, data: bytes) -> None:
        """Bytes from the guest."""
        self._digest.update(data)

    def flush(self) -> None:
        """Show what was written so far; called when the guest idles."""

    def give_up(self) -> None:
        """From any thread: from now on do not wait for somebody to read what the guest writes."""

    def digest(self) -> str:
        """SHA-256 of everything that the guest wrote."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Leave everything as it was found. May be called twice."""
        self._wake = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self._wake()


class BufferConsole(Console):
    """A console in memory: ``output`` is what the guest printed, ``feed`` types."""

    def __init__(self, typed: bytes = b"") -> None:
        super().__init__()
        self.output = bytearray()
        self._input += typed

    def write(self, data: bytes) -> None:
        super().write(data)
        self.output += data


class EscapeKey:
    """Tells commands to armkvm from keys for the guest, as QEMU's ``-nographic`` does."""

    def __init__(self) -> None:
        self._pending = False
        self.quit = False
        self.help = False

    def filter(self, typed: bytes) -> bytes:
        """What of ``typed`` goes to the guest; sets ``quit`` and ``help``."""
        out = bytearray()
        for key in typed:
            if not self._pending:
                if key == ESCAPE:
                    self._pending = True
                else:
                    out.append(key)
                continue
            self._pending = False
            if key == ESCAPE:
                out.append(ESCAPE)
            elif key in b"xX":
                self.quit = True
                break
            elif key in b"hH?":
                self.help = True
        return bytes(out)


class StdioConsole(Console):
    """Standard input and output: a terminal in raw mode, or whatever they are redirected to.

    A terminal is put back by ``close`` and at the interpreter's exit. From ``start`` to ``close``
    SIGINT, SIGTERM and SIGHUP are the wish to leave (process/signals.py); ``close`` raises what
    they stand for. All signals wake the machine, because Python runs their handlers only when the
    main thread is back from guest code. Output waits for its reader until somebody wants to leave.
    """

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        super().__init__()
        self._in, self._out = stdin, stdout
        self._pending = bytearray()
        self._escape = EscapeKey()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._saved: list[Any] | None = None
        self._raw: list[Any] = []
        self._output = Output(stdout)
        self._started = ExitStack()
        self._held = False  # the signals are
        self._old_continued: Any = None
        self._pipe_read, self._pipe_write = -1, -1
        self.is_terminal = _is_terminal(stdin)
        self.ended = not _can_be_read(stdin)

    def start(self, wake: Callable[[], None]) -> None:
        super().start(wake)
        self._pipe_read, self._pipe_write = os.pipe()
        os.set_blocking(self._pipe_read, False)
        os.set_blocking(self._pipe_write, False)
        self._started.enter_context(SIGNALS.watched())
        self._held = True
        SIGNALS.hold(self._signalled)
        if self.is_terminal:
            self._enter_raw()
            if threading.current_thread() is threading.main_thread():
                self._old_continued = signal.signal(signal.SIGCONT, self._continued)
        self._thread = threading.Thread(target=self._read, name="armkvm-console", daemon=True)
        self._thread.start()

    def take(self, limit: int) -> bytes:
        full = self.waiting >= QUEUE_MAX
        taken = super().take(limit)
        if full and taken:
            self._poke()  # the thread had stopped reading
        return taken

    def write(self, data: bytes) -> None:
        super().write(data)
        self._pending += data
        if self.is_terminal or b"\n" in data or len(self._pending) >= OUTPUT_MAX:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._output.write(self._pending)

    def give_up(self) -> None:
        self._output.give_up()

    def close(self) -> None:
        super().close()
        try:
            self.flush()
        finally:
            self._restore()
            self._stop()
            self._output.close()
        held, self._held = self._held, False
        if held:
            SIGNALS.deliver()

    def _stop(self) -> None:
        """The thread and the signals."""
        if self._old_continued is not None:
            signal.signal(signal.SIGCONT, self._old_continued)
            self._old_continued = None
        if self._thread is not None:
            self._stopping = True
            self._poke()
            with suppress(RuntimeError):  # a signal came in the midst of starting it
                self._thread.join()
            self._thread = None
        for fd in (self._pipe_read, self._pipe_write):
            if fd >= 0:
                os.close(fd)
        self._pipe_read = self._pipe_write = -1
        if self._held:
            SIGNALS.release()
        self._started.close()

    def _signalled(self, number: int) -> None:
        """In the signals' thread, as each arrives."""
        if number in NUMBERS:
            self.quit = True
            self.give_up()
        self._notify()

    # The terminal

    def _enter_raw(self) -> None:
        self._saved = termios.tcgetattr(self._in)
        raw = termios.tcgetattr(self._in)
        raw[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        # Output processing stays on: a bare-metal guest ends its lines with a newline alone.
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        self._raw = raw
        atexit.register(self._restore)
        SIGNALS.last_words.append(self._restore)
        termios.tcsetattr(self._in, termios.TCSADRAIN, raw)

    def _restore(self) -> None:
        if self._saved is not None:
            saved, self._saved = self._saved, None
            atexit.unregister(self._restore)
            SIGNALS.last_words.remove(self._restore)
            # With output that nobody takes, draining it would wait for ever.
            when = termios.TCSANOW if self._output.given_up else termios.TCSADRAIN
            with suppress(termios.error):  # the terminal is gone: nothing to restore
                termios.tcsetattr(self._in, when, saved)

    def _continued(self, number: int, frame: FrameType | None) -> None:
        # The shell took the terminal back while the process was stopped.
        if self._saved is not None:
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._raw)

    # The thread

    def _poke(self) -> None:
        with suppress(BlockingIOError):  # full: the thread will wake anyway
            os.write(self._pipe_write, b"\0")

    def _read(self) -> None:
        reading = _can_be_read(self._in)
        while not self._stopping:
            sources = [self._pipe_read]
            if reading and self.waiting < QUEUE_MAX:
                sources.append(self._in)
            ready, _, _ = select.select(sources, [], [])
            if self._pipe_read in ready:
                os.read(self._pipe_read, 512)
            if self._in in ready:
                reading = self._typed()
                if not reading:
                    self.ended = True
                    self._notify()  # who sleeps until there is input sleeps for ever

    def _typed(self) -> bool:
        """Take what was typed; false at the end of the input."""
        try:
            data = os.read(self._in, QUEUE_MAX)
        except OSError:
            return False  # the terminal hung up
        if self.is_terminal:
            data_for_guest = self._escape.filter(data)
            if self._escape.help:
                self._escape.help = False
                os.write(self._out, HELP)
            if self._escape.quit:
                self.quit = True
                self.give_up()
                if has_room(self._out):
                    os.write(self._out, b"\r\n")  # whatever comes next begins a line
        else:
            data_for_guest = data
        if data_for_guest or self.quit:
            self.feed(data_for_guest)
        return bool(data) and not self.quit


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _can_be_read(fd: int) -> bool:
    """Whether input may come: not from a closed descriptor, nor from /dev/null and its like."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return os.isatty(fd) or not stat.S_ISCHR(mode)
