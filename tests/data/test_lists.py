"""Images that text files list: every usual form gives the right items and labels, and a wrong line is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lshbench.data.base import Dataset
from lshbench.data.lists import ListSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> Path:
    """Six images below a folder: their first pixel is their number."""
    (tmp_path / "images" / "in a").mkdir(parents=True)
    for number in range(6):
        file = tmp_path / "images" / ("in a" if number == 5 else "") / f"{number}.png"
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    return tmp_path / "images"


def opened(folder: Path, silent: Progress, gallery: bytes, queries: bytes | None = None, **keys: Any) -> Dataset:
    (folder / "gallery.txt").write_bytes(gallery)
    if queries is not None:
        (folder / "queries.txt").write_bytes(queries)
        keys["queries"] = str(folder / "queries.txt")
    keys.setdefault("root", str(folder / "images"))
    return ListSource(gallery=str(folder / "gallery.txt"), **keys).open(cache_dir(str(folder / "cache")), silent)


SEVERAL = [[1, 1], [0, 1], [1, 0]], [[1, 1], [1, 0]]
FORMS = {
    "numbers": (b"0.png 0\n1.png 1\n2.png 0\n", b"3.png 1\n4.png 0\n", [0, 1, 0], [1, 0]),
    "words": (b"0.png cat\n1.png dog\n2.png cat\n", b"3.png dog\n4.png cat\n", [0, 1, 0], [1, 0]),
    "one of two flags": (b"0.png 1 0\n1.png 0 1\n2.png 1 0", b"3.png 0 1\n4.png 1 0\n", [0, 1, 0], [1, 0]),
    "flags": (b"0.png 1 1\n1.png 0 1\n2.png 1 0", b"3.png 1 1\n4.png 1 0\n", *SEVERAL),
    "several words": (b"0.png a b\n1.png b\n2.png a\n", b"3.png b a\n4.png a", *SEVERAL),
    "several numbers": (b"0.png 0 1\n1.png 1\n2.png 0", b"3.png 0 1\n4.png 0", *SEVERAL),
    "tabs, blank lines, a mark and Windows' ends": (
        b"\xef\xbb\xbf0.png\tbig cat\r\n\r\n1.png\tdog\r\n2.png\tbig cat\r\n", b"in a/5.png\tdog\n4.png\tbig cat\n",
        [0, 1, 0], [1, 0],
    ),
    "bytes that are no text": (
        b"0.png caf\xe9\n1.png \xff\n2.png caf\xe9\n", b"3.png \xff\n4.png caf\xe9", [0, 1, 0], [1, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_items_and_labels(form: str, tmp_path: Path, silent: Progress) -> None:
    gallery, queries, gallery_labels, query_labels = FORMS[form]
    data = opened(tmp_path, silent, gallery, queries)
    assert data.gallery.labels.astype(int).tolist() == gallery_labels
    assert data.query.labels.astype(int).tolist() == query_labels
    shown = [data.image(item).getpixel((0, 0))[0] for item in range(5)]
    assert shown == [0, 1, 2, 5 if "tabs" in form else 3, 4]
    if form == "bytes that are no text":
        assert list(data.gallery.class_names or ()) == ["caf\\xe9", "\\xff"]


def test_zeros_and_ones_may_be_two_classes_each(tmp_path: Path, silent: Progress) -> None:
    data = opened(tmp_path, silent, b"0.png 0 1\n1.png 1 0\n2.png 0 0", b"3.png 1 1\n4.png 0 1", labels="classes")
    assert data.gallery.labels.astype(int).tolist() == [[1, 1], [1, 1], [1, 0]]


def test_one_list_is_divided_by_class_and_paths_start_from_its_folder(tmp_path: Path, silent: Progress) -> None:
    lines = b"".join(b"images/%d.png %d\n" % (number, number % 2) for number in range(4)) + b"images/in a/5.png\t1\n"
    data = opened(tmp_path, silent, lines, root=None, query_fraction=0.4)
    assert (len(data.gallery), len(data.query)) == (3, 2)


def test_labels_and_content_count_in_the_fingerprint(tmp_path: Path, silent: Progress) -> None:
    lists = (b"0.png 0\n1.png 1\n2.png 0\n", b"3.png 1\n4.png 0\n")
    data = opened(tmp_path, silent, *lists)
    items = np.arange(5)
    first = data.fingerprint(items)
    assert opened(tmp_path, silent, *lists).fingerprint(items) == first
    assert opened(tmp_path, silent, lists[0].replace(b"2.png 0", b"2.png 1"), lists[1]).fingerprint(items) != first
    Image.new("RGB", (4, 4), (9, 0, 0)).save(tmp_path / "images" / "1.png")
    assert opened(tmp_path, silent, *lists).fingerprint(items) != first


@pytest.mark.parametrize(
    ("gallery", "keys", "message"),
    [
        (b"0.png 0\n1.png\n", {}, r"gallery\.txt, line 2: '1\.png' has no label"),
        (b"0.png 0\n\n9.png 1\n8.png 1\n", {}, r"line 3: .*9\.png is no file, like 1 others of 3; dataset\.root='"),
        (b"images/0.png 0\nimages/9.png 1\n", {"root": None}, r"line 2: .*9\.png is no file; dataset\.root: expected"),
        (b"\n \n", {}, "it is empty"),
        (b"0.png\x00 1", {}, "no text in UTF-8"),
        (b"0.png 0\n1.png 2\n", {"labels": "flags"}, "dataset.labels='flags': expected 1 words behind every path"),
        (b"0.png 0\n1.png 1\n", {"labels": "words"}, "dataset.labels='words': expected auto or classes or flags"),
        (b"0.png 0\n1.png 0\n2.png 0\n", {}, "one class only"),
    ],
)
def test_wrong_lists_are_named_with_the_line(
    gallery: bytes, keys: dict[str, Any], message: str, tmp_path: Path, silent: Progress
) -> None:
    with pytest.raises(UsageError, match=message):
        opened(tmp_path, silent, gallery, **keys)
