"""The report's tables as text cells, and the renderings of a table: terminal, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lshbench.report.definitions import DefinitionTable
from lshbench.report.report import Configuration, Group, Report, measure_name
from lshbench.report.winners import SIGNIFICANT, Best

if TYPE_CHECKING:
    from rich.console import Console

LEAK = " (leak)"
BUSY = " *"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        columns: headings.
        rows: a cell for each column.
        text: how many columns, from the left, hold text; the others hold numbers and are set to the right.
        notes: lines below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: int = 1
    notes: tuple[str, ...] = ()


def tables(report: Report) -> list[Table]:
    """Return the means, the cost and the tests of every group."""
    found = []
    for group in report.groups:
        found += [means(report, group), cost(group)]
        if any(group.pairs.values()):
            found.append(tests(report, group))
    return found


def means(report: Report, group: Group) -> Table:
    """Return a group's configurations, best first by the first measure, with intervals."""
    first, *others = report.measures
    columns = ["configuration", "supervision", "seeds", measure_name(first), f"{report.level:.0%} interval"]
    columns += [measure_name(name) for name in others]
    rows = []
    for one in group.configurations:
        interval = one.means[first].interval
        row = [
            one.name + LEAK * one.leak,
            one.supervision,
            str(len(one.seeds)),
            figure(interval.mean),
            f"{interval.low:.4f}-{interval.high:.4f}",
            *(figure(one.means[name].interval.mean) for name in others),
        ]
        rows.append(tuple(row))
    rows += [_reference_row(name, "none", exact) for name, exact in references(report, group).items()]
    rows += [_reference_row(name, "labels", figures) for name, figures in classifiers(report, group).items()]
    queries = sorted({one.queries for one in group.configurations})
    notes = [f"{' or '.join(f'{count:,}' for count in queries)} queries.", *map(best_sentence, group.best)]
    if any(one.supervision == "features" for one in group.configurations):
        notes.append("features: these alone were searched, without a method.")
    if len({one.supervision for one in group.configurations} - {"features"}) > 1:
        notes.append("Methods that saw labels in training compare only with their like.")
    notes += [f"not tested: {reason}" for reason in group.untested]
    return Table(group.title, tuple(columns), tuple(rows), 2, tuple(notes))


def references(report: Report, group: Group) -> dict[str, list[float | None]]:
    """Return the measures of exact cosine ranking of the same features, one row for each encoder."""
    found: dict[str, list[Configuration]] = {}
    for one in group.configurations:
        if one.means[report.measures[0]].exact_cosine is not None:
            found.setdefault(one.backbone or "", []).append(one)
    several = len(found) > 1
    return {
        "exact cosine, no code" + (f" ({backbone})" if several else ""): [
            members[0].means[name].exact_cosine for name in report.measures
        ]
        for backbone, members in found.items()
    }


def classifiers(report: Report, group: Group) -> dict[str, list[float | None]]:
    """Return the measures of what labels give without a code: of the best classifier beside a configuration."""
    first = report.measures[0]
    beside = [one for one in group.configurations if one.means[first].classifier is not None]
    if not beside:
        return {}
    best = max(beside, key=lambda one: one.means[first].classifier or 0.0)
    return {
        "classifier, no code": [best.means[name].classifier for name in report.measures],
        "its predicted class as the code": [best.means[name].predicted_class for name in report.measures],
    }


def _reference_row(name: str, supervision: str, figures: Sequence[float | None]) -> tuple[str, ...]:
    first, *others = figures
    return (name, supervision, "", figure(first), "", *map(figure, others))


def cost(group: Group) -> Table:
    """Return what a search by each configuration costs, in the order of the means."""
    rows = []
    for one in group.configurations:
        size, seconds = one.cost.bytes_per_item, one.time_s.get("total")
        row = (
            one.name,
            amount(one.cost.candidates),
            amount(one.cost.qps_with_encoding) + BUSY * one.cost.busy,
            amount(one.cost.qps) + BUSY * one.cost.busy,
            "-" if size is None else f"{size:.4g}",
            "-" if seconds is None else f"{seconds:.1f}",
        )
        rows.append(row)
    columns = ("configuration", "candidates", "queries/s", "without encoding", "bytes an item", "run, s")
    busy = any(one.cost.busy for one in group.configurations)
    notes = (f"{BUSY.strip()} the machine was busy with other work: times are too long.",) if busy else ()
    return Table(f"{group.title}: cost, mean over seeds", columns, tuple(rows), notes=notes)


