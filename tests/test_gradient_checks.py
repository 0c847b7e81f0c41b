"""graphc.test: checks of gradients find what is wrong, and say where; TensorFlow 1's helpers."""
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import graphc as tf
from graphc.errors import ArgumentError
from graphc.ops.define import elementwise
from graphc.ops.samples import real


def record(name, grad):
    """x^3 with a gradient rule of our own. It stays out of the table of all ops."""
    from graphc.ir.op import OPS
    op = elementwise(name, "x", doc="x^3.", scalar="{x} * {x} * {x}", accepts="float", numpy=lambda x: x ** 3, grad=grad,
                     samples=[real(3)])
    OPS.pop(name, None)
    return op


X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_wrong_rule_is_found_and_named(compiled):
    wrong = record("cube_wrong", lambda dy, y, x: [dy * tf.where(x > 1.8, 2 * x * x, 3 * x * x)])
    with pytest.raises(AssertionError, match=r"check_gradients: cube_wrong: the gradient by input 0 \(x\) is wrong at "
                                             r"\[0, 2\]: .*, by differences .*; 1 of 6 elements"):
        tf.test.check_gradients(wrong, X, compiled=compiled)
    values = X.copy()
    values[0, 2] = 1.2
    tf.test.check_gradients(wrong, values, compiled=compiled)


def test_a_rule_that_is_wrong_in_its_second_gradient_alone():
    halting = record("cube_halting", lambda dy, y, x: [dy * 3 * tf.square(tf.stop_gradient(x))])
    tf.test.check_gradients(halting, X, order=1)
    with pytest.raises(AssertionError, match=r"cube_halting: order 2: the gradient by input 0 \(x\) is wrong at"):
        tf.test.check_gradients(halting, X)


def test_a_kernel_that_is_not_the_reference_is_found():
    """The rule is right for the NumPy reference; the kernel computes something else, so only the compiled gradient is off."""
    from graphc.ir.op import OPS
    power = elementwise("power_other", "x", doc="exp(x).", scalar="exp({x}) * 2.0", accepts="float", numpy=np.exp,
                        grad=lambda dy, y, x: [dy * y], samples=[real(3)])
    OPS.pop("power_other")
    with pytest.raises(AssertionError, match=r"power_other: compiled, the gradient by input 0 \(x\) is wrong"):
        tf.test.check_gradients(power, X)
    tf.test.check_gradients(power, X, compiled=False)


def test_a_gradient_of_nan_is_wrong():
    with pytest.raises(AssertionError, match=r"the gradient by input 0 \(x\) is wrong at \[1\]: nan"):
        tf.test.check_gradients(lambda x: tf.where(x > 0, tf.sqrt(x), 0 * x), [1.0, -1.0], order=1)


def test_functions_of_several_inputs_with_several_results():
    def function(x, y, k):
        return {"a": tf.gather(x * y, k), "b": [tf.sin(x), k]}
    tf.test.check_gradients(function, X, X[:1] + 3, np.array([1, 0, 1]), order=3)
    with pytest.raises(AssertionError, match=r"<lambda>: .*the gradient by input 1 \(y\) is wrong"):
        tf.test.check_gradients(lambda x, y: x * tf.stop_gradient(y), 2.0, 3.0)


def test_control_flow_and_awkward_shapes():
    tf.test.check_gradients(lambda x: tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, tf.sin(s) * x), [0, x])[1], X[0])
    for shape in ((), (0, 3), (1, 1)):
        tf.test.check_gradients(tf.tanh, np.ones(shape), order=3)


def test_what_cannot_be_checked():
    with pytest.raises(ArgumentError, match="(?s)none of the values is of floats.*int64"):
        tf.test.check_gradients(tf.square, np.array([1, 2]))
    with pytest.raises(ArgumentError, match="gives no tensor of floats"):
        tf.test.check_gradients(lambda x: tf.argmax(x, 0), X)
    with pytest.raises(ArgumentError, match="an op or a function, and an order from 1"):
        tf.test.check_gradients(tf.square, X, order=0)


# TensorFlow 1's helpers.

def test_compute_gradient():
    with tf.Graph().as_default(), tf.Session() as session:
        x, w = tf.placeholder(tf.float64, [2, 3]), tf.Variable(np.array([[1.0], [2.0], [3.0]]))
        y, scale = tf.square(x) @ w, tf.placeholder(tf.float64, [])
        exact, numeric = tf.test.compute_gradient(x, [2, 3], y * scale, [2, 1], X, init_targets=[w.initializer],
                                                  extra_feed_dict={scale: 10.0})
        want = np.zeros((6, 2))
        want[:3, 0], want[3:, 1] = 20 * X[0] * [1, 2, 3], 20 * X[1] * [1, 2, 3]
        np.testing.assert_allclose(exact, want, rtol=1e-12)
        np.testing.assert_allclose(numeric, want, rtol=1e-8)
        assert tf.test.compute_gradient_error(x, [2, 3], y, [2, 1]) < 1e-8
        both = tf.test.compute_gradient([x, scale], [[2, 3], []], y * scale, [2, 1])
        assert [a.shape for a, _ in both] == [(6, 2), (1, 2)]
        wrong = y + tf.stop_gradient(y)
        assert tf.test.compute_gradient_error(x, [2, 3], wrong, [2, 1], X) == pytest.approx(12, rel=1e-6)
        with pytest.raises(ArgumentError, match="not of the shape given"):
            tf.test.compute_gradient(x, [3], y, [2, 1], X)
        assert session.run(y, {x: X}).shape == (2, 1)
    with pytest.raises(ArgumentError, match="no default session"):
        tf.test.compute_gradient(x, [2, 3], y, [2, 1])


def test_test_case_as_a_script(tmp_path):
    (tmp_path / "cases.py").write_text(textwrap.dedent("""
        import os
        import graphc as tf

        class Cases(tf.test.TestCase):
            def test_values(self):
                with self.session() as session:
                    x = tf.constant([1.0, 2.0])
                    self.assertAllEqual(x * 2, [2, 4])
                    self.assertAllClose([x, {"a": x}["a"] + 1e-9], [[1, 2], (1, 2)])
                    self.assertAllClose({"a": session.run(x)}, {"a": [1, 2]})
                    self.assertShapeEqual([1, 2], x)
                    self.assertEqual(x.name, "constant")
                    with self.assertRaises(AssertionError):
                        self.assertAllEqual(x, [[1, 2]])
                    with self.assertRaises(AssertionError):
                        self.assertAllClose(x, [1, 2.1])
                self.assertAllEqual(self.evaluate([x])[0], [1, 2])

            def test_a_new_graph_for_each(self):
                self.assertEqual(tf.constant(0).name, "constant")
                self.assertTrue(os.path.isdir(self.get_temp_dir()))

            def test_that_fails(self):
                with self.cached_session():
                    self.assertAllEqual(tf.constant(1), 2)

        if __name__ == "__main__":
            tf.test.main()
        """))
    done = subprocess.run([sys.executable, str(tmp_path / "cases.py")], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(tf.__file__).parent.parent)})
    assert done.returncode == 1, done.stderr
    assert "FAILED (failures=1, skipped=1)" in done.stderr
    assert "FAIL: test_that_fails" in done.stderr
