"""Compiling the engine, and keeping the result on disk.

The object file depends on the sources of arch, isa and engine, on llvmlite and on the host CPU: the
hash of these is its name in the cache. A cached file carries the digest of its own contents, so
that a damaged one is noticed and made again. Who else could have written it, and how it is written,
is process/cache.py.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import llvmlite
import llvmlite.binding as llvm

from armkvm.engine.errors import CacheError
from armkvm.engine.hosts import Host, check, host_of
from armkvm.isa.features import id_registers
from armkvm.isa.table import Form
from armkvm.process import cache

Progress = Callable[[str, int, int], None]  # what, done, total

_MAGIC = b"armkvm engine 1\n"
SHT_NOBITS = 8
SOURCES = ("arch", "isa", "engine")  # what the object file is made from


@dataclass(frozen=True)
class Artefact:
    """The compiled engine: an object file, and what the rest has to know of it."""

    object: bytes
    announced: dict[str, int]  # what ID registers say of its features


def key() -> str:
    """Hash of everything that the object file depends on."""
    package = Path(__file__).parent.parent
    h = hashlib.sha256()
    for folder in SOURCES:
        for source in sorted((package / folder).rglob("*.py")):
            h.update(f"{source.relative_to(package)}\0".encode() + source.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    on = f"{llvm.get_default_triple()} {llvm.get_host_cpu_name()} {features}"
    h.update(f"{llvmlite.__version__} {on}".encode())
    return h.hexdigest()[:32]


def artefact(progress: Progress | None = None) -> Artefact:
    """The compiled engine, from the cache or made now (some ten seconds, once).

    Raises EngineError.
    """
    check(host_of(llvm.get_default_triple()), llvm.get_host_cpu_features())
    try:
        path = cache.directory() / "engine" / key()
        return _unpack(cache.load(path))
    except cache.DistrustError as error:
        raise CacheError(str(error.strerror)) from None
    except FileNotFoundError as error:
        if error.filename is None:  # no home directory
            raise CacheError(str(error.strerror)) from None
    except (OSError, ValueError):
        pass
    made = _compile(progress)
    _store(path, _pack(made))
    return made


def _pack(a: Artefact) -> bytes:
    head = json.dumps({"announced": a.announced}).encode()
    body = len(head).to_bytes(4, "little") + head + a.object
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpack(data: bytes) -> Artefact:
    start = len(_MAGIC) + 32
    body = data[start:]
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise ValueError("damaged")
    size = int.from_bytes(body[:4], "little")
    match _json(body[4 : 4 + size]):
        case {"announced": {**announced}} if all(isinstance(v, int) for v in announced.values()):
            pass
        case _:
            raise ValueError("the head")
    made = body[4 + size :]
    if not _complete(made):
        raise ValueError("the object file")
    return Artefact(made, cast(dict[str, int], announced))


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _complete(elf: bytes) -> bool:
    """Whether all sections of an object file are within it: LLVM does not look before it reads."""
    if elf[:6] != b"\x7fELF\x02\x01" or len(elf) < 64:
        return False
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<2H", elf, 58)
    if size != 64 or not count or len(elf) < table + size * count:
        return False
    for at in range(table, table + size * count, size):
        kind, offset, length = struct.unpack_from("<4xI16x2Q", elf, at)
        if kind != SHT_NOBITS and offset + length > len(elf):
            return False
    return True


def _store(path: Path, data: bytes) -> None:
    try:
        cache.store(path, data)
    except cache.DistrustError as error:
        raise CacheError(str(error.strerror)) from None
    except OSError as error:
        raise CacheError(
            f"cannot write the compiled engine to {path.parent}: {error.strerror}"
            " (set XDG_CACHE_HOME to a writable directory with 20 MB free)"
        ) from None


def native_target() -> llvm.TargetMachine:
    """The code generator for this very CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return _machine(
        llvm.get_default_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
    )


def _machine(triple: str, cpu: str, features: str = "") -> llvm.TargetMachine:
    return llvm.Target.from_triple(triple).create_target_machine(
        opt=2, cpu=cpu, features=features, reloc="pic", codemodel="small"
    )


def _optimised(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    # The handlers are short and straight: O2 takes eight times as long for the same code.
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)
    return module


def _compile(progress: Progress | None) -> Artefact:
    # Imported here: a start from the cache needs neither the table nor the generator.
    from armkvm.engine import generate
    from armkvm.isa.all import announced

    def report(what: str, done: int, total: int) -> None:
        if progress:
            progress(what, done, total)

    text = generate.module(
        host_of(llvm.get_default_triple()),
        lambda done, total: report("tracing instructions", done, total),
    ).text()
    report("compiling", 0, 2)
    machine = native_target()
    module = _optimised(text, machine)
    report("compiling", 1, 2)
    made = Artefact(machine.emit_object(module), announced())
    report("compiling", 2, 2)
    return made


def assembly(host: Host, forms: Sequence[Form] | None = None) -> str:
    """The engine's code for the least CPU of any kind of host, as assembly; nothing can run it.

    `forms`: of these instruction forms only, which takes a second instead of half a minute.
    """
    from armkvm.engine import generate

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = _machine(host.TRIPLE, host.CPU)
    text = generate.module(host, all_forms=forms).text()
    return str(machine.emit_assembly(_optimised(text, machine)))


class Loaded:
    """The engine's code in this process."""

    def __init__(self, a: Artefact) -> None:
        # With llvmlite's memory manager: its sections lie together. LLVM's own takes what the
        # kernel gives for each, and where that is far apart (a process with a terabyte mapped),
        # a relocation does not reach and LLVM ends the process.
        empty = llvm.parse_assembly("")
        self._ee = llvm.create_mcjit_compiler(empty, native_target(), use_lmm=True)
        self._ee.add_object_file(llvm.ObjectFileRef.from_data(a.object))
        self._ee.finalize_object()
        self.id_registers = id_registers(a.announced)

    def function(
        self, name: str, result: type[ctypes.c_uint64] | None, *arguments: type
    ) -> Callable[..., int]:
        """A native function by name; calls release the GIL."""
        address = self._ee.get_function_address(name)
        return ctypes.CFUNCTYPE(result, *arguments)(address)