def best_sentence(best: Best) -> str:
    """Return which configuration is best among those of one supervision, and whether that is significant."""
    among = {"labels": "trained with labels", "none": "without labels", "features": "features alone"}[best.supervision]
    if not best.others:
        return f"Only one {among}: {best.name}."
    if best.beaten == best.others:
        return f"Best {among}: {best.name}, significantly better than {_others(best.others)}."
    if not best.beaten:
        return f"Highest {among}: {best.name}, but not significantly better than {_any_of(best.others)}."
    return f"Highest {among}: {best.name}, significantly better than {best.beaten} of {_others(best.others)}."


def _any_of(count: int) -> str:
    return "the other one" if count == 1 else f"any of the {count} others"


def _others(count: int) -> str:
    return "the other one" if count == 1 else f"the {count} others"


def tests(report: Report, group: Group) -> Table:
    """Return the tests of every pair by the first measure."""
    first = report.measures[0]
    rows = tuple(
        (
            pair.first,
            pair.second,
            f"{pair.test.difference:+.4f}",
            f"{pair.test.p_value:.2g}",
            f"{pair.adjusted:.2g}" + (" *" if pair.significant else ""),
        )
        for pair in group.pairs[first]
    )
    notes = (
        f"* significant at {SIGNIFICANT} over all pairs of the table together. Runs are taken as they are: the tests "
        "speak of other queries like these; the intervals count the spread between seeds too.",
    )
    title = f"{group.title}: paired sign-flip tests of {measure_name(first)} over queries"
    return Table(title, ("configuration", "against", "difference", "p", "p (Holm)"), rows, 2, notes)


def definition_tables(table: DefinitionTable) -> list[Table]:
    """Return every published definition's values, then what is computed and whose figures are computed so."""
    names = [name + LEAK * leak for name, leak in zip(table.names, table.leaks, strict=True)]
    values = tuple((row.key, *map(figure, row.values)) for row in table.rows)
    explained = {row.template: (row.formula, ", ".join(row.published_by)) for row in table.rows}
    meanings = tuple(
        (template.replace("{k}", "k").replace("{r}", "r"), *texts) for template, texts in explained.items()
    )
    notes = ["Compare with a paper only what has its definition, protocol, features and supervision."]
    if any(table.leaks):
        notes.insert(
            0, "(leak): queries are in the gallery or in training, or copies of them; the figures are too good."
        )
    return [
        Table("published definitions, means over seeds", ("definition", *names), values),
        Table("what they are", ("definition", "what it is", "seen in"), meanings, 3, tuple(notes)),
    ]


def figure(value: float | None) -> str:
    """Return a share with four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def amount(value: float | None) -> str:
    """Return a large number, or a dash."""
    return "-" if value is None else f"{value:,.0f}"


def print_table(table: Table, console: Console) -> None:
    """Print a table to a terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Drawn

    drawn = Drawn(box=box.SIMPLE_HEAD, title=escape(table.title), title_justify="left", safe_box=True, pad_edge=False)
    for place, name in enumerate(table.columns):
        text = place < table.text
        least = 12 if place == 0 and table.text < len(table.columns) else None
        justify: Any = "left" if text else "right"
        drawn.add_column(escape(name), justify=justify, no_wrap=not text, overflow="fold", min_width=least)
    for row in table.rows:
        drawn.add_row(*(escape(cell).replace(LEAK, f"[bold red]{LEAK}[/]") for cell in row))
    console.print(drawn)
    for note in table.notes:
        console.print(escape(note), highlight=False)


def markdown_table(table: Table, *, level: int = 2) -> str:
    """Return a table in Markdown, under a heading of a level."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rule = ["---" if place < table.text else "---:" for place in range(len(table.columns))]
    parts = [f"{'#' * level} {table.title}", "", line(table.columns), f"| {' | '.join(rule)} |"]
    parts += [line(row) for row in table.rows]
    if table.notes:
        parts += ["", " ".join(table.notes)]
    return "\n".join(parts) + "\n"


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Return text with LaTeX's own characters escaped."""
    return "".join(LATEX.get(character, character) for character in text)


def latex_table(table: Table) -> str:
    """Return a table in LaTeX, for the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_text, cells)) + r" \\"

    columns = "l" * table.text + "r" * (len(table.columns) - table.text)
    parts = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    parts += [r"\toprule", line(table.columns), r"\midrule", *map(line, table.rows), r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        parts.append(rf"\par\smallskip {{\footnotesize {latex_text(' '.join(table.notes))}}}")
    return "\n".join([*parts, r"\end{table}"]) + "\n"
