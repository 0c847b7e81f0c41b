"""Plain helpers that bring arrays into the form a training loop wants: scaled, split, in shuffled batches."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Two parts of a data set, in the order in which scikit-learn returns them."""

    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


def standardize(train, *others):
    """Shift and scale each column to mean 0 and standard deviation 1, as measured on `train` alone.

    The statistics of `others` (validation, test) are never looked at: all arrays get the shift and the scale of
    `train`.  A column that is constant in `train` is only shifted.  Floating arrays keep their dtype, others become
    float64.  Returns one new array for one argument, else a tuple of them.

        x_train, x_test = standardize(x_train, x_test)
    """
    train = np.asarray(train)
    if train.ndim == 0 or len(train) == 0:
        raise ValueError(f"standardize: the first array needs at least one row, it has shape {train.shape}")
    for position, other in enumerate(others, start=2):
        if np.shape(other)[1:] != train.shape[1:]:
            raise ValueError(
                f"standardize: array {position} has columns of shape {np.shape(other)[1:]}, the first {train.shape[1:]}"
            )
    if not np.isfinite(train).all():
        raise ValueError("standardize: the first array holds NaN or Inf, so its mean and deviation are not defined")
    mean = train.mean(axis=0, dtype=np.float64)
    scale = train.std(axis=0, dtype=np.float64)
    # Tested on the values: the rounded mean of equal values may differ from them, which leaves a scale of about 1e-17.
    constant = (train == train[0]).all(axis=0)
    mean = np.where(constant, train[0], mean)
    scale = np.where(constant, 1.0, scale)
    scaled = tuple(_scaled(np.asarray(array), mean, scale) for array in (train, *others))
    return scaled if others else scaled[0]


def _scaled(array: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    dtype = array.dtype if np.issubdtype(array.dtype, np.floating) else np.dtype(np.float64)
    return ((array - mean) / scale).astype(dtype)


def train_test_split(x, y, test: float = 0.2, seed: int = 0) -> Split:
    """Deal rows at random into a training and a test part; `test` is the share of rows that go to the test part.

    The same seed gives the same split.  Both parts have at least one row.

        x_train, x_test, y_train, y_test = train_test_split(x, y)
    """
    x, y = _paired("train_test_split", x, y)
    if isinstance(test, bool) or not 0 < test < 1:
        raise ValueError(f"train_test_split: test is a share of the rows, between 0 and 1, not {test!r}")
    if len(x) < 2:
        raise ValueError(f"train_test_split: {len(x)} row(s) cannot be split in two parts")
    count = min(max(round(len(x) * test), 1), len(x) - 1)
    order = np.random.default_rng(seed).permutation(len(x))
    return Split(x[order[count:]], x[order[:count]], y[order[count:]], y[order[:count]])


def batches(
    x, y, size: int, seed: int | None = None, epochs: int = 1, drop_last: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shuffled minibatches `(x, y)` of `size` rows each, `epochs` times through the data.

    Each epoch has an order of its own.  The same seed gives the same batches; without one they differ from run to run.
    The last batch of an epoch holds the rows that are left, or is left out with `drop_last`.

        for x, y in batches(x_train, y_train, size=32, seed=0, epochs=5):
            step(x, y)
    """
    # Checked here and not in the generator, so that a mistake is reported where `batches` is called.
    x, y = _paired("batches", x, y)
    if size < 1:
        raise ValueError(f"batches: size must be at least 1, not {size!r}")
    if epochs < 0:
        raise ValueError(f"batches: epochs must not be negative, it is {epochs!r}")
    if drop_last and size > len(x):
        raise ValueError(f"batches: no batch of {size} can be made of {len(x)} rows, and drop_last leaves the rest out")
    return _shuffled(x, y, size, np.random.default_rng(seed), epochs, drop_last)


def _shuffled(x, y, size, generator, epochs, drop_last):
    stop = len(x) - size + 1 if drop_last else len(x)
    for _ in range(epochs):
        order = generator.permutation(len(x))
        for start in range(0, stop, size):
            rows = order[start : start + size]
            yield x[rows], y[rows]


def _paired(function: str, x, y) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, of which row i of one belongs to row i of the other."""
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"{function}: x and y need a first axis of rows, their shapes are {x.shape} and {y.shape}")
    if len(x) != len(y):
        raise ValueError(f"{function}: x has {len(x)} rows and y has {len(y)}")
    return x, y
