"""Find a table's columns by type and name, and read single rows of Arrow columns.

Knows `datasets` only by the shapes of its feature types, so that Parquet files without its metadata work too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lshbench.data.checks import RawLabels, raw_labels
from lshbench.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

ColumnKind = Literal["vector", "image", "class", "integer", "text", "real", "list", "other"]

FEATURE_NAMES = ("features", "feature", "embeddings", "embedding", "image_features", "image_embeds", "vector", "x")
IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes")
LABEL_NAMES = (
    "fine_label", "fine_labels", "label", "labels", "target", "targets", "class", "classes", "class_id",
    "label_id", "category", "category_id", "cls", "y", "species", "breed",
)  # fmt: skip
COARSE = re.compile(r"(^|_)(coarse|super)_?", re.IGNORECASE)
NOT_A_LABEL = re.compile(r"(^|_)(index|idx|ids?|level_\d+|width|height|size|row|number|year|date|time)(_+|$)", re.I)
NUMBERS = ("int", "uint", "float", "double", "half")
_NUMBERED = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, the kind of its values, and its classes.

    Attributes:
        name: its name.
        kind: ``vector`` (a list of floats), ``image``, ``class`` (named classes), ``integer``, ``text``,
            ``real``, ``list`` (of classes, whole numbers, strings or truth values: several labels an item)
            or ``other``.
        type: what it holds, for a person.
        names: names of the classes, or None.
        width: values a row if they are the same number by type, or None.
        nested: whether it lies within another: ``objects.category`` in a column ``objects`` of records.
    """

    name: str
    kind: ColumnKind
    type: str
    names: tuple[str, ...] | None = None
    width: int | None = None
    nested: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.type})"


def list_columns(features: Mapping[str, Any]) -> list[Column]:
    """Return the columns of a ``datasets.Features``, and those within records that could be labels."""
    found = [_column(name, feature) for name, feature in features.items()]
    return found + [column for name, feature in features.items() for column in _within(name, feature)]


def _within(name: str, feature: Any) -> list[Column]:
    """Return the columns of labels in a record, or in a list of records."""
    listed = _inner(feature)
    record = feature if listed is None else listed
    if not isinstance(record, Mapping) or {"bytes", "path"} <= set(record):
        return []
    inner = [_column(f"{name}.{key}", [value] if listed is not None else value) for key, value in record.items()]
    return [replace(column, nested=True) for column in inner if column.kind in ("class", "integer", "text", "list")]


def _inner(feature: Any) -> Any:
    """Return what a list's feature is a list of; None for no list."""
    return feature[0] if isinstance(feature, list) and len(feature) == 1 else getattr(feature, "feature", None)


def nested_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a table's column; of ``objects.category``, the values within the column ``objects``."""
    import pyarrow as pa

    if name in table.column_names:
        return table.column(name)
    outer, _, inner = name.partition(".")
    return pa.chunked_array([_field(chunk, inner) for chunk in table.column(outer).chunks])


def _field(array: pa.Array, name: str) -> pa.Array:
    """Return a field of records, or of lists of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = getattr(array, "storage", array)
    if not _is_list(array.type):
        return pc.struct_field(array, name)
    offsets = pa.array(offsets_of(pc.fill_null(array.value_lengths(), 0).to_numpy(zero_copy_only=False)))
    return pa.LargeListArray.from_arrays(offsets, _field(array.flatten(), name), mask=array.is_null())


def _column(name: str, feature: Any) -> Column:
    type_name = type(feature).__name__
    if type_name == "Image":
        return Column(name, "image", "image")
    if type_name == "ClassLabel":
        return Column(name, "class", f"{feature.num_classes} classes", tuple(feature.names or ()) or None)
    if type_name == "Value":
        return Column(name, _value_kind(name, feature.dtype), str(feature.dtype))
    if type_name == "Array2D" and 1 in feature.shape and str(feature.dtype).startswith(NUMBERS):
        width = max(feature.shape)
        return Column(name, "vector", f"{' x '.join(map(str, feature.shape))} {feature.dtype}", None, width)
    if isinstance(feature, Mapping) and {"bytes", "path"} <= set(feature):
        return Column(name, "image", "bytes and path of an image")
    inner = _inner(feature)
    if inner is None:
        return Column(name, "other", type_name)
    length = getattr(feature, "length", -1)
    width = length if isinstance(length, int) and length > 0 else None
    item = _column(name, inner)
    kinds: dict[str, ColumnKind] = {
        "real": "vector", "class": "list", "integer": "list", "text": "list", "vector": "vector"
    }  # fmt: skip
    kind = kinds.get(item.kind, "other")
    if item.kind == "vector":  # lists of lists: vectors if there is one inner list a row
        return Column(name, kind, f"list of {item.type}", None, item.width if width == 1 else None)
    return Column(name, kind, f"list of {f'{width} x ' if width else ''}{item.type}", item.names, width)


def _value_kind(name: str, dtype: str) -> ColumnKind:
    if dtype.startswith(("int", "uint", "bool")):
        return "integer"
    if dtype.startswith(("float", "double", "half")):
        return "real"
    if "string" in dtype:
        return "text"
    if "binary" in dtype and name.lower() in IMAGE_NAMES:
        return "image"
    return "other"


def is_label_name(name: str) -> bool:
    """Whether a column's name is a usual one of labels, such as ``labels`` or ``image_labels``."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return name.lower() in LABEL_NAMES or bool({*words} & {*LABEL_NAMES})


