"""The native decoder: instruction words into op records.

For every form a small function stores the handler and the operand values that the trace asked for;
the forms' decode-time expressions (isa/field.py) are compiled here. Which form a word belongs to is
found through the tables of isa/decode.py, walked by `decode_one`. `decode_block` decodes a page
from one record up to the end of the block; `undecoded`, the handler of every fresh record, calls
it.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm.code import CC, PARAMS, Code
from armkvm.engine.llvm.ir import RAM, Function
from armkvm.isa.decode import Tree
from armkvm.isa.field import MASK64, Field
from armkvm.isa.value import Value, bits

CONTINUES, ENDS, UNALLOCATED = 0, 1, 2

_LLVM = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}


class FieldCompiler:
    """Compiles decode-time expressions over the word `%w` into one function."""

    def __init__(self, fn: Function, tables: dict[tuple[int, ...], str]) -> None:
        self.fn, self.tables = fn, tables
        self.done: dict[Field, Value] = {}

    def value(self, x: Field | int) -> Value:
        """The expression's value as an i64."""
        if isinstance(x, int):
            x &= MASK64
            return self.fn.const("i64", x - (1 << 64) if x >> 63 else x)
        if x not in self.done:
            self.done[x] = self._compile(x)
        return self.done[x]

    def _compile(self, x: Field) -> Value:
        if x.op == "bits":
            lo, width = x.args
            assert isinstance(lo, int)
            assert isinstance(width, int)
            return Value(self.fn, "i64", "%w").lshr(lo) & ((1 << width) - 1)
        if x.op == "lookup":
            index, table = x.args
            assert isinstance(table, tuple)
            assert not isinstance(index, tuple)
            name = self.tables.setdefault(table, f"lookup_table{len(self.tables)}")
            at = self.fn.gep(f"@{name}", self.value(index) << 3)
            return self.fn.load_at(at, "i64")
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


def form_decoder(
    name: str, variants: dict[str, Handler], tables: dict[tuple[int, ...], str]
) -> str:
    """Fills a record for one form: `i64 name(ptr rec, i64 w, i64 i, i64 near)`."""
    fn = Function()
    fields = FieldCompiler(fn, tables)
    handler = next(iter(variants.values()))
    guard = handler.form.guard
    if guard is not None:
        with fn.if_(fields.value(guard).eq(0)):
            fn.ret(UNALLOCATED)
    if handler.is_branch:
        chosen = _near_or_far(fn, fields, variants)
    elif handler.uses_base:
        is_sp = fields.value(_base_register(handler)).eq(31)
        chosen = fn.emit(f"select {is_sp!r}, ptr @{variants['sp'].name}, ptr @{handler.name}")
    else:
        chosen = f"@{handler.name}"
    fn.line(f"store ptr {chosen}, ptr %rec, align 8")
    if not handler.is_branch:
        _store_operands(fn, fields, handler)
    fn.ret(CONTINUES if handler.falls_through or handler.links else ENDS)
    return (
        f"define internal i64 @{name}(ptr %rec, i64 %w, i64 %i, i64 %near) #2 {{\n{fn.body()}\n}}"
    )


def _store_operands(fn: Function, fields: FieldCompiler, handler: Handler) -> None:
    for (expr, ty), at in handler.operands.items():
        v = fields.value(expr)
        v = v.trunc(ty) if bits(ty) < 64 else v
        fn.store_at(fn.gep("%rec", at), v)


def _base_register(handler: Handler) -> Field:
    rn = handler.form.fields["Rn"]
    assert isinstance(rn, Field)
    return rn


def _near_or_far(fn: Function, fields: FieldCompiler, variants: dict[str, Handler]) -> str:
    """Branches inside the page go record to record; others through the virtual address."""
    far = variants["far"]
    assert far.offset is not None
    delta = fields.value(far.offset).ashr(2)
    index = Value(fn, "i64", "%i") + delta
    near = index.ult(Value(fn, "i64", "%near"))
    back = delta.sle(0)
    out = fn.var("i64", 0)
    yes, no, join = fn.label(), fn.label(), fn.label()
    fn.branch_on(near, yes, no)
    fn.place(yes)
    # Operand layouts of the variants differ, so each side stores its own.
    inner = FieldCompiler(fn, fields.tables)
    _store_operands(fn, inner, variants["fw"])
    hop = fn.emit(f"select {back!r}, ptr @{variants['bk'].name}, ptr @{variants['fw'].name}")
    out.set(fn.address(hop))
    fn.goto(join)
    fn.place(no)
    inner = FieldCompiler(fn, fields.tables)
    _store_operands(fn, inner, far)
    out.set(fn.address(f"@{far.name}"))
    fn.goto(join)
    fn.place(join)
    return fn.pointer(out.get())


