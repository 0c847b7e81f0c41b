"""Loads and stores of vectors.  Addresses are i64, indices count elements, nothing needs alignment unless said.
Elements of f16 and bf16 are f32 vectors in registers.

In: a Tracer.  Out: `functions(tracer)`, the functions that a traced body calls, one per dtype.
"""
from functools import partial

from llvmlite import ir

from graphc.codegen.cpu import simd_half
from graphc.codegen.cpu.simd_core import BOOL, DTYPES, F32, HALVES, I8, I32, I64, POINTER, Int, register_dtype

LINE_BYTES = 64


def functions(t):
    """{"load_f32": ..., ...} for all dtypes."""
    table = {}
    for name, dtype in (DTYPES | HALVES).items():
        for function in (load, store, stream, accumulate, broadcast, strided, scatter_strided, gather, store_lane, prefetch,
                         fetch, turn):
            table[f"{function.__name__}_{name}"] = partial(function, t, dtype)
    return table


def element(t, dtype, address, index):
    """Pointer to element `index` at `address`."""
    base = t.builder.inttoptr(t.int_value(address), POINTER)
    return t.builder.gep(base, [t.int_value(index)], source_etype=dtype.memory)


def _memory_type(t, dtype):
    return ir.VectorType(dtype.memory, t.lanes)


def _memory_suffix(t, dtype):
    return f"v{t.lanes}i{8 * dtype.item_bytes}" if dtype is BOOL or dtype.kind == "h" else t.suffix(dtype)


def _from_memory(t, dtype, value):
    if dtype.kind == "h":
        return simd_half.expand(t, dtype, t.vector(value, DTYPES["u16"]))
    if dtype is BOOL:
        value = t.builder.icmp_unsigned("!=", value, ir.Constant(value.type, [0] * t.lanes))
    return t.vector(value, dtype)


def _to_memory(t, dtype, value):
    if dtype.kind == "h":
        return simd_half.pack(t, dtype, t.same(value, F32)).ir
    value = t.same(value, dtype)
    return t.builder.zext(value.ir, _memory_type(t, dtype)) if dtype is BOOL else value.ir


def is_everything(mask):
    """No mask, or a mask that is known to have all lanes set."""
    if mask is None:
        return True
    return isinstance(mask.ir, ir.Constant) and all(c.constant for c in mask.ir.constant)


def load(t, dtype, address, index, mask=None):
    """`lanes` consecutive elements; masked lanes read nothing and are zero."""
    kind, pointer = _memory_type(t, dtype), element(t, dtype, address, index)
    if is_everything(mask):
        value = t.builder.load(pointer, typ=kind)
        value.align = dtype.item_bytes
    else:
        name = f"llvm.masked.load.{_memory_suffix(t, dtype)}.p0"
        zeros = ir.Constant(kind, [0] * t.lanes)
        value = t.call(name, kind, [pointer, I32(dtype.item_bytes), mask.ir, zeros])
    return _from_memory(t, dtype, value)


def store(t, dtype, address, index, value, mask=None):
    """Write `lanes` consecutive elements, or those that the mask has set."""
    pointer, value = element(t, dtype, address, index), _to_memory(t, dtype, value)
    if is_everything(mask):
        t.builder.store(value, pointer).align = dtype.item_bytes
    else:
        name = f"llvm.masked.store.{_memory_suffix(t, dtype)}.p0"
        t.call(name, ir.VoidType(), [value, pointer, I32(dtype.item_bytes), mask.ir])


def stream(t, dtype, address, index, value):
    """Store past the caches.  The place must be aligned to the vector, or to 64 bytes where that is less."""
    pointer, value = element(t, dtype, address, index), _to_memory(t, dtype, value)
    stored = t.builder.store(value, pointer)
    stored.align = min(t.lanes * dtype.item_bytes, 64)
    stored.set_metadata("nontemporal", t.builder.module.add_metadata([I32(1)]))


def accumulate(t, dtype, address, index, value, mask=None):
    """Add to `lanes` consecutive elements, or to those that the mask has set."""
    store(t, dtype, address, index, load(t, dtype, address, index, mask) + value, mask)


def broadcast(t, dtype, address, index):
    """One element in every lane."""
    value = t.builder.load(element(t, dtype, address, index), typ=dtype.memory)
    value.align = dtype.item_bytes
    if dtype is BOOL:
        value = t.builder.icmp_unsigned("!=", value, I8(0))
    if dtype.kind == "h":
        return _from_memory(t, dtype, t.splat(value, DTYPES["u16"]).ir)
    return t.splat(value, dtype)


def strided(t, dtype, address, index, stride, mask=None):
    """Elements index + stride * lane; masked lanes read nothing and are zero."""
    if isinstance(stride, int) and stride == 1:
        return load(t, dtype, address, index, mask)
    return _gather(t, dtype, _strided_pointers(t, dtype, address, index, stride), mask)


