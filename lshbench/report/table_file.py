"""Tables as data: which rows and columns a table has, in which order, and how its figures are shown, from a YAML file.

The shipped ones are in ``conf/table``; docs/report.md says what the keys mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lshbench.errors import UsageError

TABLE_FOLDER = "table"
"""Of a folder of options, where its tables are."""

TESTED = {"mAP": "AP", "P@10": "P@10", "P@50": "P@50", "R-precision": "R-precision", "MRR": "RR"}
"""Figures whose values of each query a run keeps, and their columns in ``per_query.parquet``: these can be tested."""

FILE_KEYS = (
    "base", "caption", "heading", "about", "datasets", "over", "mark", "align", "row_heading", "supervision", "rows",
    "columns", "tables",
)  # fmt: skip
ROW_KEYS = ("label", "where", "reference")
REFERENCES = ("cosine", "classifier", "predicted_class")
COLUMN_KEYS = ("figure", "heading", "format", "leading_zero", "spread", "best", "over", "difference_from")
GRID_KEYS = ("title", "fold", "rows", "columns")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: its key in the file.
        label: what the table shows.
        where: values by key that a run of this row has; of several rows that fit a run, the one with most has it.
        reference: what every run has beside its own figures: ``cosine``, exact ranking of the features, or, of the
            best classifier beside a method that was trained with labels, ``classifier`` (the ranking by its
            probabilities) or ``predicted_class`` (its prediction as the code); None for a row of runs.
    """

    name: str
    label: str
    where: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table, or one for each value of ``over``.

    Attributes:
        name: its key in the file.
        figure: a key of ``metrics.json``, such as ``search.qps``; without its first part for ``metrics`` and
            ``definitions``.
        heading: with the value of ``over`` for its name in braces.
        format: Python's format of a number, such as ``.4f``.
        leading_zero: whether 0.5 is shown as 0.5, or as .5.
        spread: whether the standard deviation over seeds is shown.
        best: ``highest`` or ``lowest`` where the winner is marked, else None.
        over: the file's ``over``, for each value of which there is a column; None for one over all runs of a row.
        difference_from: name of the row from which differences are shown in place of the figure.
    """

    name: str
    figure: str
    heading: str
    format: str = ".4f"
    leading_zero: bool = True
    spread: bool = False
    best: str | None = None
    over: str | None = None
    difference_from: str | None = None

    @property
    def metric(self) -> str:
        """The figure's name without ``metrics.``."""
        return self.figure.removeprefix("metrics.")


@dataclass(frozen=True)
class Grid:
    """Rows and columns that are shown as one table.

    Attributes:
        title: a line above it.
        fold: what a reader sees in place of the table until it is opened; None where it is open.
        rows, columns: in order.
    """

    title: str | None
    fold: str | None
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class TableFile:
    """What a file of tables asks for.

    Attributes:
        path: of the file, for messages.
        caption: above everything.
        heading, about: above what is shown of each data set: what it is called, and what the figures are of.
        datasets: names of data sets, in the order of showing; others follow.
        over: key for each value of which columns are shown; None if there is no such.
        mark: how a winner is shown: ``bold``, ``italic``, or a text that follows the figure.
        align: ``left`` or ``right``: figures in their columns.
        row_heading: above the labels of the rows.
        supervision: whether labels say which methods were trained with labels.
        rows: all that runs are sorted into, shown or not.
        grids: the tables.
    """

    path: Path
    caption: str | None
    heading: str | None
    about: str | None
    datasets: tuple[str, ...]
    over: str | None
    mark: str
    align: str
    row_heading: str
    supervision: bool
    rows: tuple[Row, ...]
    grids: tuple[Grid, ...]


