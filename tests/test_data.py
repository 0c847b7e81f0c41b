"""The shipped data sets are what they say they are, and the helpers do what their docstrings say."""
import hashlib
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.data import batches, breast_cancer, diabetes, mnist, standardize, train_test_split


def digest(*arrays):
    """A checksum of the values, independent of the machine's byte order."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return state.hexdigest()[:16]


# ---- the data sets

def test_mnist():
    digits = mnist()
    assert [(a.shape, a.dtype.name) for a in digits] == [
        ((4000, 28, 28), "uint8"), ((4000,), "int32"), ((1000, 28, 28), "uint8"), ((1000,), "int32"),
    ]
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 255
    counts = np.bincount(digits.y_train, minlength=10) + np.bincount(digits.y_test, minlength=10)
    assert counts.tolist() == [500] * 10
    assert np.bincount(digits.y_train).min() >= 350
    assert digest(*digits) == "4a36fa64ea4cbb81"


def test_mnist_has_no_test_digit_among_the_training_ones():
    digits = mnist()
    train = {image.tobytes() for image in digits.x_train}
    assert not any(image.tobytes() in train for image in digits.x_test)


def test_breast_cancer():
    x, y, names = breast_cancer()
    assert (x.shape, x.dtype.name, y.shape, y.dtype.name) == ((569, 30), "float64", (569,), "int32")
    assert np.bincount(y).tolist() == [212, 357]
    assert len(names) == 30
    assert names[:2] == ("mean_radius", "mean_texture")
    assert "target" not in names
    assert digest(x, y) == "483f461de24a295a"


def test_diabetes():
    x, y, names = diabetes()
    assert (x.shape, x.dtype.name, y.shape, y.dtype.name) == ((442, 10), "float64", (442,), "float64")
    assert names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert (y.min(), y.max()) == (25, 346)
    assert digest(x, y) == "e9c1f7559552854a"


@pytest.mark.parametrize("load", [mnist, breast_cancer, diabetes])
def test_arrays_belong_to_the_caller(load):
    first = load()
    for array in first:
        if isinstance(array, np.ndarray):
            assert array.flags.c_contiguous
            array[...] = 1
    assert not np.array_equal(first[0], load()[0])


def test_sources_and_licences_are_shipped_beside_the_files():
    folder = resources.files("graphc.data")
    text = folder.joinpath("README.md").read_text()
    for file in folder.iterdir():
        if file.name.endswith((".csv", ".npz")):
            assert f"`{file.name}`" in text
    for licence in ("CC BY-SA 3.0", "CC BY 4.0", "BSD 3-Clause"):
        assert licence in text


def test_needs_numpy_only():
    code = "import sys, graphc.data as d; d.mnist(); sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ---- standardize

def test_standardize_uses_the_statistics_of_the_first_array_only():
    generator = np.random.default_rng(0)
    train, other = generator.normal(3, 5, (200, 4)), generator.normal(0, 1, (50, 4))
    scaled, scaled_other = standardize(train, other)
    assert np.allclose(scaled.mean(axis=0), 0)
    assert np.allclose(scaled.std(axis=0), 1)
    assert np.allclose(scaled_other, (other - train.mean(axis=0)) / train.std(axis=0))


def test_standardize_of_one_array_returns_an_array_and_leaves_its_argument_alone():
    train = np.arange(6.0).reshape(3, 2)
    before = train.copy()
    assert isinstance(standardize(train), np.ndarray)
    assert np.array_equal(train, before)


def test_standardize_keeps_floats_and_widens_integers():
    assert standardize(np.ones((3, 2), np.float32)).dtype == np.float32
    assert standardize(np.array([[1], [2]], np.uint8)).dtype == np.float64


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_standardize_only_shifts_a_constant_column(value):
    train = np.full((7, 1), value)
    scaled, other = standardize(train, train + 1)
    assert np.array_equal(scaled, np.zeros((7, 1)))
    assert np.allclose(other, (train + 1) - value)


def test_standardize_errors():
    with pytest.raises(ValueError, match=r"needs at least one row, it has shape \(0, 3\)"):
        standardize(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"array 3 has columns of shape \(4,\), the first \(3,\)"):
        standardize(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN or Inf"):
        standardize(np.array([[1.0], [np.nan]]))


# ---- train_test_split

def test_split_keeps_pairs_together_and_loses_nothing():
    x = np.arange(50)
    split = train_test_split(x, 2 * x, test=0.3, seed=4)
    assert (len(split.x_train), len(split.x_test)) == (35, 15)
    assert np.array_equal(split.y_train, 2 * split.x_train)
    assert np.array_equal(split.y_test, 2 * split.x_test)
    assert sorted([*split.x_train, *split.x_test]) == x.tolist()


def test_split_depends_on_the_seed_alone():
    x = np.arange(50)
    assert np.array_equal(train_test_split(x, x).x_test, train_test_split(x, x).x_test)
    assert not np.array_equal(train_test_split(x, x).x_test, train_test_split(x, x, seed=1).x_test)


def test_split_gives_each_part_at_least_one_row():
    x = np.arange(2)
    for share in (0.01, 0.99):
        split = train_test_split(x, x, test=share)
        assert (len(split.x_train), len(split.x_test)) == (1, 1)


@pytest.mark.parametrize("share", [0, 1, -0.5, 20, True])
def test_split_refuses_what_is_not_a_share(share):
    with pytest.raises(ValueError, match="test is a share of the rows"):
        train_test_split(np.arange(10), np.arange(10), test=share)


def test_split_errors():
    with pytest.raises(ValueError, match="x has 3 rows and y has 4"):
        train_test_split(np.arange(3), np.arange(4))
    with pytest.raises(ValueError, match=r"1 row\(s\) cannot be split"):
        train_test_split(np.arange(1), np.arange(1))


# ---- batches

@given(rows=st.integers(0, 40), size=st.integers(1, 45), epochs=st.integers(0, 3), seed=st.integers(0, 5))
def test_each_epoch_shows_each_row_once(rows, size, epochs, seed):
    x = np.arange(rows)
    got = list(batches(x, -x, size, seed=seed, epochs=epochs))
    assert all(np.array_equal(bx, -by) for bx, by in got)
    assert all(1 <= len(bx) <= size for bx, _ in got)
    assert sorted(np.concatenate([bx for bx, _ in got] or [x[:0]])) == sorted(x.tolist() * epochs)


def test_drop_last_gives_full_batches_only():
    x = np.arange(10)
    assert [len(bx) for bx, _ in batches(x, x, 4, drop_last=True)] == [4, 4]
    assert [len(bx) for bx, _ in batches(x, x, 4)] == [4, 4, 2]
    assert [len(bx) for bx, _ in batches(x, x, 5, drop_last=True)] == [5, 5]


def test_batches_are_shuffled_anew_in_each_epoch_and_repeat_with_the_seed():
    x = np.arange(100)
    first, second = (bx for bx, _ in batches(x, x, 100, seed=1, epochs=2))
    assert not np.array_equal(first, x)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, next(batches(x, x, 100, seed=1))[0])
    assert not np.array_equal(next(batches(x, x, 100))[0], next(batches(x, x, 100))[0])


def test_batches_are_copies():
    x = np.arange(4)
    batch, _ = next(batches(x, x, 4))
    batch[:] = 0
    assert x.tolist() == [0, 1, 2, 3]


def test_batches_reports_a_mistake_at_the_call():
    x = np.arange(3)
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        batches(x, x, 0)
    with pytest.raises(ValueError, match="x has 3 rows and y has 2"):
        batches(x, x[:2], 1)
    with pytest.raises(ValueError, match="epochs must not be negative"):
        batches(x, x, 1, epochs=-1)
    with pytest.raises(ValueError, match="no batch of 4 can be made of 3 rows"):
        batches(x, x, 4, drop_last=True)
    with pytest.raises(ValueError, match="need a first axis of rows"):
        batches(np.float32(1), x, 1)
