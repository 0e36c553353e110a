"""What was used last is kept, in bounded memory; equal content has one name."""

import random

import numpy as np
from numpy.typing import NDArray

from qwen_tts.recently_used import RecentlyUsed, content_key


def test_the_last_used_that_fit_are_kept() -> None:
    """Against a list that does the same slowly."""
    rng = random.Random(0)
    cache, expected = RecentlyUsed[int](10), dict[str, tuple[int, int]]()
    for number in range(3000):
        key = rng.choice("abcdefgh")
        if rng.random() < 0.5:
            found = expected.pop(key, None)
            assert cache.get(key) == (None if found is None else found[0])
            if found is not None:
                expected[key] = found
        elif (size := rng.randint(0, 12)) <= 10:
            cache.put(key, number, size)
            expected.pop(key, None)
            expected[key] = number, size
            while sum(size for _, size in expected.values()) > 10:
                del expected[next(iter(expected))]
        else:
            cache.put(key, number, size)  # larger than the whole cache, so that nothing changes
        assert cache.used == sum(size for _, size in expected.values()) <= 10


def test_keys_tell_types_shapes_and_elements_apart() -> None:
    codes = np.arange(12, dtype=np.int16).reshape(3, 4)
    other = codes.copy()
    other[2, 3] += 1
    halves = (codes[:2], codes[2:])
    one: list[NDArray[np.integer]] = [codes, other, codes.reshape(4, 3), codes.astype(np.int32), codes.astype(">i2")]
    keys = [*(content_key(array) for array in one), content_key(codes, codes), content_key(*halves)]
    assert len(set(keys)) == len(keys)
    assert content_key(codes) == content_key(np.asfortranarray(codes)) == content_key(codes.copy())