def turn(t, dtype, address, index, stride, room, along, across=None):
    """A block of elements index + k + stride * lane, turned: vector k of `lanes` goes to `room`, as registers have it. Only the
    first `along` of the vectors and `across` of the lanes are wanted, and no element beyond them is read (None: all are).
    """
    dtype = DTYPES["u8"] if dtype is BOOL else dtype    # bytes are moved as such
    mask = None if across is None else t.tail(along)
    rows = []
    for k in range(t.lanes):
        row = k if across is None else _at_most(t, k, across)
        rows.append(load(t, dtype, address, index + stride * row, mask))
    size = t.lanes // 2
    while size:
        low = [k if k & size == 0 else k - size + t.lanes for k in range(t.lanes)]
        high = [k + size if k & size == 0 else k + t.lanes for k in range(t.lanes)]
        for k in range(t.lanes):
            if k & size == 0:
                pair = rows[k], rows[k + size]
                rows[k], rows[k + size] = (_picked(t, *pair, order) for order in (low, high))
        size //= 2
    kind = DTYPES[register_dtype(dtype.name)]
    for k, row in enumerate(rows):
        store(t, kind, room, k * t.lanes, row)


def _at_most(t, k: int, count):
    """k, or the last number below `count`."""
    last = t.builder.sub(t.int_value(count), I64(1))
    return Int(t.builder.select(t.builder.icmp_signed("<", last, I64(k)), last, I64(k)), t)


def _picked(t, a, b, order):
    """The lanes of two Vectors, one after the other, in this order."""
    lanes = ir.Constant(ir.VectorType(I32, t.lanes), order)
    return t.vector(t.builder.shuffle_vector(a.ir, b.ir, lanes), a.dtype)


def gather(t, dtype, address, indices, mask=None):
    """Elements at an i64 Vector of indices; masked lanes read nothing and are zero."""
    return _gather(t, dtype, _pointers(t, dtype, address, indices), mask)


def scatter_strided(t, dtype, address, index, stride, value, mask=None):
    """Write elements index + stride * lane, in the order of the lanes."""
    if isinstance(stride, int) and stride == 1:
        store(t, dtype, address, index, value, mask)
        return
    pointers = _strided_pointers(t, dtype, address, index, stride)
    mask = t.all_lanes() if mask is None else mask
    t.call(f"llvm.masked.scatter.{_memory_suffix(t, dtype)}.v{t.lanes}p0", ir.VoidType(),
           [_to_memory(t, dtype, value), pointers, I32(dtype.item_bytes), mask.ir])


def store_lane(t, dtype, address, index, value):
    """Write lane 0 as one scalar."""
    scalar = t.builder.extract_element(_to_memory(t, dtype, value), I32(0))
    t.builder.store(scalar, element(t, dtype, address, index)).align = dtype.item_bytes


def prefetch(t, dtype, address, index, write=False):
    """Bring the line of an element to the first cache, to be read, or written. Any address will do."""
    t.call("llvm.prefetch.p0", ir.VoidType(), [element(t, dtype, address, index), I32(int(write)), I32(3), I32(1)])


def fetch(t, dtype, address, index):
    """The same for all lines of `lanes` consecutive elements, to be read."""
    for k in range(0, t.lanes, LINE_BYTES // dtype.item_bytes):
        prefetch(t, dtype, address, index + k)


def gather_bytes(t, dtype, address, offsets):
    """Elements at byte offsets (an i64 Vector), aligned to nothing."""
    pointers = _add_bytes(t, address, offsets)
    return _gather(t, dtype, pointers, None, alignment=1)


def _strided_pointers(t, dtype, address, index, stride):
    return _pointers(t, dtype, address, t.ramp(DTYPES["i64"], index, stride))


def _pointers(t, dtype, address, indices):
    return _add_bytes(t, address, t.same(indices, DTYPES["i64"]) * dtype.item_bytes)


def _add_bytes(t, address, offsets):
    # llvmlite's gep knows scalar indices only, hence address arithmetic on integers.
    base = t.splat(Int(t.int_value(address), t), DTYPES["i64"])
    return t.builder.inttoptr((base + offsets).ir, ir.VectorType(POINTER, t.lanes))


def _gather(t, dtype, pointers, mask, alignment=None):
    kind = _memory_type(t, dtype)
    mask = t.all_lanes() if mask is None else mask
    name = f"llvm.masked.gather.{_memory_suffix(t, dtype)}.v{t.lanes}p0"
    zeros = ir.Constant(kind, [0] * t.lanes)
    return _from_memory(t, dtype, t.call(
        name, kind, [pointers, I32(alignment or dtype.item_bytes), mask.ir, zeros]))
