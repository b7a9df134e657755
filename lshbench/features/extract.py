"""Extract features: read, decode, resize and encode images in parallel, and write rows as they are done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import xxhash

from lshbench.data.base import Split
from lshbench.data.images import ImageError, decode, early_fault
from lshbench.features.encoder import Encoder, single_threaded_operators
from lshbench.features.filling import Made

BATCHES_AHEAD = 2
"""Batches that wait for each worker: enough to keep it busy, and memory stays bounded."""

Write = Callable[[int, np.ndarray], None]
Image = tuple[bytes | np.ndarray, str]
"""An image's file or pixels, and its name."""


@dataclass
class _Batch:
    start: int
    pixels: np.ndarray
    digests: np.ndarray
    unreadable: list[tuple[int, str]]


def extract(
    split: Split,
    rows: np.ndarray,
    encoder: Encoder,
    shards: Iterable[range],
    write: Write,
    *,
    threads: int,
    skip: bool,
    advance: Callable[[int], None],
) -> Iterator[Made]:
    """Extract the features of a split's rows, shard by shard; yield each shard once it is written.

    Shards follow each other without a pause: the next one is begun while the last images of one are encoded.

    Args:
        split: of images.
        rows: int64 ``(n,)``.
        encoder: a loaded backbone.
        shards: ranges of positions in ``rows``; each is asked for when its first image is to be read.
        write: takes the position of a block's first row and the block, float32 ``(m, dim)``; called from several
            threads, for disjoint blocks in no order.  Unreadable images are rows of NaN.
        threads: that may be busy at once.
        skip: whether to go on after an image that can't be read.
        advance: is told numbers of images done.

    Yields:
        The shards with their digests, uint64: a hash of each image's decoded RGB pixels at full size, equal for equal
        pictures, whatever file they come from; 0 for an unreadable one.

    Raises:
        ImageError: an image that can't be read, named (unless ``skip``).
    """
    begun: deque[Made] = deque()

    def batches() -> Iterator[tuple[int, list[Image]]]:
        for shard in shards:
            begun.append(Made(shard, np.zeros(len(shard), np.uint64)))
            part = rows[shard.start : shard.stop]
            names = (split.describe(int(row)) for row in part)
            yield from _batches(zip(split.image_bytes(part), names, strict=True), encoder.batch_size, shard.start)

    for batch in encode_batches(batches(), encoder, threads, skip, write):
        made, stop = begun[0], batch.start + len(batch.digests)
        made.digests[batch.start - made.rows.start : stop - made.rows.start] = batch.digests
        made.unreadable += batch.unreadable
        advance(len(batch.digests))
        if stop == made.rows.stop:
            yield begun.popleft()


@dataclass(frozen=True)
class Unreadable:
    """Images that can't be read.

    Attributes:
        first: the error of the first one, or None.
        count: how many there are among those that were looked at.
        looked_at: as many as there was time for.
    """

    first: ImageError | None
    count: int
    looked_at: int


def find_unreadable(split: Split, rows: np.ndarray, threads: int, seconds: float, *, decoded: bool) -> Unreadable:
    """Return which images can't be read, by decoding them or by their first and last bytes alone.

    Args:
        split: of images.
        rows: int64 ``(n,)``, ascending.
        threads: that may be busy at once.
        seconds: after which no further image is looked at.
        decoded: whether to decode them.
    """
    deadline = time.monotonic() + seconds

    def fault(content: bytes | np.ndarray, row: np.int64) -> ImageError | None:
        name = split.describe(int(row))
        if not decoded:
            return early_fault(content, name)
        try:
            decode(content, name)
        except ImageError as error:
            return error
        return None

    first, count, looked_at = None, 0, 0
    images = zip(split.image_bytes(rows), rows, strict=True)
    with ThreadPoolExecutor(threads) as pool:
        while time.monotonic() < deadline and (batch := list(islice(images, 16 * threads))):
            faults = [found for found in pool.map(fault, *zip(*batch, strict=True)) if found is not None]
            first = first or next(iter(faults), None)
            count += len(faults)
            looked_at += len(batch)
    return Unreadable(first, count, looked_at)


