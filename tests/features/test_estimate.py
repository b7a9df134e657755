"""What an extraction will take is said from what an earlier one took, or from a few images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lshbench.data.base import Split
from lshbench.features import estimate
from lshbench.features.encoder import PixelEncoder
from lshbench.features.estimate import Speeds, announce


class Greys(Split):
    name, kind = "greys", "images"

    def __init__(self, count: int) -> None:
        self.labels = np.zeros(count, np.int64)
        self.read: list[int] = []

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return "sha256:greys"

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        self.read += rows.tolist()
        return (np.full((8, 8), row % 256, np.uint8) for row in rows)

    def bytes_of(self, rows: np.ndarray) -> int | None:
        return 1000 * len(rows)


def said(split: Greys, speeds: Speeds, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        announce(split, np.arange(len(split)), PixelEncoder(8, 4), speeds, threads=2)
    return caplog.text


def test_the_speed_of_an_earlier_extraction_is_used_and_a_short_one_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    speeds, split = Speeds(tmp_path, {"a": 1}), Greys(600)
    speeds.keep(10, 1.0)
    assert speeds.known() is None
    assert "600 images to extract: 600.0 kB to read, a time that is not known yet" in said(split, speeds, caplog)
    speeds.keep(1000, 5.0)
    text = said(split, Speeds(tmp_path, {"a": 1}), caplog)
    assert "about 3.0 s at 200 images/s, as an earlier extraction here did" in text
    assert "would take" not in text
    assert Speeds(tmp_path, {"a": 2}).known() is None
    for damage in ("", "[]", '{"images_per_second": "x"}', '{"images_per_second": NaN}'):
        next((tmp_path / "speeds").iterdir()).write_text(damage)
        assert speeds.known() is None
    assert not split.read


def test_a_few_images_are_tried_where_there_are_many_or_where_a_part_stands_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = Greys(600)
    split.full_size = 60_000
    text = said(split, Speeds(tmp_path, {}), caplog)
    assert "greys has 600 of 60,000 images here; all of them would take: 60.0 MB to read, about" in text
    assert split.read == list(range(8))
    monkeypatch.setattr(estimate, "LONG", 500)
    assert "as the first images take" in said(Greys(600), Speeds(tmp_path, {}), caplog)
