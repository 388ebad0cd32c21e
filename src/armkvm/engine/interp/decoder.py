"""The native decoder: instruction words into op records.

For every form a small function stores the handler and the operand values that the trace asked for;
the forms' decode-time expressions (isa/field.py) are compiled here. Which form a word belongs to is
found through the tables of isa/decode.py, walked by `decode_one`. `decode_block` decodes a page
from one record up to the end of the block; `undecoded`, the handler of every fresh record, calls
it.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.interp.fusion import fuse
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm.code import Code, routine
from armkvm.engine.llvm.ir import RAM, Function, Pointer, Symbol
from armkvm.engine.llvm.module import Module
from armkvm.engine.llvm.native import UNOPTIMISED, Native, unoptimised
from armkvm.engine.native.exception import undefined
from armkvm.engine.native.icache import make_live
from armkvm.isa.decode import Tree
from armkvm.isa.field import MASK64, Field
from armkvm.isa.value import Value, bits

CONTINUES, ENDS, UNALLOCATED = 0, 1, 2

_LLVM = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}

NODES, EDGES, LEAVES = Symbol("nodes"), Symbol("edges"), Symbol("leaves")
_NODE, _LEAF = 8, 16  # bytes: {shift i8, width i8, base i32}, {mask i32, value i32, function}


Decoder = Native[[Pointer, Value, Value, Value], Value]  # (record, word, index, near)


class Tables:
    """The tables that decode-time expressions look up, each once."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, ...], str] = {}

    def symbol(self, values: tuple[int, ...]) -> Symbol:
        """A table, by what is in it."""
        return Symbol(self.names.setdefault(values, f"lookup_table{len(self.names)}"))

    def write(self, module: Module) -> None:
        """All of them, as constants of a module."""
        for values, name in self.names.items():
            module.constant(name, "i64", map(str, values))


class FieldCompiler:
    """Compiles decode-time expressions over an instruction word into one function."""

    def __init__(self, fn: Function, word: Value, tables: Tables) -> None:
        self.fn, self.word, self.tables = fn, word, tables
        self.done: dict[Field, Value] = {}

    def value(self, x: Field | int) -> Value:
        """The expression's value as an i64."""
        if isinstance(x, int):
            x &= MASK64
            return self.fn.i64(x - (1 << 64) if x >> 63 else x)
        if x not in self.done:
            self.done[x] = self._compile(x)
        return self.done[x]

    def _compile(self, x: Field) -> Value:
        if x.op == "bits":
            lo, width = x.args
            assert isinstance(lo, int)
            assert isinstance(width, int)
            return self.word.lshr(lo) & ((1 << width) - 1)
        if x.op == "lookup":
            index, table = x.args
            assert isinstance(table, tuple)
            assert not isinstance(index, tuple)
            at = self.fn.symbol(self.tables.symbol(table)) + (self.value(index) << 3)
            return at.load()
        args = [self.value(a) for a in x.args if not isinstance(a, tuple)]
        if x.op == "choose":
            return self.fn.select(args[0].ne(0), args[1], args[2])
        a, b = args
        if x.op in _LLVM:
            return self.fn.value("i64", f"{_LLVM[x.op]} i64 {a.ref}, {b.ref}")
        if x.op in ("shl", "lshr"):
            amount = b & 63
            shifted = a << amount if x.op == "shl" else a.lshr(amount)
            return self.fn.select(b.ult(64), shifted, 0)
        return (a.eq(b) if x.op == "eq" else a.ult(b)).zext("i64")


def form_decoder(name: str, variants: dict[str, Handler], tables: Tables) -> Decoder:
    """The function that fills a record for one form; it says how the block goes on."""
    handler = next(iter(variants.values()))

    def decode(fn: Function, rec: Pointer, w: Value, i: Value, near: Value) -> Value:
        fields = FieldCompiler(fn, w, tables)
        guard = handler.form.guard
        if guard is not None:
            with fn.if_(fields.value(guard).eq(0)):
                fn.ret(UNALLOCATED)
        if handler.is_branch:
            rec.store_pointer(_near_or_far(fields, variants, rec, i, near))
        elif handler.uses_base:
            is_sp = fields.value(_base_register(handler)).eq(31)
            rec.store_pointer(fn.choose(is_sp, variants["sp"].routine, handler.routine))
        else:
            rec.store_pointer(handler.routine)
        if not handler.is_branch:
            _store_operands(fields, handler, rec)
        return fn.i64(CONTINUES if handler.falls_through or handler.links else ENDS)

    return Native(decode, name, attributes=UNOPTIMISED)


def _store_operands(fields: FieldCompiler, handler: Handler, rec: Pointer) -> None:
    for (expr, ty), at in handler.operands.items():
        v = fields.value(expr)
        (rec + at).store(v.trunc(ty) if bits(ty) < 64 else v)


