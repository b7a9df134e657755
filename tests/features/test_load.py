"""Features are extracted once, found again, shared by subsets, and read as they are where they are ready."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from lshbench.data.base import Dataset, Split
from lshbench.data.images import ImageError
from lshbench.data.synthetic import SyntheticSource, SyntheticSplit
from lshbench.errors import UsageError
from lshbench.features import load as load_module
from lshbench.features.backbone import Backbone, PixelBackbone, TimmBackbone
from lshbench.features.load import SplitFeatures, load_split_features
from lshbench.features.roles import Roles, load_roles
from lshbench.features.store import FeatureStore
from lshbench.runtime import scratch
from lshbench.types import Progress
from tests.features.images import MemorySplit, jpeg, no_progress, pictures


def tiny(**keys: object) -> TimmBackbone:
    return TimmBackbone("test_efficientnet", weights="random", image_size=64, batch_size=4, **keys)  # type: ignore[arg-type]


def load(split: Split, cache: Path, rows: list[int] | None = None, backbone: Backbone | None = None) -> SplitFeatures:
    taken = np.arange(len(split)) if rows is None else np.array(rows)
    return load_split_features(
        split,
        taken,
        backbone or tiny(),
        store=FeatureStore(cache),
        device="cpu",
        threads=2,
        progress=no_progress,
    )


@pytest.fixture
def split() -> MemorySplit:
    return MemorySplit([jpeg(picture) for picture in pictures(10)])


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a network was loaded")

    monkeypatch.setattr(TimmBackbone, "load", refuse)


def test_the_second_time_they_come_from_the_cache(split: MemorySplit, tmp_path: Path) -> None:
    first, second = load(split, tmp_path), load(split, tmp_path)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.seconds_extracting > 0 == second.seconds_extracting
    assert np.array_equal(first.x, second.x)
    assert np.array_equal(first.digests, second.digests)
    assert first.x.dtype == np.float32
    assert split.reads == 20, "once to look at their ends, once to extract"


def test_a_subset_is_taken_from_the_whole(split: MemorySplit, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = load(split, tmp_path)
    request.getfixturevalue("no_network")
    some = load(split, tmp_path, [2, 5, 7])
    assert some.from_cache
    assert np.array_equal(some.x, whole.x[[2, 5, 7]])
    assert np.array_equal(some.digests, whole.digests[[2, 5, 7]])


def test_a_subset_alone_reads_no_other_image_and_has_its_own_entry(split: MemorySplit, tmp_path: Path) -> None:
    some = load(split, tmp_path, [2, 5, 7])
    assert split.reads == 6
    assert load(split, tmp_path, [2, 5, 7]).from_cache
    assert not load(split, tmp_path, [2, 5, 8]).from_cache
    assert np.array_equal(load(split, tmp_path).x[[2, 5, 7]], some.x)


@pytest.mark.parametrize("other", [{"precision": "bfloat16"}, {"pooling": "mean"}, {"crop_pct": 0.5}])
def test_another_backbone_has_other_features(split: MemorySplit, tmp_path: Path, other: dict[str, object]) -> None:
    first = load(split, tmp_path, backbone=tiny(precision="float32"))
    second = load(split, tmp_path, backbone=tiny(**{"precision": "float32", **other}))
    assert not second.from_cache
    assert not np.array_equal(first.x, second.x) or "pooling" in other


def test_other_images_have_other_features(split: MemorySplit, tmp_path: Path) -> None:
    load(split, tmp_path)
    split.images[0] = jpeg(pictures(1, seed=9)[0])
    assert not load(split, tmp_path).from_cache


@pytest.mark.slow
def test_a_cached_run_imports_no_timm(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        import numpy as np
        from lshbench.features.backbone import TimmBackbone
        from lshbench.features.load import load_split_features
        from lshbench.features.store import FeatureStore
        from tests.features.images import MemorySplit, no_progress, pictures

        backbone = TimmBackbone("lite", model="tf_efficientnet_lite0", weights="package", image_size=32)
        split = MemorySplit(pictures(3))
        found = load_split_features(split, np.arange(3), backbone, store=FeatureStore(Path({str(tmp_path)!r})),
                                    device="cpu", threads=1, progress=no_progress)
        print(found.from_cache, bool({{"timm", "torchvision"}} & set(sys.modules)))
    """)
    root = Path(__file__).resolve().parents[2]
    outputs = [
        subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert [output.split() for output in outputs] == [["False", "True"], ["True", "False"]]


def test_unreadable_images_stop_a_run_and_leave_nothing_in_the_cache(split: MemorySplit, tmp_path: Path) -> None:
    split.images[4] = b"broken"
    split.images[5] = b"broken too"
    with pytest.raises(ImageError, match=r"train\[4\].*; 2 of 10 images .*backbone\.unreadable=skip leaves them out"):
        load(split, tmp_path)
    assert list((tmp_path / "features").iterdir()) == []


def test_skipped_images_are_reported_each_time(
    split: MemorySplit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split.images[4] = b"broken"
    for cached in (False, True):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = load(split, tmp_path, backbone=tiny(unreadable="skip"))
        assert found.from_cache == cached
        assert found.unreadable.tolist() == [4]
        assert np.isnan(found.x[4]).all()
        assert "1 of 10 images" in caplog.text
        assert "train[4]" in caplog.text


def test_features_with_skipped_images_do_not_serve_a_run_that_should_stop(split: MemorySplit, tmp_path: Path) -> None:
    split.images[4] = b"broken"
    load(split, tmp_path, backbone=tiny(unreadable="skip"))
    with pytest.raises(ImageError, match=r"train\[4\]"):
        load(split, tmp_path)
    with pytest.raises(ImageError, match=r"train\[4\]"):
        load(split, tmp_path, [1, 4])
    assert load(split, tmp_path, [1, 5]).unreadable.tolist() == []
    assert load(split, tmp_path, [1, 4], tiny(unreadable="skip")).unreadable.tolist() == [1]


def test_images_need_a_backbone(split: MemorySplit, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backbone=null"):
        load_split_features(
            split,
            np.arange(10),
            None,
            store=FeatureStore(tmp_path),
            device="cpu",
            threads=1,
            progress=no_progress,
        )


class ReadySplit(Split):
    """Features in memory."""

    kind = "features"
    name = "train"

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self.labels = np.zeros(len(x), np.int64)
        self.reads = 0

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return "sha256:ready"

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        self.reads += 1
        return self.x[rows]


def ready() -> ReadySplit:
    x = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    x[8] = x[2]
    return ReadySplit(x)


def test_ready_features_are_read_and_their_duplicates_have_equal_digests(tmp_path: Path) -> None:
    split = ready()
    found = load(split, tmp_path)
    assert np.array_equal(found.x, split.x)
    assert found.digests[8] == found.digests[2]
    assert len(np.unique(found.digests)) == 8
    assert not (tmp_path / "features").exists(), "what is read quickly needs no copy"


def test_ready_features_that_take_long_to_read_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "SLOW_SECONDS", -1)
    split = ready()
    first, second = load(split, tmp_path), load(split, tmp_path)
    assert split.reads == 1
    assert (first.from_cache, second.from_cache) == (False, True)
    assert np.array_equal(second.x, split.x)
    some = load(split, tmp_path, [1, 8])
    assert split.reads == 1
    assert np.array_equal(some.x, split.x[[1, 8]])
    assert np.array_equal(some.digests, first.digests[[1, 8]])


def test_large_ready_features_are_mapped_from_the_disk_and_never_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(**keys: object) -> SplitFeatures:
        source = SyntheticSource(items=300, queries=20, dim=8, **keys)  # type: ignore[arg-type]
        split = source.open(tmp_path, no_progress).gallery
        rows = np.arange(5, 300)
        store = FeatureStore(tmp_path / str(keys))
        return load_split_features(split, rows, None, store=store, device="cpu", threads=1, progress=no_progress)

    monkeypatch.setattr(load_module, "LARGE_SHARD", 100)
    in_memory, most = features(), 0
    read = SyntheticSplit.read_features

    def watched(self: SyntheticSplit, rows: np.ndarray, progress: Progress) -> np.ndarray:
        nonlocal most
        most = max(most, len(rows))
        return read(self, rows, progress)

    monkeypatch.setattr(SyntheticSplit, "read_features", watched)
    mapped = features(on_disk=True)
    assert most == 100
    assert isinstance(mapped.x, np.memmap)
    assert not isinstance(in_memory.x, np.memmap)
    assert np.array_equal(mapped.x, in_memory.x)
    assert np.array_equal(mapped.digests, in_memory.digests)
    assert features(on_disk=True).from_cache
    monkeypatch.setattr(load_module, "LARGE_BYTES", 1000)
    assert isinstance(features(data_seed=1).x, np.memmap)


def test_half_precision_and_parts_of_splits_are_copied_in_blocks_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = MemorySplit([jpeg(picture) for picture in pictures(40)])
    data = Dataset("made", split, split)
    items = {"gallery": np.arange(40), "queries": np.arange(3, 40), "train": np.arange(40)}

    def roles(stored: str) -> Roles:
        backbone = PixelBackbone(image_size=8, stored=stored)
        return load_roles(data, items, backbone, cache=tmp_path, device="cpu", threads=1, progress=no_progress)

    whole = roles("float32")
    monkeypatch.setattr(scratch, "_folder", tmp_path)
    monkeypatch.setattr(scratch, "LARGE_BYTES", 1000)
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 4000)
    for stored in ("float32", "float16"):
        found = roles(stored)
        assert found.train.x is found.gallery.x
        for role in ("gallery", "queries"):
            x, expected = getattr(found, role).x, getattr(whole, role).x
            assert isinstance(x, np.memmap)
            assert x.dtype == np.float32
            assert np.array_equal(x, expected.astype(stored))
            assert np.array_equal(found.digests[role], whole.digests[role])
