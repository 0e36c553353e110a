"""A cache bounded in bytes, and keys for it from the content of arrays."""

import hashlib
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Kept = TypeVar("Kept")


class RecentlyUsed(Generic[Kept]):
    """The most recently used values, `limit` bytes in total. A larger value is not kept. Threads may call at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._values: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Kept | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: str, value: Kept, size: int) -> None:
        """Keep `value`, which has `size` bytes."""
        assert size >= 0, size
        if size > self.limit:
            return
        with self._lock:
            if key in self._values:
                self.used -= self._values.pop(key)[1]
            self._values[key] = value, size
            self.used += size
            while self.used > self.limit:
                self.used -= self._values.popitem(last=False)[1][1]
            assert self.used == sum(size for _, size in self._values.values()), "a value's bytes are counted wrongly"


def content_key(*arrays: NDArray[np.generic]) -> str:
    """Return a digest of the arrays' types, shapes and elements."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
