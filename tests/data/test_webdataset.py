"""Images in tar files: found by their names, read where they lie, and named where they are odd."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from lshbench.data import tar_split
from lshbench.data.base import Dataset
from lshbench.data.folder import FolderSource
from lshbench.data.stored_file import StoredFile
from lshbench.data.tar_members import OpenTar
from lshbench.data.webdataset import WebDatasetSource, expand_braces, split_of
from lshbench.errors import UsageError
from lshbench.features.backbone import PixelBackbone
from lshbench.features.load import load_split_features
from lshbench.features.store import FeatureStore
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress
from tests.data.tars import Members, write_tar


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def labelled(labels: list[Any], suffix: str = "cls", first: int = 0) -> list[tuple[str, bytes]]:
    """Return the members of samples, an image and a label each."""
    return [
        member
        for row, label in enumerate(labels, first)
        for member in ((f"{row:04}.{suffix}", str(label).encode()), (f"{row:04}.png", png(row)))
    ]


def opened(path: Path | str, silent: Progress, **keys: Any) -> Dataset:
    return WebDatasetSource(path=str(path), **keys).open(cache_dir(), silent)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two files of a training split, and one of a test split."""
    folder = tmp_path / "shards"
    write_tar(folder / "train-000.tar", labelled([0, 1, 2, 0]))
    write_tar(folder / "train-001.tar", labelled([1, 2], first=4))
    write_tar(folder / "test-000.tar", labelled([2, 0], first=6))
    return folder


def test_the_images_of_tar_files_are_those_of_a_folder(shards: Path, tmp_path: Path, silent: Progress) -> None:
    data = opened(shards, silent)
    assert (data.gallery.name, data.query.name, data.name, data.kind) == ("train", "test", "shards", "images")
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 0]
    assert list(data.gallery.image_bytes(np.arange(6))) == [png(row) for row in range(6)]
    assert list(data.gallery.image_bytes(np.array([5, 0, 4, 2, 2]))) == [png(row) for row in (5, 0, 4, 2, 2)]
    assert list(data.gallery.image_bytes(np.array([], int))) == []
    assert data.gallery.bytes_of(np.array([1, 5])) == len(png(1)) + len(png(5))
    assert data.gallery.describe(4) == "train-001.tar: 0004.png"

    for row, label in enumerate(data.labels):
        place = tmp_path / "folder" / ("train" if row < 6 else "test") / f"{label}" / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(row))
    folder = FolderSource(path=str(tmp_path / "folder")).open(cache_dir(), silent)
    by_name = np.argsort([Path(folder.gallery.describe(row)).stem for row in range(6)])
    of_tars, of_files = (
        load_split_features(
            split, np.arange(6), PixelBackbone(image_size=8, shard=4),
            store=FeatureStore(cache_dir()), device="cpu", threads=1, progress=silent,
        )
        for split in (data.gallery, folder.gallery)
    )  # fmt: skip
    assert np.array_equal(of_tars.x, of_files.x[by_name])
    assert np.array_equal(of_tars.digests, of_files.digests[by_name])


@pytest.mark.parametrize(
    ("suffix", "labels", "keys", "expected"),
    [
        ("cls", ["3", " 1\n", "3"], {}, [3, 1, 3]),
        ("txt", ["cat", "dog\n", "cat"], {}, [0, 1, 0]),
        ("txt", ["cat\ndog", "dog", "ant"], {}, [[0, 1, 1], [0, 0, 1], [1, 0, 0]]),
        ("json", ["2", "1", "2"], {}, [2, 1, 2]),
        ("json", ['["b", "a"]', '["a"]', "[]"], {}, [[1, 1], [1, 0], [0, 0]]),
        ("json", ['{"label": 1, "id": 7}', '{"label": 0.0, "id": 8}', '{"label": 1}'], {}, [1, 0, 1]),
        ("json", ['{"label": [0, 2]}', '{"label": 1}', '{"label": [2]}'], {}, [[1, 0, 1], [0, 1, 0], [0, 0, 1]]),
        ("json", ['{"label": 1, "kind": "b"}'] * 2 + ['{"kind": "a"}'], {"label_column": "json.kind"}, [1, 1, 0]),
        (
            "json",
            ['{"objects": [{"category": "b"}, {"category": "a"}]}', '{"objects": [{"category": "b"}]}'] * 2,
            {},
            [[1, 1], [0, 1]] * 2,
        ),
        ("json", ["[true, false, true]", "[false, true, false]"], {}, [[1, 0, 1], [0, 1, 0]]),
        ("fine.cls", ["5", "6"], {}, [5, 6]),
    ],
)  # fmt: skip
def test_labels_are_numbers_text_or_lists(
    suffix: str, labels: list[str], keys: dict[str, str], expected: list, tmp_path: Path, silent: Progress
) -> None:
    for split in ("train", "test"):
        write_tar(tmp_path / f"{split}.tar", labelled(labels, suffix))
    data = opened(tmp_path, silent, **keys)
    assert data.gallery.labels.astype(int).tolist() == expected


