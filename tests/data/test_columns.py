"""Columns and splits are found by type and name."""

from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.data.columns import VectorColumn, find_column, list_columns, nested_column, read_labels
from lshbench.data.split_names import find_splits
from lshbench.errors import UsageError

Value, ClassLabel, Image, List = datasets.Value, datasets.ClassLabel, datasets.Image, datasets.List
VECTOR = List(Value("float32"), length=8)


def label(features: dict) -> str | None:
    found = find_column(list_columns(features), "auto", "dataset.label_column", (), "labels")
    return found and found.name


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"coarse_label": ClassLabel(20), "fine_label": ClassLabel(100)}, "fine_label"),
        ({"index": Value("int64"), "labels": Value("int64")}, "labels"),
        ({"index": Value("int64"), "label": Value("int32"), "superclass": ClassLabel(3)}, "label"),
        ({"index": Value("int64"), "kind_of": Value("uint8"), "features": VECTOR}, "kind_of"),
        ({"__index_level_0__": Value("int64"), "label": Value("string")}, "label"),
        ({"image_id": Value("int64"), "width": Value("int32"), "breed": ClassLabel(37)}, "breed"),
        ({"supercategory": ClassLabel(5), "sort": ClassLabel(7)}, "sort"),
        ({"labels": List(ClassLabel(5)), "image": Image()}, "labels"),
        ({"index": Value("int64"), "caption": Value("string")}, None),
        (
            {"image_id": Value("int64"), "objects": {"id": List(Value("int64")), "category": List(ClassLabel(80))}},
            "objects.category",
        ),
        (
            {"image_id": Value("int64"), "objects": List({"area": Value("int64"), "category": ClassLabel(80)})},
            "objects.category",
        ),
        ({"label": Value("int64"), "objects": List({"category": ClassLabel(80)})}, "label"),
    ],
)
def test_labels_are_found_by_type_and_name(features: dict, expected: str | None) -> None:
    assert label(features) == expected


@pytest.mark.parametrize("form", ["lists in a record", "records in a list", "one record"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_labels_in_records_are_read_as_several_an_item(form: str, chunks: int) -> None:
    lists = [[2, 2, 0], [], [1]] if form != "one record" else [2, 0, 1]
    values = {
        "lists in a record": [{"category": each} for each in lists],
        "records in a list": [[{"category": one} for one in each] for each in lists if isinstance(each, list)],
        "one record": [{"category": each} for each in lists],
    }[form]  # fmt: skip
    kind = pa.list_(pa.int64()) if form == "lists in a record" else pa.int64()
    record = pa.struct([("category", kind)])
    column = pa.array([None, *values], pa.list_(record) if form == "records in a list" else record)[1:]
    table = pa.table({"objects": pa.chunked_array([column] if chunks == 1 else [column[:1], column[1:]])})
    found = read_labels(nested_column(table, "objects.category"), "objects.category", None)
    assert found.values.tolist() == ([2, 2, 0, 1] if form != "one record" else [2, 0, 1])
    if form != "one record":
        assert found.offsets.tolist() == [0, 3, 3, 4]


def test_several_candidates_are_named_rather_than_guessed() -> None:
    with pytest.raises(UsageError, match=r"dataset.label_column=auto: several .*a \(int64\), b \(int32\)"):
        label({"a": Value("int64"), "b": Value("int32")})


def find(features: dict, wanted: str, what: str) -> str | None:
    kinds = ("vector",) if what == "features" else ("image",)
    found = find_column(list_columns(features), wanted, "dataset.some_column", kinds, what)
    return found and found.name


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"logits": VECTOR, "features": List(Value("float16"))}, "features"),
        ({"bbox": List(Value("float32"), length=4), "vit": List(Value("float64"), length=1024)}, "vit"),
        ({"words": List(Value("int64")), "label": Value("int64")}, None),
        ({"emb": datasets.LargeList(Value("float32"))}, "emb"),
    ],
)
def test_features_are_lists_of_floats(features: dict, expected: str | None) -> None:
    assert find(features, "auto", "features") == expected


def test_images_are_found_without_metadata_too() -> None:
    raw = {"pic": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("int64")}
    assert find(raw, "auto", "images") == "pic"
    assert find({"img": Value("binary"), "hash": Value("binary")}, "auto", "images") == "img"


def test_a_column_that_is_not_there_lists_those_that_are_with_types() -> None:
    features = {"img": Image(), "fine_label": ClassLabel(100), "emb": List(Value("float16"), length=1280)}
    there = r"img \(image\), fine_label \(100 classes\), emb \(list of 1280 x float16\)"
    with pytest.raises(UsageError, match=rf"dataset.some_column='vec': there is no such column; there are: {there}"):
        find(features, "vec", "features")
    with pytest.raises(UsageError, match=r"dataset.some_column='img': a column of type image can't hold features"):
        find(features, "img", "features")


