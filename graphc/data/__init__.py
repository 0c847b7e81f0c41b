"""Real data sets that ship with graphc, and the few helpers that a first model needs.

    digits = graphc.data.mnist()
    for x, y in graphc.data.batches(digits.x_train, digits.y_train, size=32, seed=0):
        ...

Needs NumPy only.  Every function returns fresh arrays that belong to the caller: writing to them changes nothing else.
"""
from graphc.data.datasets import Digits, Table, breast_cancer, diabetes, mnist
from graphc.data.prepare import Split, batches, standardize, train_test_split

__all__ = [
    "Digits",
    "Split",
    "Table",
    "batches",
    "breast_cancer",
    "diabetes",
    "mnist",
    "standardize",
    "train_test_split",
]
