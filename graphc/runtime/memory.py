"""Arrays at aligned addresses, and pools that hand an array out again once nobody holds it."""
from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from graphc.memory import ALIGNMENT

POOLED_BYTES = 64 << 10  # smaller arrays cost less fresh than a look into a pool
KEPT = 8                 # arrays that a pool looks after
_FREE = 3                # references to an array that only its pool holds: the pool's, the loop's, getrefcount's own


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(array, owner of its memory): an uninitialised array at an address that is a multiple of 64."""
    size = math.prod(shape) * dtype.itemsize
    owner = np.empty(size + ALIGNMENT, np.uint8)
    start = -owner.ctypes.data % ALIGNMENT
    return owner[start:start + size].view(dtype).reshape(shape), owner


def stacked(count: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array [count, *shape], each item where a kernel may want its result: large ones are aligned."""
    size = math.prod(shape) * dtype.itemsize
    pitch = size if size < POOLED_BYTES else -(-size // ALIGNMENT) * ALIGNMENT
    room, _ = aligned((count * pitch,), np.dtype(np.uint8))
    inner = np.empty((1, *shape), dtype).strides[1:]
    return np.ndarray((count, *shape), dtype, room, strides=(pitch, *inner))


def supplier(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    """A function that gives arrays of this shape and dtype that nobody else holds; their content is arbitrary."""
    return partial(np.empty, shape, dtype) if math.prod(shape) * dtype.itemsize < POOLED_BYTES else Pool(shape, dtype).take


class Pool:
    """Arrays of one shape and dtype. A fresh large array costs more in page faults than its computation, so results are
    recycled once neither the array nor a view of it is held. The pool forgets the oldest when more than KEPT are held.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self.entries: list[tuple[np.ndarray, np.ndarray]] = []

    def take(self) -> np.ndarray:
        """An array that nobody else holds; its content is arbitrary."""
        count = sys.getrefcount
        for array, owner in self.entries:
            # The owner is held by its pool entry, by `array.base`, and by the loop; a view adds one.
            if count(array) == _FREE and count(owner) == _FREE + 1:
                return array
        entry = aligned(self.shape, self.dtype)
        if len(self.entries) == KEPT:
            del self.entries[0]
        self.entries.append(entry)
        return entry[0]