def find_table(name: str, folders: Sequence[Path]) -> Path:
    """Return the path of a table by its name below one of the folders of options, or by its path.

    Raises:
        UsageError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UsageError(f"--table {name}: expected a file that is there")
        return Path(name)
    for folder in folders:
        if (path := folder / TABLE_FOLDER / f"{name}.yaml").is_file():
            return path
    names = [path.stem for folder in folders for path in sorted((folder / TABLE_FOLDER).glob("*.yaml"))]
    raise UsageError(f"--table {name}: expected the path of a YAML file, or one of {', '.join(names)}")


def read_table(path: Path, folders: Sequence[Path]) -> TableFile:
    """Return what a file asks for, checked as far as that is possible without runs.

    Args:
        path: of the file.
        folders: of options, where the file that ``base`` names is looked for.

    Raises:
        UsageError: with the file, the key, its value, and what would be right.
    """
    return _Parser(path, _content(path, folders)).file()


def check_options(
    file: TableFile, options: Callable[[str], Iterable[str]], there: Callable[[str], Iterable[str]]
) -> None:
    """Refuse rows of a method, data set or other option that there is not.

    Args:
        file: of tables.
        options: gives a group's options; none if it is no group.
        there: gives the values that runs have for a key.

    Raises:
        UsageError: with the file, the key, its value, and the names that are near.
    """
    for row in file.rows:
        for key, value in row.where.items():
            known = set(options(key))
            if known and isinstance(value, str) and value not in known | set(there(key)):
                near = difflib.get_close_matches(value, sorted(known), 3, 0.5) or sorted(known)
                raise _wrong(file.path, f"rows.{row.name}.where.{key}", value, f"one of {', '.join(near)}")


def _wrong(path: Path, key: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{path}: {key}={value!r}: expected {expected}")


def _content(path: Path, folders: Sequence[Path]) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected keys, such as rows: and columns:")
    base = content.pop("base", None)
    if base is None:
        return content
    for folder in (path.parent.parent, *folders):
        found = folder / TABLE_FOLDER / f"{base}.yaml"
        if found.is_file() and found.resolve() != path.resolve():
            return _content(found, folders) | content
    raise _wrong(path, "base", base, "the name of a file of tables, such as base/methods")


class _Parser:
    """A file's content, taken key by key."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    def file(self) -> TableFile:
        self._known(self.content, FILE_KEYS, "")
        over = self._text(self.content, "over", "")
        rows = {name: self._row(name, node) for name, node in self._mapping("rows").items()}
        columns = {name: self._column(name, node, over) for name, node in self._mapping("columns").items()}
        for column in columns.values():
            if column.difference_from is not None:
                self._named(column.difference_from, rows, f"columns.{column.name}.difference_from")
        nodes = self.content.get("tables", [{}])
        if not isinstance(nodes, list) or not nodes or not all(isinstance(node, dict) for node in nodes):
            raise self._wrong("tables", nodes, "a list of tables, each with title, rows and columns")
        row_heading = self._text(self.content, "row_heading", "")
        align = self.content.get("align", "right")
        if align not in ("left", "right"):
            raise self._wrong("align", align, "left or right")
        datasets = self.content.get("datasets", [])
        if not isinstance(datasets, list):
            raise self._wrong("datasets", datasets, "a list of names")
        return TableFile(
            path=self.path,
            caption=self._text(self.content, "caption", ""),
            heading=self._text(self.content, "heading", ""),
            about=self._text(self.content, "about", ""),
            datasets=tuple(map(str, datasets)),
            over=over,
            mark=self._text(self.content, "mark", "") or "bold",
            align=align,
            row_heading="method" if row_heading is None else row_heading,
            supervision=self._flag(self.content, "supervision", "", default=False),
            rows=tuple(rows.values()),
            grids=tuple(self._grid(place, node, rows, columns) for place, node in enumerate(nodes)),
        )

    def _row(self, name: str, node: object) -> Row:
        key = f"rows.{name}"
        if not isinstance(node, dict):
            raise self._wrong(key, node, f"keys: {', '.join(ROW_KEYS)}")
        self._known(node, ROW_KEYS, f"{key}.")
        where = node.get("where", {})
        reference = "cosine" if node.get("reference") is True else node.get("reference")
        if not isinstance(where, dict) or bool(where) == bool(reference):
            raise self._wrong(key, node, "where: with values by key, such as {method: itq}, or reference: cosine")
        if reference and reference not in REFERENCES:
            raise self._wrong(f"{key}.reference", reference, f"one of {', '.join(REFERENCES)}")
        return Row(
            name=str(name),
            label=self._text(node, "label", f"{key}.") or str(name),
            where={str(condition): value for condition, value in where.items()},
            reference=reference or None,
        )

    def _column(self, name: str, node: object, over: str | None) -> Column:
        key = f"columns.{name}"
        if not isinstance(node, dict) or not isinstance(node.get("figure"), str):
            raise self._wrong(key, node, f"keys, with a figure such as mAP or search.qps: {', '.join(COLUMN_KEYS)}")
        self._known(node, COLUMN_KEYS, f"{key}.")
        column = Column(
            name=str(name),
            figure=node["figure"],
            heading=self._text(node, "heading", f"{key}.") or str(name),
            format=self._text(node, "format", f"{key}.") or ".4f",
            leading_zero=self._flag(node, "leading_zero", f"{key}.", default=True),
            spread=self._flag(node, "spread", f"{key}.", default=False),
            best=self._text(node, "best", f"{key}."),
            over=None if "over" in node else over,
            difference_from=self._text(node, "difference_from", f"{key}."),
        )
        if node.get("over") is not None:
            raise self._wrong(
                f"{key}.over", node["over"], "null, for one column over all runs of a row, or no such key"
            )
        if column.best not in (None, "highest", "lowest"):
            raise self._wrong(f"{key}.best", column.best, "highest or lowest, or no such key")
        if (column.best or column.difference_from) and column.metric not in TESTED:
            tested = "best" if column.best else "difference_from"
            expected = f"with {tested}, a figure that can be tested query by query: {', '.join(TESTED)}"
            raise self._wrong(f"{key}.figure", column.figure, expected)
        if column.best and over is not None and column.over is None:
            raise self._wrong(f"{key}.best", column.best, f"no such key: over {over} together nothing is tested")
        try:
            format(0.5, column.format)
        except ValueError:
            raise self._wrong(
                f"{key}.format", column.format, "a format of numbers, such as .4f, ',.0f' or .1%"
            ) from None
        return column

    def _grid(self, place: int, node: dict[str, Any], rows: Mapping[str, Row], columns: Mapping[str, Column]) -> Grid:
        key = f"tables[{place}]"
        self._known(node, GRID_KEYS, f"{key}.")
        shown: dict[str, list[str]] = {}
        for part, known in (("rows", rows), ("columns", columns)):
            names = node.get(part, list(known))
            if not isinstance(names, list) or not names:
                raise self._wrong(f"{key}.{part}", names, "a list of names")
            for name in names:
                self._named(name, known, f"{key}.{part}")
            shown[part] = names
        return Grid(
            title=self._text(node, "title", f"{key}."),
            fold=self._text(node, "fold", f"{key}."),
            rows=tuple(rows[name] for name in shown["rows"]),
            columns=tuple(columns[name] for name in shown["columns"]),
        )

    def _mapping(self, key: str) -> dict[str, Any]:
        node = self.content.get(key)
        if not isinstance(node, dict) or not node:
            raise self._wrong(key, node, "names, each with its keys")
        return node

    def _named(self, name: object, known: Mapping[str, object], key: str) -> None:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 3, 0.5) or list(known)
            raise self._wrong(key, name, f"one of {', '.join(near)}")

    def _known(self, node: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
        for key, value in node.items():
            if key not in keys:
                near = difflib.get_close_matches(str(key), keys, 1, 0.5) or keys
                raise self._wrong(f"{where}{key}", value, f"no such key, but {', '.join(near)}")

    def _text(self, node: Mapping[str, Any], key: str, where: str) -> str | None:
        value = node.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(f"{where}{key}", value, "a text")
        return value

    def _flag(self, node: Mapping[str, Any], key: str, where: str, *, default: bool) -> bool:
        value = node.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(f"{where}{key}", value, "true or false")
        return value

    def _wrong(self, key: str, value: object, expected: str) -> UsageError:
        return _wrong(self.path, key, value, expected)
