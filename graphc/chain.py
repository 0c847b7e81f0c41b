"""Runs a graph that host ops cut into segments: native programs and Python calls in turn."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import BudgetError, RunError, report
from graphc.ir.graph import Graph, nested
from graphc.ir.interpreter import bind_dims, bind_result, check_equations, evaluate
from graphc.ir.node import RESULT, Node
from graphc.ir.op import Kind
from graphc.memory import Memory, over_budget
from graphc.program import Program
from graphc.runtime.executor import KEPT_SIZES, Executable, thread_count


class Chain:
    """A segmented graph, compiled once for all sizes.

    variables  an array at a fixed address for each variable among the graph's inputs, in their order.
    program    gives the program of a segment's graph.
    order      gives the nodes of a graph in the order in which they run.
    """

    def __init__(self, graph: Graph, variables: Sequence[np.ndarray], program: Callable[[Graph], Program],
                 order: Callable[[Graph], list[Node]] = Graph.nodes, budget: int | None = None):
        self.graph, self.budget = graph, budget
        inputs = [n for n in graph.inputs if n.attrs["role"] == "variable"]
        self.variables = dict(zip(inputs, variables, strict=True))
        self.counter = np.zeros(1, np.int64)
        self.known: dict[tuple, dict[str, int]] = {}  # shapes of the feeds -> sizes of their dims
        self.order = order(graph)
        self.in_python = {i for n in self.order if n.op.kind is not Kind.SEGMENT for i in n.inputs} | set(graph.outputs)
        self.executables = {n: self.executable(n, program) for n in self.order if n.op.kind is Kind.SEGMENT}
        self.bodies = {body: Chain(body, (), program, order, budget) for n in self.order if n.op.kind is not Kind.SEGMENT
                       for body in nested(n).values()}

    def executable(self, node: Node, program: Callable[[Graph], Program]) -> Executable:
        """The program of one segment."""
        state = [self.variables[i] for i in node.inputs if i in self.variables]
        return Executable(program(node.attrs["body"]), state, self.counter, budget=self.budget)

    @property
    def programs(self) -> list[Program]:
        """The native programs, in order; those of branches and loops last."""
        return [e.program for e in self.executables.values()] + [p for b in self.bodies.values() for p in b.programs]

    def sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """The sizes of the dims that the feeds tell. Raises ShapeError when they do not fit together, and BudgetError when what
        is known by them already takes too much.
        """
        key = tuple([a.shape for a in arrays])
        if key not in self.known:
            shapes = iter(key)
            env = bind_dims(self.graph.inputs, [tuple(n.type.shape) if n in self.variables else next(shapes)
                                                for n in self.graph.inputs])
            check_equations(self.graph.equations, env)
            self.check_budget(env)
            if len(self.known) == KEPT_SIZES:
                self.known.clear()
            self.known[key] = env
        return dict(self.known[key])

    def check_budget(self, env: Mapping[str, int]) -> None:
        """Raise BudgetError when the programs of which all sizes are known take more than the budget."""
        if self.budget is not None:
            memory = Memory([p for p in self.programs if all(n in env for n in p.names)], thread_count())
            sizes = {n: env[n] for n in memory.dims}
            if memory.bytes(**sizes) > self.budget:
                raise over_budget(memory, self.budget, sizes)

    def run(self, arrays: Sequence[np.ndarray], env: dict[str, int], number: int, keep: dict[Node, Any] | None = None) -> list:
        """The outputs for feeds of the right dtypes and the `sizes` of their dims, in the run of this number. New states of
        variables are in the variables' memory: None stands for them. `keep` receives the value of every node.
        """
        with np.errstate(all="ignore"):
            return self.walk(iter(arrays), env, number, {} if keep is None else keep)

    def walk(self, fed: Iterator[np.ndarray], env: dict[str, int], number: int, value: dict[Node, Any]) -> list:
        """`run`, node by node."""
        equations = check_equations(self.graph.equations, env)
        for node in self.order:
            if node in self.variables:
                if node in self.in_python:  # a copy: what Python makes of it must not change when the variable does
                    value[node] = self.variables[node].copy()
            elif node.op.kind is Kind.INPUT:
                value[node] = next(fed)
            elif node.op.kind is Kind.SEGMENT:
                value[node] = self.native(node, [value[i] for i in node.inputs if i not in self.variables], number)
            elif node.op is RESULT:
                value[node] = value[node.inputs[0]][node.attrs["index"]]
            else:
                value[node] = evaluate(node, [value[i] for i in node.inputs], number, env, self.call)
                if node.op.kind is Kind.HOST:
                    bind_result(node, value[node], env)
                    equations = check_equations(equations, env)
        return [value[o] for o in self.graph.outputs]

    def call(self, body: Graph, values: Sequence, number: int, env: Mapping[str, int]) -> list:
        """The results of a branch or of one iteration."""
        return self.bodies[body].run([np.asarray(v) for v in values], dict(env), number)

    def parts(self, arrays: Sequence[np.ndarray]) -> list[tuple[Executable, Graph, list[np.ndarray]]]:
        """The native programs with their graphs, and what a run on these feeds gives to each."""
        value: dict[Node, Any] = {}
        self.run(arrays, self.sizes(arrays), 0, value)
        return [(e, n.attrs["body"], [_in_order(value[i]) for i in n.inputs if i not in self.variables])
                for n, e in self.executables.items()]

    def native(self, node: Node, values: Sequence, number: int):
        """The results of one segment."""
        arrays = [_in_order(v) for v in values]
        self.counter[0] = number
        executable = self.executables[node]
        try:
            instance = executable.instance(arrays)
        except BudgetError:
            raise
        except (OverflowError, MemoryError):
            sizes = zip(executable.program.names, executable.sizes(arrays), strict=True)
            raise report(RunError, f"{node.attrs['body'].name}: there is no memory for tensors of these sizes",
                         rule=", ".join(f"{name} = {size}" for name, size in sizes), location=node.location) from None
        found = iter(instance.run(arrays))
        results = tuple(None if o.op.kind is Kind.EFFECT and o.op.rule.action == "write" else next(found)
                        for o in node.attrs["body"].outputs)
        return results if isinstance(node.type, tuple) else results[0]


def _in_order(value) -> np.ndarray:
    """The value as an array that kernels can read: aligned and in C order."""
    return np.require(value, requirements=("C", "A")) if np.ndim(value) else np.asarray(value)
