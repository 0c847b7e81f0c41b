"""`Program`: what a session runs and what can be kept on disk. Numbers, texts, arrays and object code; no graph, no compiler.

Its words, one for each argument of each kernel call, say what the argument is: "feed 0", "variable 2", "constant 1",
"output 0", "slot 3" (a part of the arena), "run" (address of the run number), "error" (address of the error slot),
"row" (an address that a loop changes), "span" (FrameWord.SPAN), "place 4 1" (the address of word 1 of record 4), or
"= expression of dims" (a size).
"""
from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass, fields

import numpy as np

from graphc.errors import ParseError, report

FORMAT = 2
MAGIC = b"graphc-program\n"
NO_LIMIT = 2**63 - 1    # iterations of a loop that ends by itself


def array_dtype(name: str) -> np.dtype:
    """The NumPy dtype called `name`; NumPy knows bfloat16 once ml_dtypes has been imported."""
    if name == "bfloat16":
        import ml_dtypes  # noqa: F401
    return np.dtype(name)


@dataclass(frozen=True)
class ArraySpec:
    """An array that goes in or out: name, dtype, shape as dim texts, and the user's line."""

    name: str
    dtype: str
    shape: tuple[str, ...]
    location: str = ""


@dataclass(frozen=True)
class FailureSpec:
    """What a failed check means. See codegen.lower.Failure."""

    op: str
    message: str
    culprit: str
    dtype: str
    shape: tuple[str, ...]
    limit: str | None
    location: str


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Program:
    """A compiled graph. `names`: its named dims; `written`: variables that get a new value; `slots`: sizes of the arena's
    parts in bytes, as dim texts; `objects`: symbol -> object code.
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
    slots: tuple[str, ...]
    failures: tuple[FailureSpec, ...]
    objects: dict[str, bytes]

    @property
    def may_run_long(self) -> bool:
        """Whether there is a loop that ends by itself, after who knows how many iterations."""
        return any(r.kind == "loop" and r.words[1] == f"= {NO_LIMIT}" for r in self.records)

    def memory(self) -> str:
        """Bytes of temporaries, as an expression of the named dims and of `threads_`."""
        return " + ".join(self.slots) or "0"

    def to_bytes(self) -> bytes:
        """The program as bytes: a header, a JSON text, arrays and object code in one .npz, and a checksum. No pickle."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("constants", "objects")}
        text = json.dumps({"format": FORMAT, **record, "symbols": list(self.objects)}, default=asdict)
        stream = io.BytesIO()
        arrays = {f"constant{k}": c for k, c in enumerate(self.constants)}
        arrays |= {f"object{k}": np.frombuffer(o, np.uint8) for k, o in enumerate(self.objects.values())}
        np.savez(stream, text=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        body = stream.getvalue()
        return MAGIC + hashlib.sha256(body).digest() + body

    @staticmethod
    def from_bytes(data: bytes) -> Program:
        """The program that `to_bytes` wrote. Raises ParseError for anything else."""
        start = len(MAGIC)
        body = data[start + 32:]
        if data[:start] != MAGIC or hashlib.sha256(body).digest() != data[start:start + 32]:
            raise report(ParseError, "these bytes are not a program of graphc", rule="the header or the checksum is wrong")
        try:
            return _decode(body)
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as e:
            if isinstance(e, ParseError):
                raise
            raise report(ParseError, "these bytes are not a program of graphc", rule=f"{type(e).__name__}: {e}") from None


def _decode(body: bytes) -> Program:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        record = json.loads(arrays["text"].tobytes())
        if record.pop("format") != FORMAT:
            raise report(ParseError, "the program was written by another version of graphc")
        objects = {s: arrays[f"object{k}"].tobytes() for k, s in enumerate(record.pop("symbols"))}
        constants = tuple(arrays[f"constant{k}"] for k in range(sum(n.startswith("constant") for n in arrays.files)))
    kinds: dict[str, type] = {"feeds": ArraySpec, "variables": ArraySpec, "outputs": ArraySpec, "records": RecordSpec,
                              "failures": FailureSpec}
    for key, kind in kinds.items():
        record[key] = tuple(kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in record[key])
    for key in ("names", "written", "slots"):
        record[key] = tuple(record[key])
    record["equations"] = tuple(tuple(e) for e in record["equations"])
    return Program(constants=constants, objects=objects, **record)
