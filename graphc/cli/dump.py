"""`graphc dump`: a graph at any stage, as text or JSON."""
from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli.load import load, note
from graphc.cli.stages import GRAPHS, PASSES, STAGES, Stages
from graphc.codegen.build import emit
from graphc.codegen.control import root
from graphc.codegen.kernel import Kernel
from graphc.codegen.kernel_text import kernel_text
from graphc.codegen.lower import Buffer
from graphc.codegen.plan import Control, Plan, Record
from graphc.errors import Location
from graphc.ir.graph import Graph, named
from graphc.ir.node import Node
from graphc.ir.op import Array, PythonFunction
from graphc.ir.printer import SMALL, large_constants
from graphc.ir.types import DType, TensorType, type_text
from graphc.memory import Memory, reuse_text

HELP = "print a graph at any stage"
DESCRIPTION = f"""\
Prints a graph at any stage of its way to a program:

  built                 as the script made it
  <pass>                after a pass: {', '.join(PASSES)}
  fused                 after all passes: what kernels are made of (the default)
  kernels               the programs: kernel calls in order, memory, and what each kernel does
  memory                what a run takes: formulas of the named dims, the tensors at the peak, what shares a place
  source                the generated source of each kernel
  all                   every stage

A script runs only up to its first Session.run, eval, or call of a make_callable; what it prints goes to stderr."""
FORMAT = 1  # of the JSON


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="fused", metavar="STAGE", help="default: fused")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help="write here; large constants go into a .npz of the same name")


def command(arguments: argparse.Namespace) -> None:
    """Print or write what was asked for."""
    stages = Stages(load(arguments.target, arguments.script_arguments))
    names = stages.names() if arguments.stage == "all" else [arguments.stage]
    if arguments.format == "json":
        record = {"format": FORMAT, "file": stages.loaded.path.name, "stages": [stage_record(stages, n) for n in names]}
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    else:
        parts = [stage_text(stages, n) for n in names]
        text = "\n".join(f"=== {n}\n{p}" for n, p in zip(names, parts, strict=True)) if len(names) > 1 else parts[0]
    constants = {d: a for n in names if n in GRAPHS for d, a in large_constants(stages.graph(n)).items()}
    write(text, arguments.output, constants)


def write(text: str, output: Path | None, constants: dict[str, np.ndarray] | None = None) -> None:
    """`text` to a file or stdout, and large constants beside the file."""
    if output is None:
        sys.stdout.write(text)
        if constants:
            note(f"{len(constants)} large constants are named by a hash; -o FILE keeps their data")
        return
    output.write_text(text, encoding="utf-8")
    if constants:
        np.savez(output.with_suffix(".npz"), **constants)  # type: ignore[arg-type]


# text ---------------------------------------------------------------------------------------------


def stage_text(stages: Stages, stage: str) -> str:
    """A stage as text."""
    if stage in ("kernels", "memory", "source") and not stages.programs:
        return "# no kernels: host ops do all of it\n"
    if stage == "kernels":
        return _kernels_text(stages)
    if stage == "memory":
        return "\n".join([str(stages.memory), *(f"  {line}" for p in stages.memory.programs for line in reuse_text(p))]) + "\n"
    if stage == "source":
        count = {k: sum(r.call.kernel == k for r in stages.records) for k in stages.kernels}
        return "\n\n".join(f"# kernel {n}: {k.name}, called {_times(count[k])}\n{emit(k).text.rstrip()}\n"
                           for n, k in enumerate(stages.kernels))
    return str(stages.graph(stage))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _kernels_text(stages: Stages) -> str:
    programs = [_program_text(graph, plan, stages.kernels) for graph, plan in stages.programs]
    texts = [f"# kernel {n}\n{kernel_text(k)}" for n, k in enumerate(stages.kernels)]
    return "\n\n".join([*programs, *texts]) + "\n"


def _program_text(graph: Graph, plan: Plan, kernels: list[Kernel]) -> str:
    lines = [f"program {graph.name}({', '.join(f'{i.name}: {i.type}' for i in graph.inputs)}) {{"]
    lines += [f"  arena: {plan.arena} bytes"] if plan.slots else []
    lines += [f"  place {k}: at byte {place}" for k, place in enumerate(plan.slots)]
    for number, record in enumerate(plan.records):
        indent = "  " * (1 + len(record.loops))
        if isinstance(record, Control):
            lines += [f"{indent}{number}: {_control_text(record, plan)}"] if record.kind not in ("meet", "join") else []
        else:
            call = record.call
            lines.append(f"{indent}{number}: kernel {kernels.index(call.kernel)} {call.kernel.name}("
                         + ", ".join(_argument(record, b, _slot(plan, b)) for b in call.buffers)
                         + f")  {call.operations} operations" + (f"  # {call.location}" if call.location else ""))
        lines += [f"{indent}-- all threads meet"] if record.barrier else []
    return "\n".join([*lines, "}"])


def _control_text(record: Control, plan: Plan) -> str:
    """`unless go@2: to 7`, `loop 5 times, along xs@1, then to 9`."""
    if record.loop is None:
        return (f"unless {_placed(plan, record.test)}: " if record.test else "") + f"to {record.target}"
    if record.kind in ("next", "part"):
        return f"next iteration, to {record.target}"
    loop = record.loop
    if loop.shares is not None:
        return f"each thread its share of {loop.length}, then to {record.target}"
    times = "" if loop.length is None else f" {loop.length} times" + (" from the last row" if loop.reverse else "")
    along = ", ".join(_placed(plan, row.whole) for row in loop.rows)
    return f"loop{times}" + (f", along {along}" if along else "") + f", then to {record.target}"


