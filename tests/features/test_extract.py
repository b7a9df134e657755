"""Extraction gives each image its own features, whatever it comes with, and names what it can't read."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from lshbench.data.images import ImageError
from lshbench.features.backbone import TimmBackbone
from lshbench.features.encoder import Encoder
from lshbench.features.extract import encode_images, extract
from tests.features.images import MemorySplit, jpeg, no_progress, pictures


def encoder(model: str = "test_efficientnet", precision: str = "float32", batch_size: int | None = 8) -> Encoder:
    backbone = TimmBackbone(model, weights="random", image_size=64, precision=precision, batch_size=batch_size)
    return backbone.load("cpu", no_progress)


def run(
    split: MemorySplit, used: Encoder, rows: np.ndarray | None = None, threads: int = 2, skip: bool = False
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    rows = np.arange(len(split)) if rows is None else rows
    x = np.full((len(rows), used.dim), -1, np.float32)

    def write(start: int, block: np.ndarray) -> None:
        x[start : start + len(block)] = block

    (made,) = extract(split, rows, used, [range(len(rows))], write, threads=threads, skip=skip, advance=ignore)
    return x, made.digests, made.unreadable


def ignore(count: int) -> None:
    pass


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
def test_an_images_features_do_not_depend_on_those_beside_it(model: str, precision: str) -> None:
    images = [jpeg(picture) for picture in pictures(21)]
    used = encoder(model, precision)
    x, _, _ = run(MemorySplit(images), used)
    alone = np.concatenate([encode_images([(image, "it")], used) for image in images])
    assert np.array_equal(x, alone)
    backwards, _, _ = run(MemorySplit(images[::-1]), used, threads=1)
    assert np.array_equal(backwards[::-1], x)


def test_rows_are_extracted_in_the_order_asked_for() -> None:
    split, used = MemorySplit([jpeg(picture) for picture in pictures(12)]), encoder()
    everything, digests, _ = run(split, used)
    rows = np.array([11, 3, 4, 0])
    x, some, _ = run(split, used, rows)
    assert np.array_equal(x, everything[rows])
    assert np.array_equal(some, digests[rows])


def test_different_images_have_different_features() -> None:
    x, digests, _ = run(MemorySplit(list(pictures(12))), encoder())
    assert len(np.unique(x.round(4), axis=0)) == 12
    assert len(np.unique(digests)) == 12
    assert np.isfinite(x).all()


def test_equal_pictures_have_equal_digests_whatever_their_format() -> None:
    picture = pictures(1)[0]
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG")
    other = picture.copy()
    other[0, 0, 0] ^= 1
    _, digests, _ = run(MemorySplit([picture, png.getvalue(), other]), encoder())
    assert digests[0] == digests[1] != digests[2]


def test_equal_bytes_of_different_shape_have_different_digests() -> None:
    flat = np.arange(4 * 6 * 3, dtype=np.uint8)
    _, digests, _ = run(MemorySplit([flat.reshape(4, 6, 3), flat.reshape(6, 4, 3)]), encoder())
    assert digests[0] != digests[1]


def test_an_unreadable_image_stops_the_extraction_and_is_named() -> None:
    images: list[bytes | np.ndarray] = [jpeg(picture) for picture in pictures(30)]
    images[17] = b"broken"
    with pytest.raises(ImageError, match=r"train\[17\]"):
        run(MemorySplit(images), encoder())


def test_a_skipped_image_is_named_and_its_row_cannot_be_taken_for_features() -> None:
    images: list[bytes | np.ndarray] = [jpeg(picture) for picture in pictures(30)]
    whole, digests, _ = run(MemorySplit(list(images)), encoder())
    images[17] = images[3] = b"broken"
    x, found, unreadable = run(MemorySplit(images), encoder(), skip=True)
    assert [row for row, _ in unreadable] == [3, 17]
    assert "train[3]" in unreadable[0][1]
    assert np.isnan(x[[3, 17]]).all()
    rest = np.setdiff1d(np.arange(30), [3, 17])
    assert np.array_equal(x[rest], whole[rest])
    assert np.array_equal(found[rest], digests[rest])


def test_reading_stays_a_few_batches_ahead_so_that_memory_is_bounded() -> None:
    split = MemorySplit([jpeg(picture) for picture in pictures(8)] * 40)
    ahead = []
    used = encoder()

    def write(start: int, block: np.ndarray) -> None:
        ahead.append(split.reads - start)

    list(extract(split, np.arange(320), used, [range(320)], write, threads=2, skip=False, advance=ignore))
    assert max(ahead) <= 8 * (2 * 3 + 2)


def test_shards_are_claimed_as_they_are_begun_and_give_the_features_of_the_whole() -> None:
    split, used = MemorySplit([jpeg(picture) for picture in pictures(50)]), encoder()
    whole, digests, _ = run(split, used)
    x, claimed, counted = np.zeros_like(whole), [], []

    def shards() -> Iterator[range]:
        for start in (0, 20, 40):
            claimed.append(split.reads)
            yield range(start, min(start + 20, 50))

    def write(start: int, block: np.ndarray) -> None:
        x[start : start + len(block)] = block

    split.reads = 0
    made = list(extract(split, np.arange(50), used, shards(), write, threads=1, skip=False, advance=counted.append))
    assert np.array_equal(x, whole)
    assert np.array_equal(np.concatenate([shard.digests for shard in made]), digests)
    assert claimed == [0, 20, 40]
    assert sum(counted) == 50


@pytest.mark.slow
def test_bfloat16_features_are_near_those_of_float32() -> None:
    images = [(picture, "it") for picture in pictures(16, 64)]
    keys = {"name": "lite", "model": "tf_efficientnet_lite0", "weights": "package", "image_size": 128}
    x, rough = (
        encode_images(images, TimmBackbone(**keys, precision=precision).load("cpu", no_progress), threads=1)  # type: ignore[arg-type]
        for precision in ("float32", "bfloat16")
    )
    cosine = (x * rough).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(rough, axis=1)
    assert cosine.min() > 0.95


def test_features_that_are_not_finite_stop_the_extraction() -> None:
    import torch

    from lshbench.errors import UsageError

    used = encoder()
    with torch.no_grad():
        next(used.network.parameters()).fill_(float("inf"))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"NaN or infinite.*backbone\.precision"):
        run(MemorySplit(list(pictures(2))), used)


def test_the_number_of_threads_is_as_before_afterwards() -> None:
    import torch

    before = torch.get_num_threads()
    run(MemorySplit(list(pictures(2))), encoder())
    assert torch.get_num_threads() == before
