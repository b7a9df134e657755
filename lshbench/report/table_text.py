"""Filled tables as text: to a terminal, as Markdown, LaTeX, HTML and CSV.

Code and bold of Markdown in a file's texts are put into the other formats' own.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from lshbench.report.table_cells import Cell, Filled, FilledColumn, FilledGrid
from lshbench.report.table_file import TableFile
from lshbench.report.tables import latex_text

if TYPE_CHECKING:
    from rich.console import Console

NOTHING = "-"
"""In a cell without a figure."""

ZEROS = "\0{}\0".format
"""Marks a winner's figure until the text around it is converted."""

CSV_COLUMNS = (
    "dataset", "protocol", "table", "row", "label", "column", "figure", "over", "value_of_over", "seeds", "mean",
    "spread", "complete", "winner", "difference", "p_value_holm",
)  # fmt: skip
"""Columns of the CSV, which has a row for each cell."""

Mark = Callable[[str], str]


def figure_text(file: TableFile, column: FilledColumn, cell: Cell, mark: Mark) -> str:
    """Return what a table shows of a cell; a number in brackets is that of its runs, where some are missing.

    Args:
        file: the tables.
        column: the cell's.
        cell: a cell of it.
        mark: shows a text as the winner's.
    """
    how = column.column

    def number(value: float, sign: str = "") -> str:
        text = format(value, sign + how.format)
        return text if how.leading_zero else re.sub(r"^([+-]?)0\.", r"\1.", text)

    if how.difference_from is not None:
        if cell.difference is None:
            return NOTHING
        return number(cell.difference.mean, "+") + ("" if cell.difference.significant else " (n.s.)")
    if cell.mean is None:
        return NOTHING
    text = number(cell.mean)
    if how.spread and cell.spread:
        text += f" ± {number(cell.spread)}"
    if cell.winner:
        text = mark(text) if file.mark in ("bold", "italic") else text + file.mark
    return text if cell.complete else f"{text} ({len(cell.values)})"


def missing_text(filled: Filled) -> str | None:
    """Return how many cells, or rows of columns that are alike in that, lack runs; None where none does."""
    if not filled.missing:
        return None
    what = "row" if filled.file.over is None else "cell"
    lacking = f"1 {what} lacks" if filled.missing == 1 else f"{filled.missing} {what}s lack"
    marked = any(column.best for grid in filled.file.grids for column in grid.columns)
    return f"{lacking} runs{'; no winner is marked beside them' if marked else ''}."


def _texts(filled: Filled, grid: FilledGrid, mark: Mark) -> Iterator[list[str]]:
    """Yield a row's label and what its cells show."""
    for label, cells in zip(grid.labels, grid.cells, strict=True):
        figures = [
            figure_text(filled.file, column, cell, mark) for column, cell in zip(grid.columns, cells, strict=True)
        ]
        yield [label, *figures]


def _headings(filled: Filled, grid: FilledGrid) -> list[str]:
    return [filled.file.row_heading, *(column.heading for column in grid.columns)]


# Markdown


def markdown(filled: Filled) -> str:
    """Return the tables in Markdown."""
    mark = {"bold": "**{}**", "italic": "*{}*"}.get(filled.file.mark, "{}").format
    parts = [filled.caption]
    for section in filled.sections:
        parts += [section.heading and f"### {section.heading}", section.about]
        for fold, grids in groupby(section.grids, key=lambda grid: grid.grid.fold):
            parts.append(fold and f"<details><summary>{fold}</summary>")
            for grid in grids:
                parts += [grid.grid.title, _markdown_grid(filled, grid, mark)]
            parts.append(fold and "</details>")
    return "\n\n".join(part for part in (*parts, missing_text(filled)) if part) + "\n"


