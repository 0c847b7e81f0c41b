"""Sends what tests compile through the cache: what runs is what another process would load."""
import json

from graphc import compiler
from graphc.chain import Chain
from graphc.codegen.build import build
from graphc.config import options
from graphc.passes.segment import native_graphs
from graphc.portable import KeptGraph, named_like
from graphc.program import Program
from graphc.runtime.executor import Executable
from graphc.skeleton import Reader, Writer
from graphc.testing import compiled


def patch(monkeypatch):
    """Replace the ways of compiling until the test ends."""
    built, made = compiler._built, compiled.CompiledGraph.__init__

    def built_and_loaded(store, graph, kept, name, arrays, few):
        found = built(store, graph, kept, name, arrays, few)
        if kept is None:
            assert not options.cache or options.dump or options.check or options.debug > 1 or options.explain or any(
                n.op.is_users for n in graph.nodes()), "the program cannot be kept"
            return found
        loaded = compiler._loaded(store, kept)
        assert loaded is not None, "the program was not kept"
        return loaded

    def made_and_loaded(self, graph, skip=()):
        kept = KeptGraph(graph)
        watched = kept.form.watched()
        made(self, watched, skip)
        self.graph = graph
        blobs: list[bytes] = []
        canonical, own = kept.canonical_names(), kept.own_names()

        def again(program):
            return kept.bound(Program.of_document(kept.portable(program, canonical).document(blobs), blobs), own)
        if self.chain is None:
            self.program = named_like(again(self.program), graph)
            self.executable = Executable(self.program, [])
            return
        programs = {body: again(build(body)) for body in native_graphs(self.chain.graph)}
        numbers = {body: k for k, body in enumerate(programs)}
        skeleton = json.loads(json.dumps(Writer(kept.form, numbers, canonical, blobs).graph(self.chain.graph)))
        reader = Reader(kept.form, own, blobs)
        self.chain = Chain(reader.graph(skeleton), [], lambda body: list(programs.values())[reader.programs[body]],
                           reader.orders.__getitem__)
    monkeypatch.setattr(compiler, "_built", built_and_loaded)
    monkeypatch.setattr(compiled.CompiledGraph, "__init__", made_and_loaded)