def _slot(plan: Plan, buffer: Buffer) -> int | None:
    return plan.slot_of.get(plan.aliases.get(root(buffer), root(buffer)))


def _placed(plan: Plan, buffer: Buffer) -> str:
    slot = _slot(plan, buffer)
    return buffer.name + (f"@{slot}" if slot is not None else "")


def _argument(record: Record, buffer: Buffer, slot: int | None) -> str:
    arrow = "->" if buffer in record.call.writes else ""
    return f"{arrow}{buffer.name}" + (f"@{slot}" if slot is not None else "")


# JSON ---------------------------------------------------------------------------------------------


def stage_record(stages: Stages, stage: str) -> dict[str, Any]:
    """A stage as what JSON can hold."""
    if stage == "source":
        return {"stage": stage, "kernels": [{"name": k.name, "source": emit(k).text} for k in stages.kernels]}
    if stage == "memory":
        return {"stage": stage, **_memory_record(stages.memory)}
    if stage != "kernels":
        return {"stage": stage, "graph": graph_record(stages.graph(stage))}
    programs = [{"name": graph.name, **_program_record(plan, stages.kernels)} for graph, plan in stages.programs]
    return {"stage": stage, "kernels": [{"name": k.name, "text": kernel_text(k)} for k in stages.kernels], "programs": programs}


def _memory_record(memory: Memory) -> dict[str, Any]:
    held = [{"name": h.name, "what": h.what, "type": h.type, "bytes": _size(h.bytes), "location": h.location}
            for h in memory.at_peak()]
    return {"peak": _size(memory.peak), "parts": {k: _size(v) for k, v in memory.parts.items()}, "dims": memory.dims,
            "held": held}


def _program_record(plan: Plan, kernels: list[Kernel]) -> dict[str, Any]:
    calls = [{"record": n, "kernel": kernels.index(r.call.kernel), "buffers": [b.name for b in r.call.buffers],
              "reads": [b.name for b in r.call.buffers if b in r.call.reads],
              "writes": [b.name for b in r.call.buffers if b in r.call.writes],
              "sizes": [_size(s) for s in r.call.sizes], "operations": _size(r.call.operations),
              "serial": r.call.serial, "barrier": r.barrier, "location": _location(r.call.location)}
             for n, r in enumerate(plan.records) if isinstance(r, Record)]
    control = [{"record": n, "kind": r.kind, "target": r.target, "test": r.test.name if r.test else None,
                "length": _size(r.loop.length) if r.loop and r.loop.length is not None else None, "barrier": r.barrier}
               for n, r in enumerate(plan.records) if isinstance(r, Control)]
    buffers = {b.name: {"place": s, "bytes": _size(b.bytes)} for b, s in plan.slot_of.items()}
    arena = {"bytes": _size(plan.arena), "places": [_size(s) for s in plan.slots], "buffers": buffers}
    return {"calls": calls, "control": control, "arena": arena}


def graph_record(graph: Graph) -> dict[str, Any]:
    """A graph with its nodes in order: names as in the text, without the percent sign."""
    graph = named(graph)
    return {
        "name": graph.name,
        "inputs": [{"name": n.name, "role": n.attrs["role"], "type": _value(n.type), "location": _location(n.location)}
                   for n in graph.inputs],
        "equations": [{"left": _size(e.left), "right": _size(e.right), "location": _location(e.location)}
                      for e in graph.equations],
        "nodes": [_node_record(n) for n in graph.nodes() if n not in graph.inputs],
        "outputs": [n.name for n in graph.outputs],
    }


def _node_record(node: Node) -> dict[str, Any]:
    regions = {k: graph_record(v) for k, v in node.attrs.items() if isinstance(v, Graph)}
    return {
        "name": node.name, "op": node.op.name, "kind": node.op.kind.value, "inputs": [i.name for i in node.inputs],
        "control": [c.name for c in node.control],
        "attrs": {k: _value(v) for k, v in node.attrs.items() if k not in regions and k != "variable"},
        "type": _value(node.type), "location": _location(node.location), **({"regions": regions} if regions else {}),
    }


def _value(value) -> Any:
    if isinstance(value, Array):
        data = value.value
        content = {"values": _value(data.tolist())} if data.size <= SMALL else {"digest": value.digest}
        return {"array": content, "dtype": data.dtype.name, "shape": list(data.shape)}
    if isinstance(value, TensorType):
        return {"dtype": value.dtype.name, "shape": [_size(d) for d in value.shape], "text": type_text(value)}
    if isinstance(value, (tuple, list)):
        return [_value(v) for v in value]
    if isinstance(value, DType):
        return value.name
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))  # JSON knows no inf and no nan
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if value is None or isinstance(value, str):
        return value
    return value.name if isinstance(value, PythonFunction) else _size(value)


def _size(size) -> int | str:
    return int(size) if isinstance(size, (int, np.integer)) else str(size)


def _location(location: Location | None) -> dict[str, Any] | None:
    return {"file": location.file, "line": location.line} if location else None
