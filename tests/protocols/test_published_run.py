"""A run on lists in the published format: the figure that papers report comes first, and equals a plain count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import Command

SIZES = {"train": 60, "gallery": 160, "queries": 30}


def flags(digit: int) -> str:
    """Return twelve flags: the digit, whether it is odd, and whether it is below five."""
    return " ".join(str(int(flag)) for flag in (*(np.arange(10) == digit), digit % 2, digit < 5))


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as images, and lists of them: the training list has the first of the database."""
    folder = tmp_path_factory.mktemp("lists")
    images, digits = load_digits(return_X_y=True)
    for number in range(190):
        Image.fromarray((images[number].reshape(8, 8) * 15).astype(np.uint8)).save(folder / f"{number}.png")
    first = {"train": 0, "gallery": 0, "queries": 160}
    for side, size in SIZES.items():
        lines = (f"{number}.png {flags(digits[number])}" for number in range(first[side], first[side] + size))
        (folder / f"{side}.txt").write_text("\n".join(lines))
    return folder


def average_precision(ranked: np.ndarray) -> float:
    """Return the precision at each relevant item, averaged over those found, as DeepHash-pytorch counts."""
    places = np.flatnonzero(ranked) + 1
    return float((np.arange(1, len(places) + 1) / places).mean()) if len(places) else 0.0


def test_lists_of_a_published_protocol_run_and_give_the_papers_figure(
    lists: Path, lshbench: Command, tmp_path: Path
) -> None:
    files = [f"dataset.{side}={lists}/{side}.txt" for side in SIZES]
    sizes = ["protocol.queries=30", "protocol.train=60", "protocol.gallery=160", "protocol.classes=12"]
    quick = ["backbone=pixels", "backbone.image_size=8", "reference.time=false", "evaluation.plots=false"]
    little = ["bits=16", "method=random_projection"]
    done = lshbench("run", "dataset=lists", "protocol=coco", *files, *sizes, *quick, *little)
    first = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("mAP"))
    (file,) = tmp_path.glob("outputs/*/random_projection/*/metrics.json")
    metrics = json.loads(file.read_text())
    assert (metrics["dataset"]["gallery"], metrics["dataset"]["train"]) == (160, 60)
    assert metrics["protocol"]["train_gallery_overlap"] == 60
    stored = {path.stem: np.load(path) for path in (file.parent / "codes").glob("*.npy")}
    bits = {side: np.unpackbits(stored[side], axis=1) for side in ("queries", "gallery")}
    distances = (bits["queries"][:, None] != bits["gallery"]).sum(2)
    relevant = stored["query_labels"].astype(int) @ stored["gallery_labels"].T.astype(int) > 0
    ranked = np.take_along_axis(relevant, np.argsort(distances, axis=1, kind="stable"), axis=1)
    published = float(np.mean([average_precision(row) for row in ranked]))
    assert metrics["definitions"]["mAP@5000/hits"] == pytest.approx(published, abs=1e-12)
    assert first == ["mAP@5000/hits", f"{published:.4f}"]
    assert metrics["protocol"]["definition"] == "mAP@5000/hits"


def test_lists_of_other_sizes_are_refused_at_the_start(lists: Path, lshbench: Command) -> None:
    files = [f"dataset.{side}={lists}/{side}.txt" for side in SIZES]
    done = lshbench("run", "dataset=lists", "protocol=voc2012", "backbone=pixels", *files, check=False)
    assert done.returncode == 2
    assert "30 queries in place of 1,000, 60 training items in place of 4,000" in " ".join(done.stderr.split())
