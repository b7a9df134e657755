"""Work that runs share is done once, gives the same bits, and is done again where what was kept is damaged."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lshbench.runtime import shared_work
from lshbench.runtime.progress import silent
from lshbench.runtime.shared_work import once, sharing
from lshbench.training.neighbors import nearest_neighbors
from lshbench.training.pca import principal_axes

INPUT = {"x": np.arange(6.0).reshape(3, 2)}
MUCH = 1e12


class Computation:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        time.sleep(0.1)
        return {"total": np.float64(0.1) * np.arange(3)}


def test_runs_at_once_and_later_ones_share_one_computation(tmp_path: Path) -> None:
    compute = Computation()

    def run(x: np.ndarray = INPUT["x"], threads: int = 1, operations: float = MUCH) -> np.ndarray:
        with sharing(tmp_path / "shared", threads):
            return once("example", {"x": x}, operations, compute, "setting")["total"]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: run(), range(4)))
    assert compute.calls == 1
    assert all(total.tobytes() == found[0].tobytes() for total in found)
    run(INPUT["x"] + 1)
    run(threads=2)
    assert compute.calls == 3, "other inputs, or other last bits"
    run(operations=1)
    once("example", INPUT, MUCH, compute, "setting")
    assert compute.calls == 5, "little work, or nobody to share it with"


def test_a_damaged_result_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute = Computation()
    with sharing(tmp_path, 1):
        whole = once("example", INPUT, MUCH, compute)["total"]
        (path,) = tmp_path.glob("*.npz")
        content = bytearray(path.read_bytes())
        content[content.index(whole.tobytes())] ^= 1
        for damaged in (bytes(content), b"", content[:100]):
            path.write_bytes(damaged)
            assert once("example", INPUT, MUCH, compute)["total"].tobytes() == whole.tobytes()
    assert compute.calls == 4
    assert caplog.text.count("is damaged") == 3


def test_axes_and_neighbours_are_equal_bit_for_bit_however_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "WORTH", 0)
    x = np.random.default_rng(0).standard_normal((60, 12)).astype(np.float32)
    alone = principal_axes(x, 4), nearest_neighbors(torch.tensor(x), 5, silent)
    with sharing(tmp_path, 1):
        for _ in range(2):
            axes, neighbors = principal_axes(x, 4), nearest_neighbors(torch.tensor(x), 5, silent)
            assert all(np.array_equal(vars(axes)[key], value) for key, value in vars(alone[0]).items())
            assert np.array_equal(neighbors, alone[1])
    assert sorted(path.name.split("-")[0] for path in tmp_path.glob("*.npz")) == ["neighbors", "principal"]