def _markdown_grid(filled: Filled, grid: FilledGrid, mark: Mark) -> str:
    rule = "---:" if filled.file.align == "right" else "---"
    lines = [_headings(filled, grid), ["---", *[rule] * len(grid.columns)], *_texts(filled, grid, mark)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# LaTeX and HTML


def latex(filled: Filled) -> str:
    """Return the tables in LaTeX, for the package booktabs."""

    def text(markdown_text: str) -> str:
        converted = _converted(markdown_text, latex_text, r"\texttt{{{}}}", r"\textbf{{{}}}")
        return converted.replace("±", r"$\pm$")

    parts = ["% needs \\usepackage{booktabs}"]
    for section in filled.sections:
        for grid in section.grids:
            titles = [section.heading, grid.grid.title and grid.grid.title.rstrip(":"), grid.grid.fold]
            title = ": ".join(part for part in titles if part)
            caption = ". ".join(part for part in (title, section.about) if part)
            parts.append(_latex_grid(filled, grid, text(caption), text))
    parts += [rf"\noindent {text(note)}" for note in (filled.caption, missing_text(filled)) if note]
    return "\n\n".join(parts) + "\n"


def _latex_grid(filled: Filled, grid: FilledGrid, caption: str, text: Mark) -> str:
    mark = {"bold": r"\textbf{{{}}}", "italic": r"\textit{{{}}}"}.get(filled.file.mark, "{}")
    columns = "l" + ("r" if filled.file.align == "right" else "l") * len(grid.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}"]
    lines += [r"\toprule", " & ".join(map(text, _headings(filled, grid))) + r" \\", r"\midrule"]
    for label, *cells in _texts(filled, grid, ZEROS):
        lines.append(" & ".join([text(label), *(_marked(cell, mark, text) for cell in cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def html(filled: Filled) -> str:
    """Return the tables as a part of an HTML page, without styles."""

    def text(markdown_text: str) -> str:
        return _converted(
            markdown_text, lambda plain: escape(plain, quote=False), "<code>{}</code>", "<strong>{}</strong>"
        )

    parts = [_element("p", filled.caption, text)]
    for section in filled.sections:
        parts += [_element("h3", section.heading, text), _element("p", section.about, text)]
        for fold, grids in groupby(section.grids, key=lambda grid: grid.grid.fold):
            parts.append(fold and f"<details><summary>{text(fold)}</summary>")
            parts += [_html_grid(filled, grid, text) for grid in grids]
            parts.append(fold and "</details>")
    parts.append(_element("p", missing_text(filled), text))
    return "\n".join(part for part in parts if part) + "\n"


def _html_grid(filled: Filled, grid: FilledGrid, text: Mark) -> str:
    mark = {"bold": "<strong>{}</strong>", "italic": "<em>{}</em>"}.get(filled.file.mark, "{}")
    lines = ["<table>", _element("caption", grid.grid.title and grid.grid.title.rstrip(":"), text)]
    heads = "".join(f'<th scope="col">{text(heading)}</th>' for heading in _headings(filled, grid))
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for label, *cells in _texts(filled, grid, ZEROS):
        figures = "".join(f"<td>{_marked(cell, mark, text)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{text(label)}</th>{figures}</tr>')
    return "\n".join(line for line in (*lines, "</tbody>", "</table>") if line)


def _element(name: str, content: str | None, text: Mark) -> str | None:
    return content and f"<{name}>{text(content)}</{name}>"


def _converted(text: str, plain: Callable[[str], str], code: str, bold: str) -> str:
    """Return Markdown's code and bold in another language."""
    found = []
    for part in re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text):
        if part.startswith("`") and part.endswith("`") and len(part) > 2:
            found.append(code.format(plain(part[1:-1])))
        elif part.startswith("**") and part.endswith("**") and len(part) > 4:
            found.append(bold.format(plain(part[2:-2])))
        else:
            found.append(plain(part))
    return "".join(found)


def _marked(cell: str, mark: str, text: Callable[[str], str]) -> str:
    """Return a cell whose winner's figure stands between zero characters in a language's own mark."""
    before, _, rest = cell.partition("\0")
    if not rest:
        return text(cell)
    figure, _, after = rest.partition("\0")
    return f"{text(before)}{mark.format(text(figure))}{text(after)}"


# Terminal and CSV


def print_tables(filled: Filled, console: Console) -> None:
    """Print the tables to a terminal."""
    from rich import box
    from rich.markup import escape as literal
    from rich.table import Table

    def plain(text: str) -> str:
        return literal(text.replace("`", "").replace("**", ""))

    mark = {"bold": "[bold]{}[/]", "italic": "[italic]{}[/]"}.get(filled.file.mark, "{}").format
    for section in filled.sections:
        for grid in section.grids:
            titles = [section.heading, grid.grid.title and grid.grid.title.rstrip(":"), grid.grid.fold]
            title = ": ".join(plain(title) for title in titles if title)
            drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", safe_box=True, pad_edge=False)
            for place, heading in enumerate(_headings(filled, grid)):
                drawn.add_column(plain(heading), justify="right" if place else "left", overflow="fold")
            for label, *cells in _texts(filled, grid, mark):
                drawn.add_row(plain(label), *cells)
            console.print(drawn)
        if section.about:
            console.print(plain(section.about), highlight=False)
    for note in (filled.caption, missing_text(filled)):
        if note:
            console.print(plain(note), highlight=False)


def csv_text(filled: Filled) -> str:
    """Return every cell in a row of its own, with all digits (:data:`CSV_COLUMNS`)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for section in filled.sections:
        for grid in section.grids:
            for row, label, cells in zip(grid.grid.rows, grid.labels, grid.cells, strict=True):
                for column, cell in zip(grid.columns, cells, strict=True):
                    of = [section.fields["dataset"], section.fields["protocol"], grid.grid.title, row.name, label]
                    writer.writerow(map(_plain, [*of, *_csv_cell(column, cell)]))
    return stream.getvalue()


def _csv_cell(filled: FilledColumn, cell: Cell) -> list[object]:
    column, difference = filled.column, cell.difference
    return [
        column.name,
        column.figure,
        column.over,
        filled.value,
        " ".join(map(str, cell.seeds)),
        cell.mean,
        cell.spread if len(cell.values) > 1 else None,
        cell.complete,
        cell.winner,
        None if difference is None else difference.mean,
        None if difference is None else difference.p_value,
    ]


def _plain(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
