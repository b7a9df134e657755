"""Saved indexes, damaged in many ways: they are refused, or give an answer; they never end the interpreter.

A row number out of range ends the interpreter, so these tests fail by ending the process that they run in.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.index.base import Index
from lshbench.index.binary_engines import BinaryHashEngine, BinaryIvfEngine, BinaryMultiHashEngine
from lshbench.index.binary_graphs import BinaryHnswEngine
from lshbench.index.buckets import BucketsIndex
from lshbench.index.compressed_engines import HnswSqEngine, IvfPqEngine, IvfRabitqEngine, PqFastScanEngine
from lshbench.index.engines import HnswEngine, LshEngine
from lshbench.index.flat import FlatIndex
from lshbench.index.ivf import IvfIndex
from lshbench.index.oversampled import OversampledIndex
from lshbench.types import Codes, Encoded

ITEMS, DIM, BITS = 260, 8, 21
SCRIPTS = Path(__file__).parents[2] / "scripts"

INDEXES: dict[str, Index] = {
    "flat": FlatIndex(),
    "flat features": FlatIndex(gives="nothing"),
    "buckets": BucketsIndex(tables=2, bits_per_table=5, shortlist=20),
    "buckets, long keys": BucketsIndex(tables=2, bits_per_table=15, rescore="hamming"),
    "ivf": IvfIndex(gives="nothing", clusters=4, nprobe=2),
    "lsh": LshEngine(nbits=20, train_thresholds=True),
    "hnsw": HnswEngine(m=4, ef_construction=20, ef_search=20),
    "binary_hash": BinaryHashEngine(b=5, nflip=1),
    "binary_multi_hash": BinaryMultiHashEngine(nhash=2, b=5, nflip=1),
    "binary_ivf": BinaryIvfEngine(nlist=6, nprobe=2),
    "binary_hnsw": BinaryHnswEngine(m=4, ef_construction=20, ef_search=20),
    "pq_fastscan": PqFastScanEngine(nbits=8),
    "ivf_pq": IvfPqEngine(nbits=16, nlist=6, nprobe=2),
    "ivf_rabitq": IvfRabitqEngine(nbits=72, nlist=6, nprobe=2),
    "hnsw_sq": HnswSqEngine(m=4, ef_construction=20, ef_search=20),
    "oversampled": OversampledIndex(FlatIndex(), 2),
    "oversampled, int8": OversampledIndex(BinaryIvfEngine(nlist=6, nprobe=2), 3, "int8"),
}


def gallery() -> Encoded:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((ITEMS, DIM)).astype(np.float32)
    return Encoded(x, Codes.from_signs(x @ generator.standard_normal((DIM, BITS)).astype(np.float32)))


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("fuzz_runs")


@pytest.fixture(params=list(INDEXES))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Index, Encoded, Path]:
    """An index, its gallery, and the folder that it was saved in."""
    index, items = INDEXES[request.param], gallery()
    index.build(items).save(tmp_path)
    return index, items, tmp_path


def opened(saved: tuple[Index, Encoded, Path]) -> bool:
    """Open and search a saved index; return whether it is taken.  Any answer will do, and no crash."""
    made, items, folder = saved
    try:
        index = made.reopened(folder, items.features)
    except (UsageError, ValueError, TypeError, LookupError, OSError, OverflowError):
        return False
    found = index.search(items[:5], 10)
    assert found.ids.max() < ITEMS
    return True


def test_arrays_out_of_range_of_other_shapes_or_types_are_refused(saved: Any, fuzz: Any) -> None:
    assert opened(saved)
    folder = saved[2]
    refused = 0
    arrays = sorted(folder.glob("*.npy"))
    for number, path in enumerate(arrays * 6):
        generator = np.random.default_rng([3, number])
        content = path.read_bytes()
        damaged = bytearray(content)
        (fuzz.values if number < 4 * len(arrays) else fuzz.shape)(generator, damaged)
        path.write_bytes(damaged)
        refused += not opened(saved)
        path.write_bytes(content)
    assert refused
    assert opened(saved)


def test_files_cut_off_zeroed_or_gone_are_refused_and_faiss_s_own_is_not_read(saved: Any) -> None:
    folder = saved[2]
    for path in folder.iterdir():
        content = path.read_bytes()
        for damaged in (b"", content[: len(content) // 2], bytes(len(content)), b"x" + content):
            path.write_bytes(damaged)
            assert opened(saved) == (path.suffix == ".faiss"), path.name
        path.unlink()
        assert opened(saved) == (path.suffix == ".faiss"), path.name
        path.write_bytes(content)
    assert opened(saved)


@pytest.mark.parametrize("value", [-1, 0, 2**31, 2**62, None, "x", [], {}, list(range(2000)), 1.5, True])
def test_a_description_s_numbers_take_no_memory(value: object, tmp_path: Path) -> None:
    items = gallery()
    for name in ("buckets, long keys", "hnsw", "binary_multi_hash"):
        folder = tmp_path / name
        folder.mkdir()
        INDEXES[name].build(items).save(folder)
        described = json.loads((folder / "index.json").read_text())
        for key in (
            "items",
            "dim",
            "bits",
            "bits_per_table",
            "probes",
            "tables",
            "keys/m",
            "keys/ef_search",
            "keys/nhash",
        ):
            changed = json.loads(json.dumps(described))
            node = changed if key in changed else changed.get("keys", {})
            if key not in node:
                continue
            node[key] = value
            (folder / "index.json").write_text(json.dumps(changed))
            opened((INDEXES[name], items, folder))
