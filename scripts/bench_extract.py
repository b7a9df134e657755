"""Feature extraction beside the usual loop: images per second, in one process, in turns.

    python scripts/bench_extract.py [--images 1024] [--size 128] [--rounds 3] [--path FOLDER]

Compared are

- a plain timm loop: a DataLoader with one worker a core, timm's transform, the model in float32;
- the bare model without any data: float32, channels-last, and channels-last in bfloat16 (batches of 64);
- lshbench's extraction from the encoded images to features in the store on disk, in float32 and in the precision that
  `auto` takes.

Images are synthetic JPEGs of 32 by 32 pixels, or the first ones of a local data set in the Hub's layout.  Loading
the model and one round to warm up are left out.  CPU time counts all threads and child processes; it tells more than
the rate where the machine is shared.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

from lshbench.data.base import Split
from lshbench.features.backbone import TimmBackbone
from lshbench.features.extract import extract
from lshbench.features.filling import Filling
from lshbench.features.store import FeatureStore

MODEL = "tf_efficientnet_lite0"
BATCH = 64


class Encoded(Split):
    """Encoded images in memory."""

    name = "images"
    kind = "images"

    def __init__(self, images: list[bytes]) -> None:
        self.images = images
        self.labels = np.zeros(len(images), np.int64)

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return "sha256:"

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        return (self.images[row] for row in rows)


class Transformed(Dataset):
    """What a plain loop reads."""

    def __init__(self, images: list[bytes], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(Image.open(io.BytesIO(self.images[row])).convert("RGB"))


@contextmanager
def no_progress(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def read_images(path: Path | None, count: int) -> list[bytes]:
    """Return encoded images."""
    if path is None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
        images = []
        for pixels in coarse:
            file = io.BytesIO()
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            images.append(file.getvalue())
        return images
    from datasets import Image as ImageColumn
    from datasets import load_dataset

    data = load_dataset(str(path), split=f"train[:{count}]")
    column = next(name for name, kind in data.features.items() if isinstance(kind, ImageColumn))
    return [row["bytes"] for row in data.cast_column(column, ImageColumn(decode=False))[column]]


def plain_loop(model: torch.nn.Module, images: list[bytes], size: int) -> Callable[[], int]:
    data = resolve_model_data_config(model)
    data.update(input_size=(3, size, size), crop_pct=1.0)
    loader = DataLoader(Transformed(images, create_transform(**data)), BATCH, num_workers=len(os.sched_getaffinity(0)))

    def run() -> int:
        with torch.inference_mode():
            return sum(len(model(batch)) for batch in loader)

    return run


def bare_model(
    model: torch.nn.Module, count: int, size: int, dtype: torch.dtype, channels_last: bool
) -> Callable[[], int]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(dtype).to(memory_format=layout)
    batch = torch.rand(BATCH, 3, size, size).to(dtype).contiguous(memory_format=layout)

    def run() -> int:
        with torch.inference_mode():
            return sum(len(model(batch)) for _ in range(count // BATCH))

    return run


def ours(images: list[bytes], size: int, precision: str, folder: Path) -> Callable[[], int]:
    backbone = TimmBackbone(MODEL, weights="package", image_size=size, precision=precision)
    encoder = backbone.load("cpu", no_progress)
    split, rows, threads = Encoded(images), np.arange(len(images)), len(os.sched_getaffinity(0))

    def fill(entry: Filling) -> None:
        entry.create(encoder.dim)
        entry.fill(
            lambda shards: extract(
                split, rows, encoder, shards, entry.write, threads=threads, skip=False, advance=lambda count: None
            )
        )

    def run() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            FeatureStore(Path(cache)).get_or_fill({}, len(rows), fill)
        return len(rows)

    return run


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=128, help="pixels of a side of the network's input")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path", type=Path, help="a local data set in the Hub's layout; default: synthetic images")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    images = read_images(arguments.path, arguments.images)

    def model() -> torch.nn.Module:
        return timm.create_model(MODEL, num_classes=0).eval()

    with tempfile.TemporaryDirectory() as folder:
        size, count = arguments.size, arguments.images
        runs = {
            "plain timm loop, float32": plain_loop(model(), images, size),
            "bare model, float32": bare_model(model(), count, size, torch.float32, False),
            "bare model, channels-last": bare_model(model(), count, size, torch.float32, True),
            "bare model, channels-last, bfloat16": bare_model(model(), count, size, torch.bfloat16, True),
            "lshbench, float32": ours(images, size, "float32", Path(folder)),
            "lshbench, auto": ours(images, size, "auto", Path(folder)),
        }
        rates: dict[str, list[float]] = {name: [] for name in runs}
        costs: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(arguments.rounds + 1):
            for name, run in runs.items():
                cpu, start = cpu_seconds(), time.perf_counter()
                done = run()
                if number:
                    rates[name].append(done / (time.perf_counter() - start))
                    costs[name].append((cpu_seconds() - cpu) / done * 1000)
    print(f"{MODEL} at {size} px, {len(images)} images, median of {arguments.rounds} rounds")
    print(f"{'':38}{'images/s':>10}{'CPU ms/image':>14}{'ratio':>8}")
    first = statistics.median(rates["plain timm loop, float32"])
    for name in runs:
        rate = statistics.median(rates[name])
        print(f"{name:38}{rate:10.0f}{statistics.median(costs[name]):14.2f}{rate / first:8.2f}")


if __name__ == "__main__":
    main()
