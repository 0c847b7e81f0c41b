"""`Program`: what a session runs and what can be kept on disk. Numbers, texts, arrays and object code; no graph, no compiler.

Its words, one for each argument of each kernel call, say what the argument is: "feed 0", "variable 2", "constant 1",
"output 0", "slot 3" (a place in the arena), "run" (address of the run number), "error" (address of the error slot),
"row" (an address that a loop changes), "span" (FrameWord.SPAN), "place 4 1" (the address of word 1 of record 4),
"drawn 0" (a seed of the system), or "= expression of dims" (a size).
"""
from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence

import numpy as np

from graphc.errors import ParseError, report
from graphc.memory import Memory
from graphc.records import record

FORMAT = 4
MAGIC = b"graphc-program\n"
NO_LIMIT = 2**63 - 1    # iterations of a loop that ends by itself


def array_dtype(name: str) -> np.dtype:
    """The NumPy dtype called `name`; NumPy knows bfloat16 once ml_dtypes has been imported."""
    if name == "bfloat16":
        import ml_dtypes  # noqa: F401
    return np.dtype(name)


def plain_array(array: np.ndarray) -> np.ndarray:
    """The array in a dtype that files can hold: only kernels read it, and they know what its bits mean."""
    return array.view(np.uint16) if array.dtype.kind == "V" else array


@record(frozen=True)
class ArraySpec:
    """An array that goes in or out: name, dtype, shape as dim texts, and the user's line."""

    name: str
    dtype: str
    shape: tuple[str, ...]
    location: str = ""


@record(frozen=True)
class BufferSpec:
    """A temporary: its place in the arena, its bytes as a dim text (for all threads), the first and last record of its life.

    dtype: short, "" for what holds no tensor; per_thread: each thread has a part of it for itself.
    """

    name: str
    slot: int
    bytes: str
    first: int
    last: int
    dtype: str
    shape: tuple[str, ...]
    per_thread: bool
    location: str = ""

    @property
    def type(self) -> str:
        """dtype and shape; "" for what holds no tensor."""
        return f"{self.dtype}[{','.join(self.shape)}]" if self.dtype else ""


@record(frozen=True)
class FailureSpec:
    """What a failed check means. See codegen.lower.Failure."""

    op: str
    message: str
    culprit: str
    dtype: str
    shape: tuple[str, ...]
    limit: str | None
    location: str


@record(frozen=True)
class RecordSpec:
    """One kernel call. `work`: operations, a dim text; `dense`: they are multiply-adds of a contraction; `repeats`: how
    often a run calls it, about.

    kind    other than "call": a step of control flow, as the flags of runtime.layout.RecordFlag say. Then `words` is the table
            of a "loop" (LoopWord) or a "share" (ShareWord), or the address of the bool that an "unless" reads.
    target  the number of the record to go to. A "next" or "part" goes to the one after its loop.
    """

    symbol: str
    words: tuple[str, ...]
    serial: bool
    barrier: bool
    may_fail: bool
    work: str
    dense: bool
    location: str = ""
    kind: str = "call"
    target: int = 0
    repeats: str = "1"