def numbered(columns: Sequence[Column]) -> list[Column]:
    """Return the columns of numbers that are called alike and numbered without a gap, in their order: a vector's parts.

    None are returned where several such series are of the same length, and of less than two columns.
    """
    series: dict[str, dict[int, Column]] = {}
    for column in columns:
        found = _NUMBERED.fullmatch(column.name)
        if found is not None and column.kind in ("real", "integer") and not is_label_name(found[1].strip("_- ")):
            series.setdefault(found[1], {})[int(found[2])] = column
    whole = [
        [parts[number] for number in sorted(parts)]
        for parts in series.values()
        if len(parts) > 1 and max(parts) - min(parts) + 1 == len(parts) and min(parts) in (0, 1)
    ]
    whole.sort(key=len, reverse=True)
    return whole[0] if whole and (len(whole) == 1 or len(whole[0]) > len(whole[1])) else []


def find_column(columns: Sequence[Column], wanted: str, key: str, kinds: Sequence[str], what: str) -> Column | None:
    """Return the column with the given name, or with ``auto`` the best match by type and name; None if there is none.

    Args:
        columns: the columns to choose from.
        wanted: a name, or ``auto``.
        key: the configuration key, for messages.
        kinds: the kinds accepted.
        what: ``features``, ``images`` or ``labels``.

    Raises:
        UsageError: no column of that name, or its type will not do, or ``auto`` can't tell several apart.
    """
    there = "; there are: " + ", ".join(map(str, columns))
    if wanted != "auto":
        named = next((column for column in columns if column.name == wanted), None)
        if named is None:
            raise UsageError(f"{key}={wanted!r}: there is no such column{there}")
        if named.kind not in kinds:
            raise UsageError(f"{key}={wanted!r}: a column of type {named.type} can't hold {what}{there}")
        return named
    if what == "labels":
        return _find_label(columns, key, there)
    names = FEATURE_NAMES if what == "features" else IMAGE_NAMES
    found = [column for column in columns if column.kind == kinds[0]]
    found.sort(key=lambda column: (_place(column.name, names), -(column.width or 0)))
    if len(found) > 1 and _place(found[0].name, names) == len(names) and found[0].width == found[1].width:
        raise UsageError(f"{key}=auto: several columns could hold {what}; name one{there}")
    return found[0] if found else None


def _find_label(columns: Sequence[Column], key: str, there: str) -> Column | None:
    named = ("integer", "text", "list", "real")
    likely = [
        c for c in columns
        if (c.kind == "class" and not c.nested) or (c.kind in named and _last(c.name).lower() in LABEL_NAMES)
    ]  # fmt: skip
    if likely:
        # What lies in records last, coarse labels, then classes with names first, then by their usual name, the finest.
        def order(column: Column) -> tuple[bool, bool, bool, int, int]:
            coarse, place = bool(COARSE.search(column.name)), _place(_last(column.name), LABEL_NAMES)
            return column.nested, coarse, column.kind != "class", place, -len(column.names or ())

        return min(likely, key=order)
    integers = [c for c in columns if c.kind == "integer" and not c.nested and not NOT_A_LABEL.search(c.name)]
    fine = [column for column in integers if not COARSE.search(column.name)] or integers
    if len(fine) > 1:
        raise UsageError(f"{key}=auto: several columns could hold labels; name one{there}")
    return fine[0] if fine else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name.lower()) if name.lower() in names else len(names)


