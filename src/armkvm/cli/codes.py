"""The exit codes of ``armkvm``, in one place; ``armkvm --help`` prints this table."""

from enum import IntEnum


class Code(IntEnum):
    """What the process's exit status says."""

    text: str

    def __new__(cls, value: int, text: str) -> "Code":
        code = int.__new__(cls, value)
        code._value_ = value
        code.text = text
        return code

    OK = 0, "the guest powered off, or you left by Ctrl-A x; other verbs: done"
    FAILED = 1, "the guest did what armkvm cannot go on from; bench: results differ"
    USAGE = 2, "a bad option, or a file that cannot be used: kernel, initrd, output"
    RESET = 3, "the guest asked for a reset (a Linux panic with panic=-1 does)"
    LIMIT = 4, "--max-insns was reached"
    TIMEOUT = 5, "--timeout was reached"
    HOST = 6, "the host lacks something: apt or the network failed, no space, no memory"
    ASLEEP = 7, "the guest sleeps for ever: no timer is armed, the input is at its end"
    INTERNAL = 70, "a defect of armkvm (ARMKVM_DEBUG=1 shows where)"
    INTERRUPTED = 130, "Ctrl-C"
    TERMINATED = 143, "SIGTERM; 129 for SIGHUP; the terminal was put back"
    PIPE = 141, "the reader of the output went away"


# Machine outcomes (armkvm.vmm.machine.Outcome.reason) as exit codes.
OF_OUTCOME = {
    "shutdown": Code.OK,
    "quit": Code.OK,
    "reset": Code.RESET,
    "limit": Code.LIMIT,
    "timeout": Code.TIMEOUT,
    "asleep": Code.ASLEEP,
    "crash": Code.FAILED,
}


def table() -> str:
    """The codes, one a line."""
    return "\n".join(f"  {code.value:>3}  {code.text}" for code in Code)
