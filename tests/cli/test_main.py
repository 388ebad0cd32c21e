"""The command as a person meets it: one line for every failure, the documented exit codes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from armkvm import __version__
from armkvm.cli import main as main_module
from armkvm.cli.codes import Code
from armkvm.cli.main import VERBS, FailedError, main
from armkvm.vmm.errors import FetchError, GuestError


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_shows_every_verb_and_every_code(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb}" in text
    for code in Code:
        assert f"{code.value:>3}  {code.text}" in text


def test_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == Code.USAGE
    assert "usage: armkvm VERB" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"armkvm {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([verb, "--help"])
    assert leave.value.code == 0
    assert f"usage: armkvm {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nosuch"], "there is no verb 'nosuch' (one of run, "),
        (["runn"], "there is no verb 'runn' (did you mean run?)"),
        (["run", "-cpu", "cortex-a57"], "armkvm run has no -cpu: the CPU is that of the host"),
        (["run", "-M", "virt,gic-version=2"], "armkvm run has no -M: there is one machine"),
        (["run", "-machine", "virt"], "armkvm run has no -machine: there is one machine"),
        (["run", "-drive", "file=x"], "armkvm run has no -drive: there are no disks"),
        (["run", "-s"], "armkvm run has no -s: there is no gdb server"),
        (["run", "-S"], "armkvm run has no -S: there is no gdb server"),
        (["run", "-gdb", "tcp::1"], "armkvm run has no -gdb: there is no gdb server"),
        (["run", "-net", "user"], "armkvm run has no -net: there is no network"),
        (
            ["run", "--max-insns", "18446744073709551616", "-k", "/nosuch"],
            "'18446744073709551616' is too large",
        ),
        (
            ["run", "--max-insns", "1e99", "-k", "/nosuch"],
            "'1e99' is too large: at most 18446744073709551615",
        ),
        (["run", "--cpus", "\u0661", "-k", "/nosuch"], "'\u0661' is not a whole number above zero"),
        (["run", "--timeout", "\u0661", "-k", "/nosuch"], "'\u0661' is not a number of seconds"),
        (["check", "--samples", "\u0661", "nosuch"], "'\u0661' is not a whole number"),
        (["check", "--samples", "-1", "nosuch"], "'-1' is not a whole number"),
        (["check", "--seconds", "nan", "nosuch"], "'nan' is not a number of seconds"),
        (["dis", "--base", "\u0664", "0"], "'\u0664' is not an address"),
        (["run", "--restore", "f", "--cpus", "2"], "--restore and --cpus exclude each other"),
        (["run", "--restore", "f", "-m", "1G"], "--restore and --mem exclude each other"),
        (["run", "--restore", "f", "--irqchip", "gicv2"], "--restore and --irqchip exclude"),
        (["run", "--restore", "f", "-i", "x"], "--restore and --initrd exclude each other"),
        (["run", "--nosuch"], "unrecognized arguments: --nosuch"),
        (["run", "--ker", "x"], "unrecognized arguments: --ker x"),
        (["run", "extra"], "unrecognized arguments: extra"),
        (["run", "--irqchip", "vic"], "invalid choice: 'vic'"),
        (["run", "--irqchip", "bcm2836", "-c", "5"], "--cpus 5 is too many: a BCM2836 has 4 cores"),
        (
            ["run", "--irqchip", "kernel-gicv3", "--host", "nvhe-gicv2"],
            "--irqchip kernel-gicv3 needs --host vhe-gicv3",
        ),
        (["run", "--irqchip", "kernel-gicv3", "--cpus", "124"], "--cpus 124 is too many"),
        (["run", "--cpus", "9"], "a GICv2 has 8 CPU interfaces"),
        (["run", "-smp", "0"], "'0' is not a whole number above zero"),
        (["run", "--time", "slow"], "invalid choice: 'slow'"),
        (["run", "-m", "lots"], "'lots' is not a size"),
        (["run", "-m", "0"], "'0' is not a number of 4 KiB pages"),
        (["run", "-m", "1024T"], "--mem is too large"),
        (["run", "--timeout", "-1"], "'-1' is not a number of seconds"),
        (["run", "--max-insns", "many"], "'many' is not a whole number"),
        (["run", "--initrd", "x"], "--initrd needs --kernel"),
        (["run", "--kernel"], "expected one argument"),
        (["run", "--kernel", "/nosuch"], "cannot read the kernel /nosuch: No such file"),
        (["run", "-kernel", "/"], "cannot read the kernel /: Is a directory"),
        (["guest"], "arguments are required: fetch"),
        (["guest", "fetch", "--flavour", "x"], "invalid choice: 'x'"),
        (["guest", "fetch", "--suite", "../x"], "'../x' is no name of a Debian suite"),
        (["dis"], "arguments are required"),
        (["dis", "--base", "2", "0"], "'2' is not an address of an instruction"),
        (["bench", "nosuch"], "invalid choice: 'nosuch'"),
        (["caps", "x"], "unrecognized arguments: x"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str], cache_home: Path
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as leave:
        code = leave.code
    assert code == Code.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("armkvm: ")
    assert captured.err.count("\n") == 1
    assert line in captured.err


def test_truncated_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Image").write_bytes(b"MZ" + bytes(20))
    assert main(["run", "-k", str(tmp_path / "Image")]) == Code.USAGE
    assert capsys.readouterr().err == "armkvm: the kernel is a truncated Image: 22 bytes\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (GuestError("bad guest"), Code.USAGE, "bad guest"),
        (FetchError("apt failed"), Code.HOST, "apt failed"),
        (FailedError("results differ"), Code.FAILED, "results differ"),
        (OSError(28, "No space left", "/c/x"), Code.HOST, "No space left: /c/x"),
        (MemoryError(), Code.HOST, "not enough memory on this host"),
        (ZeroDivisionError("a\nb"), Code.INTERNAL, "internal error: ZeroDivisionError: a b"),
        (KeyboardInterrupt(), Code.INTERRUPTED, ""),
    ],
)
def test_errors_become_codes(
    error: BaseException,
    code: Code,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.delenv("ARMKVM_DEBUG", raising=False)
    monkeypatch.setattr(main_module, "_dispatch", fail)
    assert main(["run"]) == code
    text = capsys.readouterr().err
    assert line in text
    assert text.count("\n") == (1 if line else 0)


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setenv("ARMKVM_DEBUG", "1")
    monkeypatch.setattr(main_module, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        main([])


class Closed(io.StringIO):
    """A standard error that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_complaint_without_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Closed())
    assert main(["nosuch"]) == Code.USAGE


def test_a_reader_that_goes_away() -> None:
    # The pipe is closed before the program writes: no traceback, no "Exception ignored".
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-m", "armkvm", "--help"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert run.returncode == Code.PIPE
    assert run.stderr == b""