def read_labels(column: pa.ChunkedArray, where: str, names: tuple[str, ...] | None) -> RawLabels:
    """Return the labels in an Arrow column: integers, strings, or lists of them.

    Raises:
        UsageError: rows without a label, or a type that can't be a label.
    """
    import pyarrow as pa

    if column.null_count:
        raise UsageError(f"{where} has no label for {column.null_count} of {len(column)} items")
    arrays = [getattr(chunk, "storage", chunk) for chunk in column.chunks]
    array = pa.concat_arrays(arrays) if arrays else pa.array([], pa.int64())
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_list(array.type):
        flat = array.flatten()
        if pa.types.is_fixed_size_list(array.type):
            offsets = np.arange(len(array) + 1, dtype=np.int64) * array.type.list_size
        else:
            offsets = offsets_of(array.value_lengths().to_numpy(zero_copy_only=False))
        if pa.types.is_boolean(flat.type):
            width = len(flat) // max(len(array), 1)
            if (np.diff(offsets) != width).any():
                raise UsageError(f"{where} has lists of truth values of differing lengths")
            return RawLabels(_to_numpy(flat).astype(bool).reshape(len(array), width), where, names)
        inner = raw_labels(_to_numpy(flat), where, names)
        return RawLabels(inner.values, where, names, offsets)
    return raw_labels(_to_numpy(array), where, names)


def _to_numpy(array: pa.Array) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        # Through codes: as many Python strings as there are words, not as there are rows.
        encoded = array.dictionary_encode()
        words = np.array(encoded.dictionary.to_pylist(), dtype=str)
        return words[encoded.indices.to_numpy(zero_copy_only=False)] if len(words) else np.array([], dtype=str)
    return array.to_numpy(zero_copy_only=False)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _lengths(lists: pa.Array) -> np.ndarray:
    return lists.value_lengths().to_numpy(zero_copy_only=False)


def _values(lists: pa.Array) -> pa.Array:
    """Return the innermost values of lists of lists."""
    while _is_list(lists.type):
        lists = lists.flatten()
    return lists


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return where consecutive pieces begin and the last one ends, int64 ``(len(lengths) + 1,)``."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def rows_by_piece(rows: np.ndarray, starts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each piece that holds some of the ascending rows, and these rows' numbers within it."""
    pieces = np.searchsorted(starts, rows, side="right") - 1
    for piece in np.unique(pieces):
        yield int(piece), rows[pieces == piece] - starts[piece]


class VectorColumn:
    """An Arrow column of lists of numbers, of which single rows can be read.

    Args:
        column: the column, memory-mapped or not.
        where: names it in messages.

    Attributes:
        width: values a row.

    Raises:
        UsageError: no rows, or a first row without values.
    """

    def __init__(self, column: pa.ChunkedArray, where: str) -> None:
        self.column = column
        self.where = where
        self.starts = offsets_of([len(chunk) for chunk in column.chunks])
        first = next((chunk for chunk in column.chunks if len(chunk)), None)
        if first is None:
            raise UsageError(f"{where} is empty")
        values: Sequence[Any] = first[0].as_py() or ()
        self.width = len(values)
        if self.width and isinstance(values[0], list | tuple | np.ndarray):
            nested = len(values[0])
            if self.width > 1 and nested > 1:
                raise UsageError(f"{where} has {self.width} x {nested} values in its first row: expected one vector")
            self.width *= nested
        if self.width == 0:
            raise UsageError(f"{where} has no values in its first row")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the values of ascending rows, ``(len(rows), width)``.

        Raises:
            UsageError: rows that are missing or of another width.
        """
        blocks = [self._matrix(chunk)[within] for chunk, within in rows_by_piece(rows, self.starts)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.width), np.float32)

    def _matrix(self, chunk: int) -> np.ndarray:
        """Return a chunk's values as a view ``(rows, width)``."""
        import pyarrow as pa

        array = self.column.chunk(chunk)
        array = getattr(array, "storage", array)
        first = int(self.starts[chunk])
        if array.null_count:
            missing = first + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise UsageError(f"{self.where} has no values in {array.null_count} rows; the first is row {missing}")
        while _is_list(array.type.value_type):
            outer = _lengths(array)
            inner = array.flatten()
            inner = getattr(inner, "storage", inner)
            widths = _lengths(inner)
            if (outer * (widths[:1] if len(widths) else 1) != self.width).any() or (widths != widths[:1]).any():
                raise UsageError(f"{self.where} has rows of differing widths")
            array = pa.FixedSizeListArray.from_arrays(_values(inner), self.width)
        if not pa.types.is_fixed_size_list(array.type):
            widths = np.diff(array.offsets.to_numpy())
            other = widths != self.width
            if other.any():
                row = int(np.argmax(other))
                raise UsageError(
                    f"{self.where} has rows of differing widths: row 0 has {self.width} values, "
                    f"row {first + row} has {widths[row]}"
                )
        return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
