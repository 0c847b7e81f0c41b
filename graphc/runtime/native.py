"""Writing native code in Python that reads like C, on llvmlite's IR builder.

Everything is a 64-bit word: numbers, addresses, arguments and results.  A function is written as

    @native
    def largest(c, values, count):
        best = c.variable(values[0])            # values[i]: the word at address values + 8 * i
        with c.count(count) as i:
            with c.if_(values[i] > best.value):
                best.value = values[i]
        c.return_(best.value)

and called as `largest(c, address, 3)` in another one, where `c` is the code being written.  A function that ends
without `return_` returns 0.  Nothing is written before `native_module` asks for it.
"""
import inspect
import platform
from contextlib import contextmanager

from llvmlite import ir

WORD = ir.IntType(64)
BYTES = 8


class Word:
    """A 64-bit value.  Comparisons are signed and give a `Condition`; indexing reads and writes memory."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, code, value):
        self.code = code
        self.value = value

    def _arithmetic(self, operation, other):
        return Word(self.code, getattr(self.code.builder, operation)(self.value, self.code.word(other).value))

    def __add__(self, other):
        return self._arithmetic("add", other)

    def __sub__(self, other):
        return self._arithmetic("sub", other)

    def __mul__(self, other):
        return self._arithmetic("mul", other)

    def __floordiv__(self, other):
        """The quotient of numbers that are not negative."""
        return self._arithmetic("udiv", other)

    def __and__(self, other):
        return self._arithmetic("and_", other)

    def _compare(self, operator, other):
        return Condition(self.code, self.code.builder.icmp_signed(operator, self.value, self.code.word(other).value))

    def __eq__(self, other):
        return self._compare("==", other)

    def __ne__(self, other):
        return self._compare("!=", other)

    def __lt__(self, other):
        return self._compare("<", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def at(self, index):
        """The address `index` words further on."""
        return self + self.code.word(index) * BYTES

    def pointer(self, kind=WORD):
        return self.code.builder.inttoptr(self.value, kind.as_pointer())

    def __getitem__(self, index):
        return Word(self.code, self.code.builder.load(self.at(index).pointer()))

    def __setitem__(self, index, value):
        self.code.builder.store(self.code.word(value).value, self.at(index).pointer())

    def int32_at(self, offset):
        """The C `int` that lies `offset` bytes further on."""
        kind = ir.IntType(32)
        value = self.code.builder.load((self + offset).pointer(kind))
        return Word(self.code, self.code.builder.sext(value, WORD))

    def set_int32(self, value):
        """Stores a C `int` here."""
        kind = ir.IntType(32)
        self.code.builder.store(self.code.builder.trunc(self.code.word(value).value, kind), self.pointer(kind))

    def byte_at(self, offset):
        """The byte that lies `offset` bytes further on, 0 to 255."""
        value = self.code.builder.load((self + offset).pointer(ir.IntType(8)))
        return Word(self.code, self.code.builder.zext(value, WORD))


class Condition:
    """True or false, known when the code runs."""

    def __init__(self, code, value):
        self.code = code
        self.value = value

    def __and__(self, other):
        return Condition(self.code, self.code.builder.and_(self.value, other.value))

    def __or__(self, other):
        return Condition(self.code, self.code.builder.or_(self.value, other.value))

    def __xor__(self, other):
        return Condition(self.code, self.code.builder.xor(self.value, other.value))

    def choose(self, yes, no):
        """`yes` if true, else `no`; both are evaluated."""
        word = self.code.word
        return Word(self.code, self.code.builder.select(self.value, word(yes).value, word(no).value))

    def __bool__(self):
        raise TypeError("a Condition is only known when the native code runs: use c.if_ or choose")


class Variable:
    """A local variable: read and assign `.value`."""

    def __init__(self, code, slot):
        self._code = code
        self._slot = slot

    @property
    def value(self):
        return Word(self._code, self._code.builder.load(self._slot))

    @value.setter
    def value(self, new):
        self._code.builder.store(self._code.word(new).value, self._slot)


class Loop:
    def __init__(self, code, after):
        self._code = code
        self._after = after

    def leave_if(self, condition):
        builder = self._code.builder
        further = builder.append_basic_block("further")
        builder.cbranch(condition.value, self._after, further)
        builder.position_at_end(further)


class Code:
    """The body of one native function while it is being written."""

    def __init__(self, module, function):
        self.module = module
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))

    def word(self, value):
        return value if isinstance(value, Word) else Word(self, ir.Constant(WORD, int(value)))

    def variable(self, first):
        with self.builder.goto_entry_block():      # a slot made inside a loop would grow the stack each time round
            slot = self.builder.alloca(WORD)
        variable = Variable(self, slot)
        variable.value = first
        return variable

    def return_(self, value=0):
        self.builder.ret(self.word(value).value)

    @contextmanager
    def if_(self, condition, likely=None):
        with self.builder.if_then(condition.value, likely=likely):
            yield

    @contextmanager
    def if_else(self, condition):
        """Yields two contexts: `with c.if_else(x) as (then, otherwise): with then: ...; with otherwise: ...`"""
        with self.builder.if_else(condition.value) as both:
            yield both

    @contextmanager
    def loop(self):
        """Repeats its body until `leave_if`."""
        body = self.builder.append_basic_block("loop")
        after = self.builder.append_basic_block("after")
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield Loop(self, after)
        self.builder.branch(body)
        self.builder.position_at_end(after)

    @contextmanager
    def count(self, limit, first=0):
        """Repeats its body with first, first + 1, ... limit - 1."""
        index = self.variable(first)
        with self.loop() as loop:
            now = index.value
            loop.leave_if(now >= limit)
            yield now
            index.value = now + 1

    def call(self, function, arguments):
        return Word(self, self.builder.call(function, [self.word(a).value for a in arguments]))

    def call_address(self, address, *arguments):
        """Calls the void function at `address`."""
        kind = ir.FunctionType(ir.VoidType(), [WORD] * len(arguments))
        self.builder.call(address.pointer(kind), [self.word(a).value for a in arguments])

    # Atomic operations are sequentially consistent: the driver's protocols store one word and then look at another.

    def atomic_add(self, address, amount):
        """Adds, and gives the value from before."""
        return Word(self, self.builder.atomic_rmw("add", address.pointer(), self.word(amount).value, "seq_cst"))

    def atomic_load(self, address):
        return Word(self, self.builder.load_atomic(address.pointer(), "seq_cst", BYTES))

    def atomic_store(self, address, value):
        self.builder.store_atomic(self.word(value).value, address.pointer(), "seq_cst", BYTES)

    def take(self, address):
        """Changes the word from 0 to 1; false if it was not 0."""
        both = self.builder.cmpxchg(address.pointer(), self.word(0).value, self.word(1).value, "seq_cst")
        return Condition(self, self.builder.extract_value(both, 1))

    def pause(self):
        """Tells the processor that this is a spinning loop."""
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            self._intrinsic("llvm.x86.sse2.pause")
        elif machine in ("arm64", "aarch64"):
            self._intrinsic("llvm.aarch64.hint", ir.Constant(ir.IntType(32), 1))      # 1 is `yield`

    def clock(self):
        """A counter that grows with time, at a rate that this processor keeps; 0 on processors that are not known."""
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            kind = ir.FunctionType(WORD, [])
            return Word(self, self.builder.call(self.module.declare("llvm.readcyclecounter", kind), []))
        if machine in ("arm64", "aarch64"):
            read = ir.InlineAsm(ir.FunctionType(WORD, []), "mrs $0, cntvct_el0", "=r", side_effect=True)
            return Word(self, self.builder.call(read, []))
        return self.word(0)

    def _intrinsic(self, name, *arguments):
        kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
        self.builder.call(self.module.declare(name, kind), arguments)


class NativeFunction:
    """A function of native code; `write(c, *arguments)` writes its body."""

    def __init__(self, write, inline):
        self.name = write.__name__
        self.write = write
        self.inline = inline
        self.arity = len(inspect.signature(write).parameters) - 1

    def __call__(self, code, *arguments):
        return code.call(code.module.define(self), arguments)


def native(write):
    """Decorator: a native function.  Calls stay calls: the driver is small, and copies would only cost build time."""
    return NativeFunction(write, inline=False)


def native_inline(write):
    """Decorator: a native function that is copied into its callers."""
    return NativeFunction(write, inline=True)


class External:
    """A C function of words, found in the process when the module is loaded."""

    def __init__(self, name, arity):
        self.name = name
        self.arity = arity

    def __call__(self, code, *arguments):
        return code.call(code.module.declare(self.name, ir.FunctionType(WORD, [WORD] * self.arity)), arguments)


class Global:
    """One word of static storage that Python can reach by its symbol."""

    def __init__(self, name):
        self.name = name

    def address(self, code):
        return Word(code, code.builder.ptrtoint(code.module.declare_global(self.name), WORD))


class _Module:
    """The IR module being made: functions are defined when first called, bodies are written one after another."""

    def __init__(self, name):
        self.ir = ir.Module(name)
        self._waiting = []

    def declare(self, name, kind):
        return self.ir.globals.get(name) or ir.Function(self.ir, kind, name)

    def define(self, function, linkage="internal"):
        if function.name not in self.ir.globals:
            declared = self.declare(function.name, ir.FunctionType(WORD, [WORD] * function.arity))
            declared.linkage = linkage
            declared.attributes.add("alwaysinline" if function.inline else "noinline")
            self._waiting.append(function)
        return self.ir.globals[function.name]

    def declare_global(self, name):
        if name not in self.ir.globals:
            ir.GlobalVariable(self.ir, WORD, name).initializer = ir.Constant(WORD, 0)
        return self.ir.globals[name]

    def write_bodies(self):
        while self._waiting:
            function = self._waiting.pop()
            declared = self.ir.globals[function.name]
            code = Code(self, declared)
            function.write(code, *[Word(code, argument) for argument in declared.args])
            if not code.builder.block.is_terminated:
                code.return_()


def native_module(name, functions, global_words=()):
    """The llvmlite IR module that exports `functions` and `global_words`, and holds whatever they call."""
    module = _Module(name)
    for word in global_words:
        module.declare_global(word.name)
    for function in functions:
        module.define(function, linkage="external")
    module.write_bodies()
    return module.ir
