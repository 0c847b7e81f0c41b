"""Run-time errors: the same text interpreted and compiled, the user's line, and variables that stay as they were."""
import inspect

import numpy as np
import pytest

import graphc as gc
from graphc.config import options
from graphc.errors import RunError
from graphc.testing.compiled import parallel


def line() -> int:
    """The line of the caller."""
    return inspect.currentframe().f_back.f_lineno


def gathered(x):
    at, y = line(), gc.gather([1.0, 2.0, 3.0], gc.cast(x, gc.int32))
    return y, at, "gather: index out of range: indices[1] = 7 is not in [0, 3)"


def divided(x):
    whole = gc.cast(x, gc.int32) - 7
    at, y = line(), 10 // whole
    return gc.cast(y, gc.float32), at, "floordiv_int: integer division by zero: y[1] = 0"


def checked(x):
    at, y = line(), gc.check_numerics(gc.log(7 - x), "bad")
    return y, at, "check_numerics: bad: the tensor has NaN or Inf values: x[1] = -inf"


def labelled(x):
    labels, logits = gc.cast(x, gc.int32), np.zeros((3, 4), np.float32)
    at, y = line(), gc.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return y, at, "= 7"


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("function", [gathered, divided, checked, labelled])
def test_a_failed_run_names_the_line_and_changes_nothing(function, device, monkeypatch):
    monkeypatch.setattr(options, "device", device)
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None])
        v = gc.Variable(np.float32([5, 5, 5]), name="v")
        y, at, text = function(x)
        update = v.assign_add(y)
        other = gc.Variable(np.float32(0), name="other")
        count = other.assign_add(1.0)
        for threads in (1, 2):
            with parallel(threads), gc.Session() as session:
                session.run(gc.global_variables_initializer())
                for _ in range(2):  # after an error, the same program runs again
                    with pytest.raises(RunError) as caught:
                        session.run([update, count], {x: [1, 7, 2]})
                    message = str(caught.value)
                    assert text in message
                    assert message.endswith(f"\n  in test_run_errors.py:{at}")
                    assert session.run(v).tolist() == [5, 5, 5]
                    assert session.run(other) == 0
                session.run([update, count], {x: [1, 2, 0]})
                assert session.run(other) == 1
