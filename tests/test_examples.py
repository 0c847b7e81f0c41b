"""Each example runs as a user would run it, and prints the result that it promises."""
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples"


def run(name: str) -> tuple[str, float]:
    """What an example prints, and its seconds."""
    start = time.perf_counter()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run([sys.executable, str(FOLDER / name)], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return done.stdout, time.perf_counter() - start


def number(pattern: str, text: str) -> float:
    """The number that `pattern` finds in what was printed."""
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def test_expression():
    text, _ = run("expression.py")
    assert "  0.0000   0.0000   1.0000  -0.0000" in text
    assert number(r"finite differences (\S+) and", text) < 1e-7
    assert number(r"finite differences \S+ and (\S+)", text) < 1e-7


def test_linear_regression():
    text, _ = run("linear_regression.py")
    assert number(r"largest difference (\S+);", text) < 1e-3
    assert number(r"(\S+)% of the variance", text) == pytest.approx(51.8, abs=0.1)


def test_logistic_regression():
    text, _ = run("logistic_regression.py")
    assert number(r"test accuracy (\S+)", text) >= 0.95


def test_mnist_mlp():
    text, seconds = run("mnist_mlp.py")
    assert number(r"test accuracy (\S+) after", text) >= 0.92
    assert number(r"(\d+) steps/s", text) > 200
    assert seconds < 30, f"{seconds:.1f} s; 10 s are the goal, on a machine that does nothing else"
    assert len(re.findall(r"^ +\d+ +\d\.\d+ +\d\.\d+ +0\.\d+ +\d+ ms$", text, re.M)) >= 5  # progress for each epoch


def test_mnist_lenet():
    text, seconds = run("mnist_lenet.py")
    assert number(r"test accuracy (\S+) after", text) >= 0.97
    assert number(r"(\d+) steps/s", text) > 10
    assert seconds < 110, f"{seconds:.1f} s; 15 s are the goal, on a machine that does nothing else"
    assert len(re.findall(r"^ +\d+ +\d\.\d+ +\d\.\d+ +0\.\d+ +\d+ ms$", text, re.M)) >= 5  # progress for each epoch


def test_lstm_rows():
    text, _ = run("lstm_rows.py")
    assert number(r"(?s).*test accuracy (\S+),", text) >= 0.93


def test_char_lm():
    text, _ = run("char_lm.py")
    assert number(r"update 400: (\S+) nats", text) < 1.7, "a letter of English alone, by its frequency, takes about 2.9"
    assert len(text.rpartition(" s\n")[2]) > 200, "it writes"


def test_own_op():
    text, _ = run("own_op.py")
    assert "to second order" in text
    assert number(r"compiled against NumPy: largest difference (\S+);", text) < 1e-6
    assert number(r"final loss (\S+)", text) < 0.05


def test_hessian():
    text, seconds = run("hessian.py")
    losses = [float(f) for f in re.findall(r"^iteration +\d+   loss (\S+)", text, re.M)]
    assert losses[0] == pytest.approx(np.log(2)) and all(b <= a + 1e-12 for a, b in zip(losses, losses[1:], strict=False))
    assert number(r"converged after (\d+) iterations", text) < 15
    assert number(r"gradient (\S+), accuracy", text) < 1e-10
    assert number(r"accuracy (\S+)", text) > 0.98
    assert seconds < 60


def test_every_example_is_tested():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in FOLDER.glob("*.py")} <= tests
