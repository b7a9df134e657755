"""Large arrays lie in files without names; rows are copied in blocks."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lshbench.runtime import scratch
from lshbench.runtime.kept import content_digest
from lshbench.training.pca import PCA


@pytest.fixture(autouse=True)
def small_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_folder", tmp_path)
    monkeypatch.setattr(scratch, "LARGE_BYTES", 1000)
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 100)


def test_a_large_array_lies_in_a_file_that_leaves_no_trace(tmp_path: Path) -> None:
    assert not isinstance(scratch.empty((2, 3)), np.memmap)
    large = scratch.empty((100, 3), np.float16)
    assert not isinstance(large, np.memmap), "600 bytes are not large"
    large = scratch.empty((100, 3))
    assert isinstance(large, np.memmap)
    assert (large.shape, large.dtype) == ((100, 3), np.float32)
    large[:] = np.arange(300).reshape(100, 3)
    assert large.sum() == 44850
    assert list(tmp_path.iterdir()) == []


def test_without_room_it_lies_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scratch, "_folder", tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        assert not isinstance(scratch.empty((100, 3)), np.memmap)
    assert "they are in memory" in caplog.text


def test_rows_are_copied_in_blocks_to_where_they_belong() -> None:
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float16)
    rows, places = np.array([49, 3, 3, 20] * 5), np.random.default_rng(1).permutation(20)
    assert np.array_equal(scratch.copy_rows(x, rows, np.empty((20, 4), np.float32)), x[rows].astype(np.float32))
    placed = scratch.copy_rows(x, rows, np.empty((20, 4), np.float32), places)
    assert np.array_equal(placed[places], x[rows].astype(np.float32))


def test_components_of_many_items_lie_in_a_file() -> None:
    x = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    pca = PCA(3).fit(x)
    reduced = pca.transform(x)
    assert isinstance(reduced, np.memmap)
    assert np.allclose(reduced, (x - pca.mean) @ pca.weight, atol=1e-5)


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_what_was_written_stays_when_pages_are_let_go_of(tmp_path: Path, mode: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((100, 100)))
    x = np.load(tmp_path / "x.npy", mmap_mode=mode)
    x[50] = 1
    copy = x.astype(np.float32)
    assert isinstance(copy, np.memmap), "a map by its type alone"
    scratch.release(x, x[25:], copy)
    assert x.sum() == copy.sum() == 100


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_digest_of_a_large_file_is_that_of_its_array_and_leaves_none_of_it_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).integers(0, 255, (3001, 1 << 14), np.uint8)  # 47 MiB
    np.save(tmp_path / "x.npy", x)
    expected = content_digest(x)
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 1 << 20)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = resident()
    assert content_digest(mapped) == expected == content_digest(np.asfortranarray(x))
    assert content_digest(mapped[1:]) != expected
    assert resident() < before + (24 << 20), "half of it"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_freed_memory_goes_back_to_the_system() -> None:
    blocks = [np.ones(1 << 13) for _ in range(2000)]  # 64 KiB each: from the heap, not maps of their own
    kept = [blocks.pop() for _ in range(1)]  # on its top, so that the heap can't shrink
    del blocks
    before = resident()
    scratch.trim()
    assert resident() < before - (64 << 20)
    del kept
