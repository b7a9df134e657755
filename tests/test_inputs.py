"""The data of people's daily work, through the real command: the right figures, or a message."""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command

PIXELS = (
    "backbone=pixels", "backbone.image_size=8", "method=random_projection", "bits=16", "evaluation.plots=false",
    "evaluation.definitions=false", "reference.time=false",
)  # fmt: skip


def noise(folder: Path, place: int, count: int) -> None:
    """Write noise images of which one channel is brighter: exact cosine tells such classes apart."""
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng([place, count, i]).integers(0, 120, (8, 8, 3))
        pixels[:, :, place] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for place, name in enumerate("abc"):
        noise(tmp_path / "D" / "train" / name, place, 12)
        noise(tmp_path / "D" / "test" / name, place, 4)
    return tmp_path / "D"


def results(folder: Path) -> list[dict[str, Any]]:
    found = sorted(folder.rglob("metrics.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def figures(metrics: dict[str, Any]) -> tuple[object, ...]:
    size = tuple(metrics["dataset"][key] for key in ("gallery", "queries", "classes"))
    return (*size, metrics["reference"]["cosine"]["mAP"], metrics["metrics"]["mAP"])


@pytest.mark.slow
def test_what_lies_beside_the_data_changes_no_figure(data: Path, lshbench: Command) -> None:
    lshbench("run", "dataset=folder", "dataset.path=.", *PIXELS, cwd=data)
    assert figures(results(data)[0])[:4] == (36, 12, 3, 1.0)
    for name in ("notes", "__MACOSX"):
        (data / name).mkdir()
    noise(data / "sample" / "a", 0, 3)
    (data / "train" / "a" / "loop").symlink_to("..")
    done = lshbench("run", "dataset=folder", "dataset.path=.", *PIXELS, cwd=data)
    first, second = results(data)
    assert figures(first) == figures(second)
    assert first["dataset"]["fingerprint"] == second["dataset"]["fingerprint"]
    assert "not used: __MACOSX/, notes/, outputs/, sample/" in done.stderr
    assert "loop: leads to a folder that counts already" in done.stderr


@pytest.mark.slow
def test_plots_of_the_first_run_are_no_class_of_the_second(data: Path, lshbench: Command) -> None:
    arguments = [argument for argument in PIXELS if "plots" not in argument]
    for _ in range(2):
        lshbench("run", "dataset=folder", "dataset.path=.", *arguments, cwd=data / "train")
    first, second = results(data)
    assert figures(first) == figures(second)
    assert first["dataset"]["classes"] == 3


@pytest.mark.slow
def test_images_exchanged_between_classes_are_computed_again(data: Path, lshbench: Command) -> None:
    for path in data.rglob("*.png"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    for _ in range(2):
        lshbench("run", "dataset=folder", f"dataset.path={data}", *PIXELS, "resume=true", "output=out")
        one, other = data / "test" / "a" / "0.png", data / "test" / "b" / "0.png"
        one.rename(data / "test" / "kept")
        other.rename(one)
        (data / "test" / "kept").rename(other)
    first, second = results(data.parent / "out")
    assert first["run_id"] != second["run_id"]
    assert first["reference"]["cosine"]["mAP"] == 1.0
    assert second["reference"]["cosine"]["mAP"] < 0.99


@pytest.mark.slow
def test_a_features_file_overwritten_under_its_time_stamp_is_computed_again(tmp_path: Path, lshbench: Command) -> None:
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    for values in (x, x[::-1], x[::-1]):
        np.savez(tmp_path / "x.npz", x=values, y=np.arange(40) % 2)
        os.utime(tmp_path / "x.npz", (1_600_000_000, 1_600_000_000))
        done = lshbench("run", "dataset=features", "dataset.path=x.npz", *PIXELS[2:], "resume=true")
    assert len(results(tmp_path)) == 2
    assert "already finished" in done.stderr


@pytest.mark.slow
def test_classes_spelt_otherwise_are_named_in_the_summary(data: Path, lshbench: Command) -> None:
    (data / "train" / "a").rename(data / "train" / unicodedata.normalize("NFC", "café"))
    (data / "test" / "a").rename(data / "test" / unicodedata.normalize("NFD", "café"))
    (data / "train" / "b").rename(data / "train" / "Dog")
    (data / "test" / "b").rename(data / "test" / "dog ")
    done = lshbench("run", "dataset=folder", f"dataset.path={data}", *PIXELS)
    summary = " ".join(done.stdout.split())
    assert "WARNING: 8 of 12 queries have nothing to find in the gallery" in summary
    assert r"'caf\xe9'): accents are composed otherwise" in summary
    assert "'dog ' (4 queries; the gallery has 'Dog': upper or lower case and blanks" in summary
    shutil.rmtree(data / "test" / "c")
    done = lshbench("run", "dataset=folder", f"dataset.path={data}", *PIXELS, check=False)
    assert done.returncode == 2
    assert "no class in common" in done.stderr


def test_names_in_bytes_that_are_no_text_run(data: Path, lshbench: Command) -> None:
    for split in ("train", "test"):
        path = Path(os.fsdecode(os.fsencode(data / split) + b"/caf\xe9"))
        (data / split / "a").rename(path)
        (path / "0.png").rename(os.fsdecode(os.fsencode(path) + b"/\xff.png"))
    done = lshbench("run", "dataset=folder", f"dataset.path={data}", *PIXELS)
    assert "Traceback" not in done.stderr
    (metrics,) = results(data.parent)
    assert figures(metrics)[:4] == (36, 12, 3, 1.0)
    (classes,) = data.parent.rglob("classes.json")
    assert json.loads(classes.read_text(encoding="utf-8"))["class_names"] == ["b", "c", "caf\\xe9"]


@pytest.mark.slow
def test_features_alone_have_no_code_s_length_in_their_folder_and_use_no_device(data: Path, lshbench: Command) -> None:
    alone = ("method=none", *(argument for argument in PIXELS if not argument.startswith("method=")))
    done = lshbench("run", "dataset=folder", f"dataset.path={data}", *alone, "device=cuda", "output=out")
    assert "WARNING device=cuda: only images are encoded there; method=none has no network" in done.stderr
    (run,) = (data.parent / "out").glob("*/none/*")
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{8}", run.name)
    lshbench("run", "dataset=folder", f"dataset.path={data}", *PIXELS, "output=out")
    (run,) = (data.parent / "out").glob("*/random_projection/*")
    assert re.fullmatch(r"16-\d{8}-\d{6}-[0-9a-f]{8}", run.name)


@pytest.mark.slow
def test_queries_of_one_class_are_judged(data: Path, lshbench: Command) -> None:
    for name in "ab":
        shutil.rmtree(data / "test" / name)
    lshbench("run", "dataset=folder", f"dataset.path={data}", *PIXELS)
    assert figures(results(data.parent)[0])[:4] == (36, 4, 3, 1.0)
