"""What several test files share."""
import os
import signal
from pathlib import Path

import pytest

# No test reads or fills the user's cache; only those that ask for it use one, lest it hide what a compile does. With
# GRAPHC_TEST_CACHE=1 each program of each test is kept, loaded again and run as it was loaded.
os.environ["GRAPHC_CACHE"] = "0"

import through_cache

import graphc as tf
import graphc.cache
import graphc.config

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "python -m pytest --update-golden"

# A shell starts what it puts into the background with Ctrl-C ignored, and the tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the lower parts of tests/golden/*/*.txt")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, which this process and those that it starts use; gives its folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRAPHC_CACHE", "1")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(folder))
    monkeypatch.setattr(graphc.config.options, "cache", True)
    monkeypatch.setattr(graphc.config.options, "cache_dir", str(folder))
    monkeypatch.setattr(graphc.cache, "_warned", set())
    return folder


@pytest.fixture(autouse=os.environ.get("GRAPHC_TEST_CACHE", "0") != "0")
def _through_the_cache(request, monkeypatch):
    """Every program is kept, loaded, and run as it was loaded."""
    request.getfixturevalue("cache")
    through_cache.patch(monkeypatch)


@pytest.fixture(autouse=True)
def _no_session_is_left():
    """A test (a page of the docs, too) may leave an InteractiveSession open; the next one starts without."""
    yield
    while isinstance(session := tf.get_default_session(), tf.InteractiveSession):
        session.close()


@pytest.fixture
def fresh_graph():
    """A default graph of the test's own."""
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture(params=["cpu", "numpy"])
def device(request, monkeypatch):
    """Compiled, then interpreted; gives the device's name."""
    monkeypatch.setattr(graphc.config.options, "device", request.param)
    return request.param


class Golden:
    """A file with an input, a line `=== stage`, and the output that is expected; `update` rewrites the output."""

    def __init__(self, path: Path, update: bool):
        self.path, self.update = path, update
        self.given, self.mark, self.expected = path.read_text().partition(f"=== {path.parent.name}\n")

    def check(self, output: str) -> None:
        """Raise AssertionError unless `output` is the lower part; with --update-golden, make it so."""
        if self.update:
            self.path.write_text(f"{self.given.rstrip()}\n=== {self.path.parent.name}\n{output}")
            return
        name = self.path.relative_to(self.path.parent.parent)
        assert self.mark, f"{name} has no lower part `=== {self.path.parent.name}`; to write it: {COMMAND}"
        assert output == self.expected, f"{name} has changed; if that is meant, {COMMAND}, and read the diff"


@pytest.fixture
def golden(request):
    """path -> Golden."""
    return lambda path: Golden(Path(path), request.config.getoption("--update-golden"))
