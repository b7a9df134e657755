"""Items that are stored alike are found exactly, whatever their number of bytes, without a copy of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lshbench.ranking import repeats
from lshbench.ranking.repeats import Repeats


def expected(stored: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Return rows, kinds and kind by comparing content, row by row."""
    first: dict[bytes, int] = {}
    firsts = [first.setdefault(row.tobytes(), number) for number, row in enumerate(stored)]
    rows = [number for number, known in enumerate(firsts) if known != number]
    kinds = sorted({firsts[row] for row in rows})
    return rows, kinds, [kinds.index(firsts[row]) for row in rows]


def assert_exact(stored: np.ndarray) -> None:
    found = Repeats.of(stored)
    assert [part.dtype for part in found] == [np.int64] * 3
    assert tuple(part.tolist() for part in found) == expected(stored)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 17, 40])
@pytest.mark.parametrize(("kinds", "items"), [(1, 3), (3, 60), (400, 500), (5000, 1200)])
def test_repeats_are_those_of_equal_content(width: int, kinds: int, items: int) -> None:
    generator = np.random.default_rng(width + kinds)
    kept = generator.integers(0, 256, (kinds, width), np.uint8)
    kept[: kinds // 2, :-1] = kept[0, :-1]  # rows that differ in their last byte only
    assert_exact(kept[generator.integers(0, kinds, items)])


@pytest.mark.parametrize("shape", [(0, 4), (0, 40), (1, 4), (1, 40)])
def test_fewer_than_two_items_have_no_repeats(shape: tuple[int, int]) -> None:
    assert_exact(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("width", [6, 20])
def test_every_second_byte_of_wider_rows_is_compared_as_any_other(width: int) -> None:
    wide = np.random.default_rng(0).integers(0, 2, (700, 2 * width), np.uint8)
    wide[300:] = wide[:400]
    assert_exact(wide[:, ::2])


@pytest.mark.parametrize("half", [0, 8])
def test_rows_whose_hashes_share_a_half_are_not_alike(half: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(row: bytes) -> bytes:
        key = bytearray(16)
        key[half] = row[0] % 3
        return bytes(key)

    monkeypatch.setattr(repeats.xxhash, "xxh3_128_digest", hashed)
    stored = np.repeat(np.random.default_rng(0).integers(0, 3, (90, 1), np.uint8), 20, axis=1)
    assert_exact(stored)


def test_what_is_stored_is_not_copied() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (4000, 2048), np.uint8)
    tracemalloc.start()
    try:
        Repeats.of(stored)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < stored.nbytes / 2