def test_a_label_beside_others_is_chosen_by_its_field(tmp_path: Path, silent: Progress) -> None:
    samples = [(f"{row}.{ending}", content) for row in range(6) for ending, content in (
        ("caption.txt", b"a picture of something"), ("cls", b"%d" % (row % 3)), ("coarse.cls", b"%d" % (row % 2)),
        ("json", b'{"label": %d}' % (row // 3)), ("jpg", png(row)), ("mask.png", png(0)),
    )]  # fmt: skip
    write_tar(tmp_path / "a.tar", samples)
    with pytest.raises(UsageError, match=r"sample 0 has several images: jpg, mask\.png.*dataset\.image_column=jpg"):
        opened(tmp_path, silent)
    keys = {"image_column": "jpg", "query_fraction": 0.4}
    for label, classes in (("auto", 3), ("json.label", 2), ("coarse.cls", 2)):
        assert opened(tmp_path, silent, label_column=label, **keys).labels.max() == classes - 1
    with pytest.raises(UsageError, match=r"dataset\.label_column='json\.x'.*json\.label \(whole number\)"):
        opened(tmp_path, silent, label_column="json.x", **keys)
    with pytest.raises(UsageError, match=r"dataset\.image_column='cls'.*can't hold images"):
        opened(tmp_path, silent, image_column="cls")


def test_images_without_labels_are_taken_where_none_are_needed(tmp_path: Path, silent: Progress) -> None:
    write_tar(tmp_path / "a.tar", [(f"{row}.png", png(row)) for row in range(10)])
    with pytest.raises(UsageError, match=r"dataset\.label_column=auto: no field looks like labels.*png \(image\)"):
        opened(tmp_path, silent)
    source = WebDatasetSource(path=str(tmp_path))
    source.labels_needed = False
    assert source.open(cache_dir(), silent).labels.shape == (10, 0)


def test_splits_are_found_by_the_names_of_files_and_folders(tmp_path: Path, silent: Progress) -> None:
    for name, split in {
        "train-0001.tar": "train", "imagenet1k-validation-63.tar": "validation", "cifar-trainval_2.tar": "trainval",
        "val/0000.tar": "val", "data/test.tar": "test", "train/val-0.tar": "train", "0000.tar": "tars",
        "cc3m-0001.tar": "cc3m", "Images_Test/a-0.tar": "Images_Test", "train_test-0.tar": "train_test",
    }.items():  # fmt: skip
        assert split_of(name) == split
    write_tar(tmp_path / "val" / "0.tar", labelled([0, 1]))
    write_tar(tmp_path / "train" / "deep" / "0.tar", labelled([0, 1, 1]))
    write_tar(tmp_path / ".hidden" / "0.tar", labelled([5]))
    data = opened(tmp_path, silent)
    assert (data.gallery.name, data.query.name) == ("train", "val")
    assert len(opened(tmp_path, silent, gallery_split=None).labels) == 5
    write_tar(tmp_path / "test" / "0.tar", labelled([-1, -1]))
    assert opened(tmp_path, silent).query.name == "val", "a split without labels was taken"
    with pytest.raises(UsageError, match=r"dataset\.query_split='dev'.*there are: tars"):
        opened(tmp_path / "train", silent, query_split="dev")


def test_files_are_named_by_patterns_and_all_that_braces_name_have_to_be_there(shards: Path, silent: Progress) -> None:
    assert expand_braces("a-{08..10}-{x,y}.tar")[:3] == ["a-08-x.tar", "a-08-y.tar", "a-09-x.tar"]
    assert expand_braces("{9..10}.tar") == ["9.tar", "10.tar"]
    override = OverridesParser.create().parse_override(f'dataset.path="{shards}/{{train-{{000..001}},test-000}}.tar"')
    for pattern in (override.value(), f"{shards}/*.tar"):
        data = opened(pattern, silent)
        assert (len(data.gallery), len(data.query), data.name) == (6, 2, "shards")
    assert opened(shards / "train-000.tar", silent, query_fraction=0.3).gallery.name == "train[gallery]"
    for pattern, said in (
        (f"{shards}/train-{{000..003}}.tar", r"2 of 4 are not there, the first: .*train-002\.tar"),
        (f"{shards}/*.tgz", r"a folder of \.tar files"),
        (f"{shards}/{{1..0}}.tar", r"braces such as \{000\.\.063\}"),
        (f"{shards}/{{a}}.tar", r"braces such as"),
        (f"{shards}/{{0..9999999}}.tar", r"braces such as"),
        (None, r"dataset\.path=None"),
    ):
        with pytest.raises(UsageError, match=said):
            WebDatasetSource(path=pattern)


def test_a_folder_of_images_and_one_of_tar_files_are_told_apart(shards: Path, tmp_path: Path, silent: Progress) -> None:
    for folder in (shards, shards.parent):
        with pytest.raises(UsageError, match="dataset=webdataset takes images in tar files"):
            FolderSource(path=str(folder)).open(cache_dir(), silent)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"a folder of \.tar files.*no file in it is called so$"):
        opened(tmp_path / "none", silent)
    (tmp_path / "none" / "a.tar.gz").touch()
    with pytest.raises(UsageError, match=r"called so, but 1 compressed, such as a\.tar\.gz"):
        opened(tmp_path / "none", silent)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut off in a member": (lambda path: cut(path, 1600), r"train\.tar is cut off: 0000\.png would end at byte"),
    "cut off in a header": (lambda path: cut(path, 2048 + 100), "train.tar is cut off: it has no end after byte 2,048"),
    "cut off between members": (lambda path: cut(path, 2048), "train.tar is cut off: it has no end after byte 2,048"),
    "a flipped bit in a header": (lambda path: flip(path, 2048), "what follows byte 2,048 is neither a member nor"),
    "a flipped bit in the first": (lambda path: flip(path, 0), "damaged, or no tar file"),
    "two archives in one": (lambda path: path.write_bytes(2 * path.read_bytes()), "joined ones have to be apart"),
    "compressed": (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), r"is compressed \(gzip\)"),
    "compressed otherwise": (lambda path: path.write_bytes(lzma.compress(path.read_bytes())), r"is compressed \(xz\)"),
    "no tar file": (lambda path: path.write_bytes(b"text" * 500), "damaged, or no tar file"),
    "empty": (lambda path: path.write_bytes(b""), "damaged, or no tar file"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(damage: Any, said: str, tmp_path: Path, silent: Progress) -> None:
    write_tar(tmp_path / "test.tar", labelled([0, 1]))
    damage(write_tar(tmp_path / "train.tar", labelled([0, 1, 2])))
    with pytest.raises(UsageError, match=said):
        opened(tmp_path, silent)


ODD: dict[str, tuple[Members, str]] = {
    "no label": ([*labelled([0, 1]), ("2.png", png(2)), ("3.png", png(3))], r"2 of 4 samples .* no label cls .*: 2\)"),
    "an empty label": ([*labelled([0, 1]), *labelled([""], first=2)], r"1 of 3 samples have no label.*: 0002\)"),
    "a label that is no number": (labelled([0, "cat"]), r"0001\.cls holds 'cat'; expected a whole number"),
    "a label that is no text": ([("0.png", png(0)), ("0.txt", b"\xff\xfe")], r"0\.txt is no text in UTF-8"),
    "a caption": (labelled(["x", "y" * 300], "txt"), "0001.txt has the label 'yyy.*text of at most 200 characters"),
    "a label of 2 MB": (labelled(["0", "1" * (2 << 20)]), r"0001\.cls has 2,097,152 bytes; expected a label"),
    "no JSON": (labelled(['{"label": 1}', "{"], "json"), r"0001\.json is no JSON"),
    "deep JSON": (labelled(['{"label": 1}', "[" * 100_000], "json"), r"0001\.json is no JSON"),
    "labels of two kinds": (labelled(["1", '"a"'], "json"), "sample 0001 has the label 'a', where those before"),
    "a label of half a class": (labelled(["1", "0.5"], "json"), "0001.json has the label 0.5"),
    "no number at all": (labelled(["1", "NaN"], "json"), "0001.json has the label nan"),
    "a member twice": ([*labelled([0]), ("0000.cls", b"1")], r"0000\.cls is there twice"),
    "a key twice": ([*labelled([0, 1]), *labelled([0])], "the members of sample 0000 are apart"),
    "labels behind": ([("a.png", png(0)), ("b.png", png(1)), ("a.cls", b"0"), ("b.cls", b"1")], "sample a are apart"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "said"), ODD.values(), ids=ODD)
def test_samples_that_can_not_be_used_are_named(members: Members, said: str, tmp_path: Path, silent: Progress) -> None:
    write_tar(tmp_path / "test.tar", labelled([0, 1]))
    write_tar(tmp_path / "train.tar", members)
    with pytest.raises(UsageError, match=f"split 'train': train.tar.*{said}"):
        opened(tmp_path, silent)


def special(name: str, kind: bytes, target: str = "") -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def test_what_is_no_sample_is_left_out_by_name_and_nothing_is_written_anywhere(
    tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    members = [
        special("folder", tarfile.DIRTYPE), ("README", b"text"), ("._0.png", b"left by a Mac"),
        special("linked.png", tarfile.SYMTYPE, str(secret)), ("linked.cls", b"0"),
        special("hard.png", tarfile.LNKTYPE, "README"), special("pipe.png", tarfile.FIFOTYPE),
        special("device.png", tarfile.CHRTYPE), ("only.cls", b"1"),
        ("../../outside.png", png(1)), ("../../outside.cls", b"1"),
        (f"{tmp_path}/absolute.png", png(2)), (f"{tmp_path}/absolute.cls", b"2"),
        (f"{'deep/' * 60}a.png", png(3)), (f"{'deep/' * 60}a.cls", b"0"), ("caf\udce9\x1b[2J.PNG", png(4)),
        ("caf\udce9\x1b[2J.cls", b"1"),
    ]  # fmt: skip
    write_tar(tmp_path / "data" / "train.tar", members)
    write_tar(tmp_path / "data" / "test.tar", labelled([0, 1]))
    before = sorted(tmp_path.rglob("*"))
    data = opened(tmp_path / "data", silent)
    assert data.gallery.labels.tolist() == [1, 2, 0, 1]
    assert list(data.gallery.image_bytes(np.arange(4))) == [png(row) for row in (1, 2, 3, 4)]
    assert data.gallery.describe(3) == r"train.tar: caf\xe9\x1b[2J.PNG"
    assert sorted(tmp_path.rglob("*")) == before
    assert "left out: 2 files that belong to no sample (no KEY.EXTENSION) (the first: train.tar: README)" in caplog.text
    assert (
        "left out: 4 members that are links, devices or sparse files (the first: train.tar: linked.png)" in caplog.text
    )
    assert "left out: 2 samples without an image (the first: train.tar: linked)" in caplog.text


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" + size.to_bytes(11, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header("0.png", 4 << 30), r"0\.png would end at byte"),
        (header("0.png", -512), r"has a size below 0"),
        (header("long", 4 << 20, tarfile.GNUTYPE_LONGNAME) + bytes(5 << 20), "a header of 4,194,304 bytes"),
        (header("pax", 4 << 20, tarfile.XHDTYPE) + bytes(5 << 20), "a header of 4,194,304 bytes"),
        (header("long", 1, tarfile.GNUTYPE_LONGNAME) + b"a".ljust(512, b"\0"), "damaged"),
        (2000 * (header("pax", 0, tarfile.XHDTYPE)), "damaged"),
    ],
    ids=["size beyond the file", "negative size", "long name", "long pax header", "name of nothing", "nested headers"],
)
def test_sizes_that_are_only_claimed_take_no_memory_and_end(
    content: bytes, said: str, tmp_path: Path, silent: Progress
) -> None:
    (tmp_path / "train.tar").write_bytes(b"".join([*_blocks(labelled([0, 1])), content]))
    write_tar(tmp_path / "test.tar", labelled([0, 1]))
    with pytest.raises(UsageError, match=said):
        opened(tmp_path, silent)