def _base_register(handler: Handler) -> Field:
    rn = handler.form.fields["Rn"]
    assert isinstance(rn, Field)
    return rn


def _near_or_far(
    fields: FieldCompiler, variants: dict[str, Handler], rec: Pointer, i: Value, near: Value
) -> Pointer:
    """Branches inside the page go record to record; others through the virtual address."""
    fn, far = fields.fn, variants["far"]
    assert far.offset is not None
    delta = fields.value(far.offset).ashr(2)
    inside = (i + delta).ult(near)
    back = delta.sle(0)
    out = fn.var("i64", 0)
    yes, no, join = fn.label(), fn.label(), fn.label()
    fn.branch_on(inside, yes, no)
    fn.place(yes)
    # Operand layouts of the variants differ, so each side stores its own.
    _store_operands(FieldCompiler(fn, fields.word, fields.tables), variants["fw"], rec)
    out.set(fn.choose(back, variants["bk"].routine, variants["fw"].routine).address())
    fn.goto(join)
    fn.place(no)
    _store_operands(FieldCompiler(fn, fields.word, fields.tables), far, rec)
    out.set(fn.symbol(far.routine).address())
    fn.goto(join)
    fn.place(join)
    return fn.pointer(out.get())


def decision_tables(module: Module, tree: Tree, decoders: list[tuple[Decoder, int, int]]) -> None:
    """The tree that `decode_one` walks. `decoders`: (function, mask, value) a form."""
    leaves: list[tuple[int, int, Decoder]] = []
    starts: list[int] = []
    for leaf in tree.leaves:
        starts.append(len(leaves))
        leaves += [(decoders[i][1], decoders[i][2], decoders[i][0]) for i in leaf]
        leaves.append((0, 0, decode_undefined))
    edges = [e if not e & 1 else starts[e >> 1] << 1 | 1 for e in tree.edges]
    nodes = (f"{{ i8 {s}, i8 {w}, i32 {b} }}" for s, w, b in tree.nodes)
    module.constant(NODES.name, "{ i8, i8, i32 }", nodes)
    module.constant(EDGES.name, "i32", map(str, edges))
    rows = (f"{{ i32 {m}, i32 {v}, {f!r} }}" for m, v, f in leaves)
    module.constant(LEAVES.name, "{ i32, i32, ptr }", rows)


@unoptimised
def decode_undefined(fn: Function, rec: Pointer, w: Value, i: Value, near: Value) -> Value:
    """No form has the word."""
    rec.store_pointer(undefined)
    return fn.i64(ENDS)


@unoptimised
def decode_one(fn: Function, rec: Pointer, w: Value, i: Value, near: Value) -> Value:
    """Decode the word into the record. `near`: 1024, or 0 to make every branch go by address."""
    node = fn.var("i64", 0)
    with fn.loop() as walk:
        at = fn.symbol(NODES) + node.get() * _NODE
        shift, width = at.load("i8").zext("i64"), (at + 1).load("i8").zext("i64")
        base = (at + 4).load("i32").zext("i64")
        index = base + (w.lshr(shift) & ((fn.i64(1) << width) - 1))
        edge = (fn.symbol(EDGES) + (index << 2)).load("i32").zext("i64")
        node.set(edge.lshr(1))
        walk.break_if((edge & 1).ne(0))
    leaf = fn.var("i64", node.get() * _LEAF)
    with fn.loop():
        at = fn.symbol(LEAVES) + leaf.get()
        mask, value = at.load("i32").zext("i64"), (at + 4).load("i32").zext("i64")
        with fn.if_((w & mask).eq(value)):
            result = decode_undefined.at((at + 8).load_pointer(), rec, w, i, near)
            with fn.if_(result.ne(UNALLOCATED)):
                fn.ret(result)
        leaf.set(leaf.get() + _LEAF)
    return fn.i64(0)  # not reached


@unoptimised
def decode_block(fn: Function, page: Pointer, first: Value) -> None:
    """Decode a page of records from index `first` to the end of its block."""
    code = (page + layout.META_WORDS).load_pointer()
    i = fn.var("i64", first)
    with fn.loop() as loop:
        ix = i.get()
        loop.break_if(ix.uge(1024))
        rec = page + (ix << layout.RECORD_SHIFT)
        loop.break_if(rec.load_pointer().ne(undecoded))
        word = (code + (ix << 2)).load("i32", RAM).zext("i64")
        end = decode_one(fn, rec, word, ix, fn.i64(1024))
        with fn.if_(ix.ugt(first)):
            fuse(fn, rec, word, ix)
        loop.break_if(end.eq(ENDS))
        i.set(ix + 1)


@routine
def undecoded(fn: Code) -> None:
    """The handler of a record that was not decoded yet."""
    index = fn.pc().lshr(2) & 1023
    page = fn.pointer(fn.op.address() - (index << layout.RECORD_SHIFT))
    make_live(fn, page)
    decode_block(fn, page, index)
    fn.dispatch(fn.op)