@record(frozen=True)
class Program:
    """A compiled graph. `names`: its named dims; `written`: variables that get a new value; `arena`: bytes of all temporaries
    together; `slots`: places in it, in bytes from its start, all as dim texts; `buffers`: what it holds; `updates`: (number of
    a variable, why its new value is computed apart from the old one, or ""); `drawn`: seeds of the system; `given`: for each
    constant the number of the graph's large constant that it is, or -1; `objects`: symbol -> object code.

    A new field that holds sizes or lines belongs into `portable.with_dims` or `with_lines`: another process has others.
    """

    name: str
    names: tuple[str, ...]
    feeds: tuple[ArraySpec, ...]
    variables: tuple[ArraySpec, ...]
    constants: tuple[np.ndarray, ...]
    outputs: tuple[ArraySpec, ...]
    written: tuple[str, ...]
    equations: tuple[tuple[str, str, str], ...]
    records: tuple[RecordSpec, ...]
    arena: str
    slots: tuple[str, ...]
    buffers: tuple[BufferSpec, ...]
    updates: tuple[tuple[int, str], ...]
    failures: tuple[FailureSpec, ...]
    drawn: tuple[int, ...]
    given: tuple[int, ...]
    objects: dict[str, bytes]

    @property
    def may_run_long(self) -> bool:
        """Whether there is a loop that ends by itself, after who knows how many iterations."""
        return any(r.kind == "loop" and r.words[1] == f"= {NO_LIMIT}" for r in self.records)

    @property
    def memory(self) -> Memory:
        """What a run on one thread takes; `Session.memory` has it for as many as runs use."""
        return Memory([self])

    def to_bytes(self) -> bytes:
        """The program as bytes. No pickle."""
        blobs: list[bytes] = []
        return packed(MAGIC, self.document(blobs), blobs)

    @staticmethod
    def from_bytes(data: bytes) -> Program:
        """The program that `to_bytes` wrote. Raises ParseError for anything else."""
        return Program.of_document(*unpacked(MAGIC, data))

    def document(self, blobs: list[bytes]) -> dict:
        """The program as what JSON knows; arrays and object code are appended to `blobs`, and their places written down."""
        record: dict = {name: getattr(self, name) for name in self.__match_args__}
        for key in KINDS:
            record[key] = [list(vars(row).values()) for row in record[key]]
        record["constants"] = [[c.dtype.name, c.shape, _added(blobs, c.tobytes())] for c in self.constants]
        record["objects"] = {s: _added(blobs, o) for s, o in self.objects.items()}
        return {"format": FORMAT, **record}

    @staticmethod
    def of_document(document: dict, blobs: Sequence[bytes]) -> Program:
        """The program of a `document`. Raises ParseError for anything else."""
        try:
            record = dict(document)
            if record.pop("format") != FORMAT:
                raise report(ParseError, "the program was written by another version of graphc")
            for key, kind in KINDS.items():
                record[key] = [kind(*map(_frozen, row)) for row in record[key]]
            record["constants"] = [np.frombuffer(blobs[k], array_dtype(dtype)).reshape(shape)
                                   for dtype, shape, k in record["constants"]]
            objects = {s: bytes(blobs[k]) for s, k in record.pop("objects").items()}
            return Program(objects=objects, **{k: _frozen(v) for k, v in record.items()})
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
            if isinstance(e, ParseError):
                raise
            raise report(ParseError, "these bytes are not a program of graphc", rule=f"{type(e).__name__}: {e}") from None


KINDS: dict[str, type] = {"feeds": ArraySpec, "variables": ArraySpec, "outputs": ArraySpec, "records": RecordSpec,
                          "buffers": BufferSpec, "failures": FailureSpec}


def _added(blobs: list[bytes], blob: bytes) -> int:
    if blob not in blobs:
        blobs.append(blob)
    return blobs.index(blob)


def _frozen(value):
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def packed(magic: bytes, document: dict, blobs: Sequence[bytes]) -> bytes:
    """A JSON document and blobs as bytes with a checksum."""
    text = json.dumps({"document": document, "sizes": [len(b) for b in blobs]}, separators=(",", ":")).encode()
    body = b"".join((struct.pack("<Q", len(text)), text, *blobs))
    return magic + hashlib.sha256(body).digest() + body


def unpacked(magic: bytes, data: bytes) -> tuple[dict, list[bytes]]:
    """What was `packed`. Raises ParseError for anything else."""
    start = len(magic) + 32
    view = memoryview(data)
    if data[:len(magic)] != magic or hashlib.sha256(view[start:]).digest() != data[len(magic):start]:
        raise report(ParseError, "these bytes are not a program of graphc", rule="the header or the checksum is wrong")
    try:
        length, = struct.unpack_from("<Q", data, start)
        at = start + 8 + length
        head = json.loads(bytes(view[start + 8:at]))
        blobs = []
        for size in head["sizes"]:
            blobs.append(bytes(view[at:at + size]))
            at += size
        if at != len(data):
            raise ValueError("too long or too short")
        return head["document"], blobs
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as e:
        raise report(ParseError, "these bytes are not a program of graphc", rule=f"{type(e).__name__}: {e}") from None