def _blocks(members: Members) -> Iterable[bytes]:
    for name, content in members:
        assert isinstance(content, bytes)
        yield header(name, len(content)) + content + bytes(-len(content) % 512)


def test_a_file_is_indexed_once_and_again_when_it_has_changed(
    shards: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(shards, silent)
    indexed, index = [], tar_split.index
    monkeypatch.setattr(tar_split, "index", lambda file, *rest: indexed.append(file.name) or index(file, *rest))
    again = opened(shards, silent)
    assert indexed == []
    assert again.fingerprint(again.gallery_items) == first.fingerprint(first.gallery_items)
    rows = np.array([0, 3])
    before, of_all = again.gallery.fingerprint(rows), again.gallery.fingerprint()
    write_tar(shards / "train-001.tar", labelled([2, 2], first=4))
    assert again.gallery.fingerprint(rows) == before
    assert again.gallery.fingerprint() != of_all
    assert opened(shards, silent).gallery.labels.tolist() == [0, 1, 2, 0, 2, 2]
    assert indexed == ["train-001.tar"]
    cut(shards / "train-001.tar", 100)
    with pytest.raises(UsageError, match=r"train-001\.tar has become shorter"):
        list(again.gallery.image_bytes(np.array([5])))


class Counting(StoredFile):
    """A file as of the Hub, which counts requests and their bytes."""

    remote = True

    def __init__(self, content: bytes) -> None:
        self.__dict__.update(name="a.tar", size=len(content), sha256="", content=content, requests=[])

    def open(self) -> BinaryIO:
        outer = self.__dict__

        class Requests(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                found = super().read(size)
                outer["requests"].append(len(found))
                return found

        return Requests(outer["content"])


@pytest.mark.parametrize(
    ("size", "requests", "share"), [(1 << 20, 13, 0.1), (270_000, 13, 0.35), (240_000, 6, 1.01), (3_000, 4, 1.01)]
)
def test_large_images_are_skipped_and_small_ones_read_with_their_headers(
    size: int, requests: int, share: float, tmp_path: Path
) -> None:
    count = 12 if size > 10_000 else 300
    path = write_tar(
        tmp_path / "a.tar", [m for i in range(count) for m in ((f"{i}.cls", b"1"), (f"{i}.png", bytes(size)))]
    )
    file = Counting(path.read_bytes())
    with OpenTar(file, "here") as tar:
        assert sum(1 for _ in tar.members()) == 2 * count
    asked = file.__dict__["requests"]
    assert len(asked) <= requests
    assert sum(asked) < share * path.stat().st_size


def test_stretches_are_read_at_once_but_not_what_lies_between(tmp_path: Path, silent: Progress) -> None:
    large = [
        (f"{i:02}.{end}", b"%d" % (i % 2) if end == "cls" else bytes(100_000))
        for i in range(6)
        for end in ("cls", "jpg")
    ]
    write_tar(tmp_path / "a.tar", large)
    split = opened(tmp_path, silent, gallery_split=None).gallery.whole  # type: ignore[attr-defined]

    def pieces(*rows: int) -> tuple[list[int], list[int]]:
        rows_ = np.array(rows)
        found = tar_split._Stretches(split.files, split._files_of(rows_), split._starts[rows_], split._sizes[rows_], "")
        return found.starts.tolist(), found.sizes.tolist()

    assert pieces(0, 1, 2)[0] == [0, 3]
    assert pieces(0, 2, 3)[0] == [0, 1, 3]
    assert pieces(3, 2)[0] == [0, 1, 2]
    assert pieces(0, 2)[1] == [100_000] * 2