def module(tree: Tree, decoders: list[tuple[str, int, int]]) -> str:
    """The decision tables and the functions that walk them.

    `decoders`: (function, mask, value) a form.
    """
    leaves: list[tuple[int, int, str]] = []
    starts: list[int] = []
    for leaf in tree.leaves:
        starts.append(len(leaves))
        leaves += [(decoders[i][1], decoders[i][2], decoders[i][0]) for i in leaf]
        leaves.append((0, 0, "decode_undefined"))
    edges = [e if not e & 1 else starts[e >> 1] << 1 | 1 for e in tree.edges]
    node_text = ", ".join(
        f"{{ i8, i8, i32 }} {{ i8 {s}, i8 {w}, i32 {b} }}" for s, w, b in tree.nodes
    )
    edge_text = ", ".join(f"i32 {e}" for e in edges)
    leaf_text = ", ".join(
        f"{{ i32, i32, ptr }} {{ i32 {m}, i32 {v}, ptr @{f} }}" for m, v, f in leaves
    )
    return "\n".join(
        [
            f"@nodes = internal constant [{len(tree.nodes)} x {{ i8, i8, i32 }}] [{node_text}]",
            f"@edges = internal constant [{len(edges)} x i32] [{edge_text}]",
            f"@leaves = internal constant [{len(leaves)} x {{ i32, i32, ptr }}] [{leaf_text}]",
            _decode_undefined(),
            _decode_one(),
            _decode_block(),
        ]
    )


def _decode_undefined() -> str:
    fn = Function()
    fn.line("store ptr @undefined, ptr %rec, align 8")
    fn.ret(ENDS)
    return (
        "define internal i64 @decode_undefined(ptr %rec, i64 %w, i64 %i, i64 %near) #2 {\n"
        + fn.body()
        + "\n}"
    )


def _decode_one() -> str:
    """Decode the word into the record. `near`: 1024, or 0 to make every branch go by address."""
    fn = Function()
    word = Value(fn, "i64", "%w")
    node = fn.var("i64", 0)
    with fn.loop() as walk:
        at = fn.emit(f"getelementptr {{ i8, i8, i32 }}, ptr @nodes, i64 {node.get().ref}")
        shift = fn.load_at(at, "i8").zext("i64")
        width = fn.load_at(fn.gep(at, 1), "i8").zext("i64")
        base = fn.load_at(fn.gep(at, 4), "i32").zext("i64")
        index = base + (word.lshr(shift) & ((fn.const("i64", 1) << width) - 1))
        edge = fn.load_at(fn.gep("@edges", index << 2), "i32").zext("i64")
        node.set(edge.lshr(1))
        walk.break_if((edge & 1).ne(0))
    leaf = fn.var("i64", node.get() << 4)
    with fn.loop():
        at = fn.gep("@leaves", leaf.get())
        mask = fn.load_at(at, "i32").zext("i64")
        value = fn.load_at(fn.gep(at, 4), "i32").zext("i64")
        with fn.if_((word & mask).eq(value)):
            dec = fn.emit(f"load ptr, ptr {fn.gep(at, 8)}, align 8")
            result = fn.value("i64", f"call i64 {dec}(ptr %rec, i64 %w, i64 %i, i64 %near)")
            with fn.if_(result.ne(UNALLOCATED)):
                fn.ret(result)
        leaf.set(leaf.get() + 16)
    fn.line("unreachable")
    return (
        "define internal i64 @decode_one(ptr %rec, i64 %w, i64 %i, i64 %near) #2 {\n"
        + fn.body()
        + "\n}"
    )


def _decode_block() -> str:
    """Decode the page of records at %page from index %first to the end of its block."""
    fn = Function()
    code = fn.emit(f"load ptr, ptr {fn.gep('%page', layout.META_WORDS)}, align 8")
    i = fn.var("i64", Value(fn, "i64", "%first"))
    with fn.loop() as loop:
        ix = i.get()
        loop.break_if(ix.uge(1024))
        rec = fn.gep("%page", ix << layout.RECORD_SHIFT)
        handler = fn.emit(f"load ptr, ptr {rec}, align 8")
        loop.break_if(fn.value("i1", f"icmp ne ptr {handler}, @undecoded"))
        word = fn.load_at(fn.gep(code, ix << 2), "i32", RAM).zext("i64")
        end = fn.call("decode_one", "i64", f"ptr {rec}", word, ix, "i64 1024")
        with fn.if_(ix.ugt(Value(fn, "i64", "%first"))):
            fn.line(f"call void @fuse(ptr {rec}, i64 {word.ref}, i64 {ix.ref})")
        loop.break_if(end.eq(ENDS))
        i.set(ix + 1)
    fn.ret()
    return f"define internal void @decode_block(ptr %page, i64 %first) #2 {{\n{fn.body()}\n}}"


def undecoded() -> str:
    """Handler of a record that was not decoded yet."""
    h = Code()
    index = h.pc().lshr(2) & 1023
    page = h.pointer(h.op_address() - (index << layout.RECORD_SHIFT))
    h.line(f"call void @make_live(ptr %cpu, ptr {page})")
    h.line(f"call void @decode_block(ptr {page}, i64 {index.ref})")
    h.dispatch("%op")
    return f"define {CC} void @undecoded({PARAMS}) #0 {{\n{h.body()}\n}}"