def encode_images(images: Iterable[Image], encoder: Encoder, threads: int = 1) -> np.ndarray:
    """Return the features, float32 ``(n, dim)``, of a few images given with their names.

    Raises:
        ImageError: an image that can't be read.
    """
    blocks: dict[int, np.ndarray] = {}
    for _ in encode_batches(_batches(iter(images), encoder.batch_size), encoder, threads, False, blocks.__setitem__):
        pass
    if not blocks:
        return np.empty((0, encoder.dim), np.float32)
    return np.concatenate([blocks[start] for start in sorted(blocks)])


def encode_batches(
    batches: Iterator[tuple[int, list[Image]]], encoder: Encoder, threads: int, skip: bool, write: Write
) -> Iterator[_Batch]:
    """Encode batches of images, each given with its first position, and write their features; yield each in order.

    On a CPU each worker takes a batch from bytes to features with one thread: decoding, resizing and the network
    overlap by themselves, nothing waits at the barriers of a parallel loop, and a small batch stays in its core's
    cache (EfficientNet-Lite0 at 128 px in bfloat16 on two cores: 545 images/s with batches of 16, against 350 for
    one network with two threads and batches of 64).  On a GPU workers decode and resize, and this thread encodes; the
    next batch is begun before the features of one are waited for, so that the GPU always has work.
    """

    def prepare(start: int, items: list[Image]) -> _Batch:
        batch = _prepare(start, items, encoder, skip)
        return finish(batch, encoder.begin(batch.pixels)) if encoder.on_cpu else batch

    def finish(batch: _Batch, features_of: Callable[[], np.ndarray]) -> _Batch:
        features = features_of()[: len(batch.digests)]
        features[[position - batch.start for position, _ in batch.unreadable]] = np.nan
        write(batch.start, features)
        return batch

    waiting: deque[Future[_Batch]] = deque()
    begun: deque[tuple[_Batch, Callable[[], np.ndarray]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="extract")
    try:
        with single_threaded_operators():
            while True:
                while len(waiting) < threads * (1 + BATCHES_AHEAD):
                    if (taken := next(batches, None)) is None:
                        break
                    waiting.append(pool.submit(prepare, *taken))
                if not waiting:
                    break
                batch = waiting.popleft().result()
                if encoder.on_cpu:
                    yield batch
                    continue
                begun.append((batch, encoder.begin(batch.pixels)))
                if len(begun) > 1:
                    yield finish(*begun.popleft())
            while begun:
                yield finish(*begun.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(images: Iterator[Image], size: int, start: int = 0) -> Iterator[tuple[int, list[Image]]]:
    """Yield images in batches, each with the position of its first one."""
    while items := list(islice(images, size)):
        yield start, items
        start += len(items)


def _prepare(start: int, items: list[Image], encoder: Encoder, skip: bool) -> _Batch:
    """Decode, hash and resize a batch.

    A last, smaller batch is filled up: kernels are chosen by shape, and an image's features must not depend on how
    many images came with it.
    """
    pixels = encoder.batch()
    pixels[len(items) :] = 0
    digests = np.zeros(len(items), np.uint64)
    unreadable = []
    for place, (content, name) in enumerate(items):
        try:
            image = decode(content, name)
        except ImageError as error:
            if not skip:
                raise
            unreadable.append((start + place, str(error)))
            pixels[place] = 0
            continue
        # One copy for all: Pillow makes it, and all other threads wait meanwhile.
        values = bytearray(image.tobytes())
        # The width as seed tells apart pictures of equal bytes and different shapes.
        digests[place] = xxhash.xxh3_64_intdigest(values, seed=image.width)
        pixels[place] = encoder.preprocess(image, np.frombuffer(values, np.uint8).reshape(image.height, image.width, 3))
    return _Batch(start, pixels, digests, unreadable)