@pytest.mark.parametrize(
    ("there", "gallery", "query", "expected"),
    [
        (["test", "train"], "auto", "auto", ("train", ["test"])),
        (["train", "val", "test"], "auto", "auto", ("train", ["test", "val"])),
        (["train", "val", "test"], "auto", "val", ("train", ["val"])),
        (["train", "val", "test"], "test", "auto", ("test", ["val"])),
        (["train"], "auto", "auto", ("train", [])),
        (["everything"], "auto", "auto", ("everything", [])),
        (["database", "queries"], "auto", "auto", ("database", ["queries"])),
        (["train", "other"], "auto", "auto", ("train", ["other"])),
        (["train"], "train", "train", ("train", ["train"])),
        (["a", "b"], "auto", "b", ("a", ["b"])),
        (["train", "validation"], "auto", "val", ("train", ["validation"])),
        (["train", "validation"], "auto", "auto", ("train", ["validation"])),
        (["trainval", "train", "test"], "auto", "auto", ("train", ["test"])),
        (["photos", "test"], "auto", "auto", ("photos", ["test"])),
        (["train", "test"], "auto", None, ("train", [])),
        (["train", "database", "test"], "database", "auto", ("database", ["test"])),
    ],
)
def test_splits_are_found_by_name(there: list, gallery: str, query: str | None, expected: tuple) -> None:
    assert find_splits(there, gallery, query) == expected


@pytest.mark.parametrize(
    ("there", "gallery", "query", "message"),
    [
        (["train", "test"], "trian", "auto", "dataset.gallery_split='trian': .* there are: train, test"),
        (["train", "test"], "auto", "val", "dataset.query_split='val': .* there are: train, test"),
        (["a", "b"], "auto", "auto", "dataset.gallery_split=auto: .* name one of: a, b"),
        (["train", "database", "test"], "auto", "auto", "gallery_split=train or dataset.gallery_split=database says"),
        (["train", "query", "test"], "auto", "auto", "query_split=test or dataset.query_split=query says"),
        (["Train", "train", "test"], "auto", "auto", "dataset.gallery_split=auto: several splits could be meant"),
        (["train", "a", "b"], "auto", "auto", "dataset.query_split=auto: .* name one of: train, a, b"),
    ],
)
def test_splits_that_cannot_be_found_are_listed(there: list, gallery: str, query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_splits(there, gallery, query)


ARROW_TYPES = [
    pa.list_(pa.float32()),
    pa.large_list(pa.float64()),
    pa.list_(pa.float16(), 5),
    pa.list_(pa.uint8()),
]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(sum),
    kind=st.sampled_from(ARROW_TYPES),
    skip=st.integers(0, 2),
    data=st.data(),
)
def test_rows_of_chunked_vectors_are_those_of_the_whole(
    sizes: list[int], kind: pa.DataType, skip: int, data: st.DataObject
) -> None:
    total = sum(sizes)
    values = np.random.default_rng(total).integers(0, 200, (total, 5))
    # Chunks cut out of larger arrays, as memory-mapped tables have them.
    starts = np.cumsum([0, *sizes])
    chunks = []
    for start, size in zip(starts, sizes, strict=False):
        padded = [[9] * 5] * skip + values[start : start + size].tolist()
        rows = [np.array(row, np.float16) for row in padded] if pa.types.is_float16(kind.value_type) else padded
        chunks.append(pa.array(rows, kind)[skip:])
    column = VectorColumn(pa.chunked_array(chunks, kind), "made")
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, total - 1)))), np.int64)
    np.testing.assert_array_equal(column.read(rows), values[rows])


def test_differing_widths_name_the_row() -> None:
    column = VectorColumn(pa.chunked_array([[[1.0, 2.0]], [[3.0, 4.0], [5.0]]]), "made")
    with pytest.raises(UsageError, match="row 0 has 2 values, row 2 has 1"):
        column.read(np.arange(3))


def test_missing_vectors_name_the_row() -> None:
    column = VectorColumn(pa.chunked_array([[[1.0, 2.0]], [None, [5.0, 6.0]]]), "made")
    with pytest.raises(UsageError, match="no values in 1 rows; the first is row 1"):
        column.read(np.arange(3))


def test_label_columns_of_every_type_are_read() -> None:
    def values(array: pa.Array) -> np.ndarray:
        return read_labels(pa.chunked_array([array[:1], array[1:]]), "labels", None).values

    np.testing.assert_array_equal(values(pa.array([3, 1], pa.uint8())), [3, 1])
    np.testing.assert_array_equal(values(pa.array([3.0, 1.0])), [3, 1])
    np.testing.assert_array_equal(values(pa.array(["b", "a"])), ["b", "a"])
    np.testing.assert_array_equal(values(pa.array(["b", "a"]).dictionary_encode()), ["b", "a"])
    np.testing.assert_array_equal(values(pa.array([[True, False], [False, True]])), [[True, False], [False, True]])
    lists = read_labels(pa.chunked_array([pa.array([[1, 2], []])]), "labels", None)
    np.testing.assert_array_equal(lists.values, [1, 2])
    np.testing.assert_array_equal(lists.offsets, [0, 2, 2])


def test_rows_without_a_label_are_counted() -> None:
    with pytest.raises(UsageError, match="labels has no label for 2 of 3 items"):
        read_labels(pa.chunked_array([pa.array([1, None, None])]), "labels", None)
