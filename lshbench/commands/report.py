"""``lshbench report DIR...``: finished runs compared, as tables, files or a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lshbench.commands.arguments import Parser, exit_codes
from lshbench.config import GROUPS, conf_folder, options
from lshbench.errors import UsageError, wrong_value
from lshbench.text import visible

TABLE = "table"
"""The folder of the tables among the options."""

if TYPE_CHECKING:
    from lshbench.report.report import Report
    from lshbench.report.select import Selection

EXAMPLES = """\
examples:
  lshbench report outputs                                   every run below a folder
  lshbench report outputs --out report                      report.html, report.csv and report.md
  lshbench report outputs --where dataset=digits bits=16,32 --by bits index
  lshbench report RUN --definitions                         with which paper may a figure be compared?
  lshbench report outputs --table study --format latex      a table that a YAML file describes
  lshbench report outputs --figures figures                 figures for a paper, as PDF; of one run its own plots
"""


def main(arguments: list[str]) -> None:
    """Report and exit: 0 done, 1 a defect, 2 wrong use."""
    given = parser().parse_args(arguments)
    with exit_codes():
        _report(given)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="lshbench report",
        description="Finished runs compared: means with intervals over queries and seeds, paired tests with Holm's "
        "correction, and cost. Runs that differ in nothing but the seed are repeats of one configuration.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="a run, or a folder with runs below it")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="also write report.html, report.csv and report.md there"
    )
    parser.add_argument(
        "--format",
        choices=("table", "csv", "markdown", "latex", "html"),
        default="table",
        help="what is printed (table)",
    )
    parser.add_argument(
        "--where",
        metavar="key=value",
        nargs="+",
        action="extend",
        default=[],
        help="only runs with such a value: dataset, backbone, method, bits, seed, index, protocol, ranking, "
        "supervision, or a dotted key of config.yaml or metrics.json; key=value,value takes either",
    )
    parser.add_argument(
        "--by",
        metavar="key",
        nargs="*",
        default=["bits"],
        help="what splits the configurations of a data set and protocol into groups that are ranked and tested (bits)",
    )
    parser.add_argument("--metric", default="AP", help="a column of per_query.parquet that ranks and is tested (AP)")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (0.95)")
    parser.add_argument("--resamples", type=int, default=10_000, help="sign patterns tried (10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--definitions", action="store_true", help="every published definition of mAP and P@k instead")
    parser.add_argument(
        "--table",
        metavar="NAME|FILE",
        help="the rows and columns that a YAML file asks for: its path, or its name in DIR/table of --config-dir or "
        f"among the shipped ones ({', '.join(name for name, _ in options(TABLE))})",
    )
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="a folder of your own with options and tables")
    parser.add_argument(
        "--into",
        metavar="FILE",
        type=Path,
        help="with --table: put it in Markdown between <!-- NAME:begin --> and <!-- NAME:end --> of a document",
    )
    parser.add_argument(
        "--figures",
        metavar="DIR",
        type=Path,
        help="also write the figures there, sized for a paper's columns: of one run its own plots, of several those "
        "that compare them",
    )
    parser.add_argument("--figure-format", choices=("pdf", "svg"), default="pdf", help="of --figures (pdf)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to a file")
    return parser


def _report(given: argparse.Namespace) -> None:
    from lshbench.report.build import build_report
    from lshbench.report.select import find, where
    from lshbench.run_folder.disk import check_writable

    if given.json is not None:
        check_writable("--json", given.json)
    selection = where(find(given.folders), given.where)
    if given.table is not None:
        _tables(given, selection)
        return
    if given.into is not None:
        raise wrong_value("--into", str(given.into), "--table NAME beside it")
    report = build_report(
        selection, metric=given.metric, by=given.by, level=given.level, resamples=given.resamples, seed=given.seed
    )
    for note in report.selection.notes():
        sys.stderr.write(f"lshbench: {visible(note)}\n")
    if given.json is not None:
        _write_json(given, report)
    if given.out is not None:
        from lshbench.report.files import write_files

        for path in write_files(report, given.out):
            sys.stderr.write(f"lshbench: wrote {path}\n")
    if given.figures is not None:
        from lshbench.plots.files import write_figures

        for path in write_figures(report, given.figures, given.figure_format):
            sys.stderr.write(f"lshbench: wrote {path}\n")
    _print(given, report)


def _print(given: argparse.Namespace, report: Report) -> None:
    from lshbench.report import render

    if given.format == "table":
        from rich.console import Console

        render.print_report(report, Console(), definitions=given.definitions)
    elif given.format == "html":
        from lshbench.report.page import page

        sys.stdout.write(page(report))
    else:
        formats = {"csv": render.csv_text, "markdown": render.markdown, "latex": render.latex}
        sys.stdout.write(formats[given.format](report, definitions=given.definitions))
    sys.stdout.flush()


def _tables(given: argparse.Namespace, selection: Selection) -> None:
    from lshbench.report import table_text
    from lshbench.report.markers import fill
    from lshbench.report.select import Settings
    from lshbench.report.table_cells import fill_tables
    from lshbench.report.table_file import check_options, find_table, read_table

    own = given.config_dir
    if own is not None and not own.is_dir():
        raise wrong_value("--config-dir", str(own), "a folder of options, such as DIR/table/mine.yaml")
    folders = [conf_folder()] if own is None else [own, conf_folder()]
    file = read_table(find_table(given.table, folders), folders)
    settings = [Settings(run) for run in selection.runs]

    def options_of(key: str) -> list[str]:
        if key.partition("/")[0] not in GROUPS:
            return []
        return [name for folder in folders for name, _ in options(key, folder)]

    check_options(file, options_of, lambda key: [str(one.get(key)[1]) for one in settings])
    filled = fill_tables(file, selection, resamples=given.resamples, seed=given.seed)
    for note in filled.left_out:
        sys.stderr.write(f"lshbench: {visible(note)}\n")
    if given.into is not None:
        fill(given.into, file.path.stem, table_text.markdown(filled))
        sys.stderr.write(f"lshbench: wrote {given.into}\n")
    elif given.format == "table":
        from rich.console import Console

        table_text.print_tables(filled, Console())
    else:
        formats = {
            "csv": table_text.csv_text,
            "markdown": table_text.markdown,
            "latex": table_text.latex,
            "html": table_text.html,
        }
        sys.stdout.write(formats[given.format](filled))
    sys.stdout.flush()


def _write_json(given: argparse.Namespace, report: Report) -> None:
    from lshbench.report.render import json_text
    from lshbench.run_folder import atomic_file

    try:
        with atomic_file(given.json) as file:
            file.write(json_text(report, definitions=given.definitions).encode())
    except OSError as error:
        raise UsageError(f"--json {given.json}: expected a file that can be written ({error})") from error
