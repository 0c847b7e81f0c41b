"""The native driver of this process: loaded from the cache, or built, once, on first use (`engine()`)."""
import ctypes
import hashlib

from graphc.cache import folder, warn_once
from graphc.config import options
from graphc.fingerprint import UnknownCompiler, fingerprint, is_unchanged
from graphc.runtime.loader import LoadError, load_objects, once


class Engine:
    """The loaded driver: functions callable from Python (the longer ones release the GIL) and its static words."""

    def __init__(self, content, object_code):
        """content: what `engine.build` says of the object code."""
        self._arity = content["functions"]
        imports = _symbol_addresses(content)
        self.library = load_objects({"driver": object_code}, exports=[*self._arity, *content["words"]],
                                    allowed=imports, imports=imports)
        self.entry_address = self.library.address("entry")
        self.entry_with_variables_address = self.library.address("entry_with_variables")
        self.run = self._callable("run")
        self.run_steps = self._callable("run_steps")
        self.worker_loop = self._callable("worker_loop")
        self.make_gate = self._callable("make_gate")
        self.advance = self._callable("advance")
        self.reach = self._callable("reach")
        self.take_lock = self._callable("take_lock")
        self.hold, self.release, self.read = (self._callable(f, ctypes.PYFUNCTYPE) for f in ("hold", "release", "read"))
        self.array_type, self.pool, self.start_pool = (
            ctypes.c_int64.from_address(self.library.address(word)) for word in content["words"])
        # Worker threads may still be inside this code when the interpreter takes its modules apart: never unload it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.library))

    def _callable(self, name, make=ctypes.CFUNCTYPE):
        """PYFUNCTYPE: a call keeps Python's lock."""
        kind = make(ctypes.c_int64, *[ctypes.c_int64] * self._arity[name])
        return kind(self.library.address(name))


def _symbol_addresses(content):
    """Looked up through ctypes: where libpython is loaded privately (embedding) LLVM's own search would not find it."""
    places = [(ctypes.pythonapi, content["python"]), (ctypes.CDLL(None), content["libc"])]
    return {symbol: ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
            for library, symbols in places for symbol in symbols}


@once
def engine():
    try:
        key = hashlib.sha256(f"driver\n{fingerprint()}".encode()).hexdigest() if options.cache else ""
    except UnknownCompiler:
        key = ""
    found = folder().load(key) if key else None
    if found is not None:
        document, blobs = found
        try:
            return Engine(document["driver"], blobs[0])
        except (AttributeError, LoadError, LookupError, TypeError) as e:
            warn_once(f"the driver that is kept is not used: {e}")
    from graphc.runtime.engine import build
    content, object_code = build()
    if key and is_unchanged():
        folder().save(key, {"name": "(driver)", "driver": content}, [object_code])
    return Engine(content, object_code)
