"""Tables that YAML files describe: their cells, marks and renderings, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_report import QUERIES, values, write_run  # noqa: F401

from lshbench.config import conf_folder, options
from lshbench.errors import UsageError
from lshbench.report.select import find
from lshbench.report.table_cells import Filled, fill_tables
from lshbench.report.table_file import TESTED, read_table
from lshbench.report.table_text import csv_text, html, latex, markdown
from tests.example_run import METRICS

REPORT = Path(__file__).parents[2] / "docs" / "report.md"

SMALL = """
# Two rows
over: bits
columns:
  mAP: {figure: mAP, heading: "mAP, {bits} bits", format: .3f, leading_zero: false, spread: true, best: highest}
rows:
  best: {label: "`fourier`", where: {method: fourier}}
  other: {label: "a|b & c", where: {method: itq}}
"""


def filled(tmp_path: Path, content: str = SMALL, **changes: Any) -> Filled:
    """Return a file's tables of the runs below tmp_path."""
    return fill_tables(read_table(written(tmp_path, content, **changes), [conf_folder()]), find([tmp_path]))


def written(tmp_path: Path, content: str, **changes: Any) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(content) | changes, sort_keys=False))
    return path


@pytest.fixture
def runs(tmp_path: Path, values) -> Path:  # noqa: F811
    """Two methods with two seeds at 16 and 32 bits, of which one lacks its last run."""
    for bits in (16, 32):
        for seed in (0, 1):
            write_run(tmp_path, "fourier", values + 0.1 + 0.02 * seed, seed=seed, bits=bits)
            if (bits, seed) != (32, 1):
                write_run(tmp_path, "itq", values + 0.02 * seed, seed=seed, bits=bits)
    return tmp_path


def cells(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table's rows."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines]


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def test_a_table_has_the_rows_and_columns_asked_for_and_says_what_is_missing(runs: Path, values) -> None:  # noqa: F811
    best, other, alone = (short(values.mean() + shift) for shift in (0.11, 0.01, 0))
    assert cells(markdown(filled(runs))) == [
        ["method", "mAP, 16 bits", "mAP, 32 bits"],
        ["---", "---:", "---:"],
        ["`fourier`", f"**{best} ± .014**", f"{best} ± .014"],
        [r"a\|b & c", f"{other} ± .014", f"{alone} (1)"],
    ]
    assert markdown(filled(runs)).endswith("\n1 cell lacks runs; no winner is marked beside them.\n")


def test_a_row_without_runs_is_dashes_and_counted(runs: Path) -> None:
    rows = yaml.safe_load(SMALL)["rows"] | {"absent": {"label": "absent", "where": {"method": "csq"}}}
    text = markdown(filled(runs, rows=rows))
    assert cells(text)[-1] == ["absent", "-", "-"]
    assert "3 cells lack runs" in text
    assert "**" not in text


def test_a_reference_has_no_row_in_a_table_that_shows_none_of_its_measures(runs: Path) -> None:
    rows = yaml.safe_load(SMALL)["rows"] | {"exact": {"label": "exact", "reference": "cosine"}}
    columns = yaml.safe_load(SMALL)["columns"] | {"fit": {"figure": "time_s.fit", "heading": "fit", "over": None}}
    tables = [{"columns": ["mAP"]}, {"columns": ["fit"]}]
    labels = [row[0] for row in cells(markdown(filled(runs, rows=rows, columns=columns, tables=tables)))]
    assert labels == ["method", "---", "`fourier`", r"a\|b & c", "exact", "method", "---", "`fourier`", r"a\|b & c"]


def test_the_caption_says_of_how_many_seeds_figures_are_and_whether_their_spread_is_shown(
    runs: Path,
    values,  # noqa: F811
) -> None:
    assert filled(runs, caption="{mean}; best").caption == "Mean over seeds 0, 1, ± their standard deviation; best"
    plain = {"mAP": {"figure": "mAP"}}
    assert filled(runs, caption="{mean}; best", columns=plain).caption == "Mean over seeds 0, 1; best"
    write_run(runs / "alone", "fourier", values)
    alone = fill_tables(read_table(written(runs, SMALL, caption="{mean}"), [conf_folder()]), find([runs / "alone"]))
    assert alone.caption == "Seed 0"


def test_a_mark_is_shown_in_the_way_of_the_file(runs: Path) -> None:
    text = markdown(filled(runs, mark=" †"))
    assert re.search(r"`fourier` \| \.\d{3} ± \.014 † \|", text)
    assert r"\texttt{fourier} & \textbf{." in latex(filled(runs))
    assert r"a\textbar{}b \& c" in latex(filled(runs))
    assert re.search(r"<code>fourier</code></th><td><strong>\.\d{3} ± \.014</strong></td>", html(filled(runs)))
    assert "a|b &amp; c" in html(filled(runs))


def test_the_csv_has_every_digit(runs: Path, values) -> None:  # noqa: F811
    rows = {(row["row"], row["value_of_over"]): row for row in csv.DictReader(io.StringIO(csv_text(filled(runs))))}
    assert float(rows["best", "16"]["mean"]) == pytest.approx(values.mean() + 0.11, abs=1e-12)
    assert float(rows["best", "16"]["spread"]) == pytest.approx(0.02 / np.sqrt(2), abs=1e-12)
    assert [rows[key]["winner"] for key in (("best", "16"), ("other", "16"), ("best", "32"))] == [
        "true",
        "false",
        "false",
    ]
    assert (rows["other", "32"]["seeds"], rows["other", "32"]["complete"]) == ("0", "false")


def test_a_winner_is_better_than_each_other_with_every_seed_and_significantly(tmp_path: Path, values) -> None:  # noqa: F811
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 2, QUERIES))
    rows = yaml.safe_load(SMALL)["rows"] | {"third": {"where": {"method": "csq"}}}
    for seed in (0, 1):
        write_run(tmp_path, "fourier", values + 0.1 + noise[0, seed], seed=seed)
        write_run(tmp_path, "itq", values + noise[1, seed], seed=seed)
        write_run(tmp_path, "csq", values + noise[2, seed] - noise[2].mean() + noise[1].mean(), seed=seed)
    assert cells(markdown(filled(tmp_path, rows=rows)))[2][1].startswith("**")
    lowest = {"mAP": {"figure": "mAP", "best": "lowest"}}
    assert "**" not in markdown(filled(tmp_path, rows=rows, columns=lowest)), "two are level"
    two = {name: rows[name] for name in ("best", "other")}
    assert cells(markdown(filled(tmp_path, rows=two, columns=lowest)))[3][1].startswith("**")


def test_the_most_particular_row_has_a_run_and_others_are_counted(tmp_path: Path, values) -> None:  # noqa: F811
    write_run(tmp_path, "fourier", values)
    write_run(tmp_path, "fourier", values + 0.1, head={"hidden": [774]})
    write_run(tmp_path, "csq", values)
    wide = {"label": "wide", "where": {"method": "fourier", "head.hidden": [774]}}
    rows = yaml.safe_load(SMALL)["rows"] | {"wide": wide}
    done = filled(tmp_path, rows=rows, tables=[{"rows": ["best"]}])
    assert cells(markdown(done))[-1][1] == short(values.mean())
    assert done.left_out == (
        f"1 run of no row of {done.file.path}, left out",
        f"1 run of rows that {done.file.path} does not show, left out",
    )


def test_of_equal_runs_by_other_code_the_newest_counts_and_unequal_ones_are_refused(tmp_path: Path, values) -> None:  # noqa: F811
    write_run(tmp_path, "fourier", values)
    newer = write_run(tmp_path, "fourier", values + 0.1, source="sha256:22")
    path = newer / "metrics.json"
    path.write_text(path.read_text().replace("2025-01-01", "2025-01-02"))
    done = filled(tmp_path)
    assert cells(markdown(done))[2][1] == short(values.mean() + 0.1)
    assert done.left_out == ("1 run older than another one of the same cell and seed, left out",)
    write_run(tmp_path, "fourier", values, seed=1, pca={"dim": 8})
    with pytest.raises(UsageError, match=r"rows\.best: .* belong to one cell, but differ in pca\.dim"):
        filled(tmp_path)


def test_differences_are_from_a_row_and_tested_with_their_column(tmp_path: Path, values) -> None:  # noqa: F811
    noise = np.random.default_rng(0).normal(0, 0.05, (2, QUERIES))
    for seed in (0, 1):
        write_run(tmp_path, "fourier", values, seed=seed)
        write_run(tmp_path, "itq", values - 0.05 + noise[seed] - noise.mean(), seed=seed)
        write_run(tmp_path, "csq", values + 0.0005 + noise[seed] - noise.mean(), seed=seed)
    write_run(tmp_path, "dpn", values)
    rows = {name: {"where": {"method": name}} for name in ("fourier", "itq", "csq", "dpn")}
    column = {"figure": "mAP", "leading_zero": False, "difference_from": "fourier", "heading": "difference"}
    rows["exact"] = {"reference": True}
    done = filled(
        tmp_path, rows=rows, columns={"difference": column, "size": {"figure": "method.parameters", "format": ",.0f"}}
    )
    assert [row[1:] for row in cells(markdown(done))[2:]] == [
        ["-", "123"], ["-.0500", "123"], ["+.0005 (n.s.)", "123"], ["-", "123 (1)"], ["-", "-"],
    ]  # fmt: skip


def test_of_several_classifiers_the_best_of_each_seed_is_shown(tmp_path: Path, values) -> None:  # noqa: F811
    for name, seed, reached in (("itq", 0, "0.2"), ("csq", 0, "0.4"), ("itq", 1, "0.6")):
        path = write_run(tmp_path, name, values, seed=seed) / "metrics.json"
        path.write_text(path.read_text().replace('"mAP": 0.32', f'"mAP": {reached}'))
    rows = {name: {"reference": name} for name in ("classifier", "predicted_class")}
    rows |= {name: {"where": {"method": name}} for name in ("itq", "csq")}
    shown = cells(markdown(filled(tmp_path, rows=rows)))
    assert shown[2] == ["classifier", ".500 ± .141"]
    assert shown[3] == ["predicted_class", ".250"]


def test_exact_cosine_is_the_mean_of_what_each_seed_has(tmp_path: Path, values) -> None:  # noqa: F811
    for seed, exact in ((0, "0.2"), (1, "0.4")):
        folder = write_run(tmp_path, "itq", values, seed=seed)
        path = folder / "metrics.json"
        path.write_text(path.read_text().replace('"mAP": 0.19', f'"mAP": {exact}'))
    rows = {"exact": {"reference": True}, "other": {"where": {"method": "itq"}}}
    assert cells(markdown(filled(tmp_path, rows=rows)))[2] == ["exact", ".300 ± .141"]


def test_a_heading_names_a_key_of_a_group(runs: Path) -> None:
    columns = {"seconds": {"figure": "time_s.total", "heading": "s, {dataset.queries} queries"}}
    rows = {"one": {"where": {"method": "itq", "bits": 16}}}
    found = cells(markdown(filled(runs, over="dataset.queries", columns=columns, rows=rows)))
    assert found[0][1] == f"s, {METRICS['dataset']['queries']} queries"
    with pytest.raises(UsageError, match=r"columns\.x\.heading='\{0\}': expected no other names"):
        filled(runs, columns={"x": {"figure": "mAP", "heading": "{0}"}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": [{"columns": ["mAP", "P10"]}]}, r"tables\[0\]\.columns='P10': expected one of mAP"),
        ({"tables": [{"rows": ["bests"]}]}, r"tables\[0\]\.rows='bests': expected one of best"),
        ({"columns": {"x": {"figure": "search.qsp"}}}, r"columns\.x\.figure='search\.qsp': no run has .*search\.qps"),
        ({"columns": {"x": {"figure": "method.name"}}}, r"columns\.x\.figure='method\.name': .* is no number"),
        ({"columns": {"x": {"figure": "bits", "best": "highest"}}}, r"columns\.x\.figure='bits': .* tested query"),
        ({"columns": {"x": {"figure": "mAP", "format": ".q"}}}, r"columns\.x\.format='\.q': expected a format"),
        ({"columns": {"x": {"figure": "mAP", "heading": "{bit}"}}}, r"columns\.x\.heading='\{bit\}': .* than \{bits\}"),
        ({"columns": {"x": {"figur": "mAP"}}}, r"columns\.x=\{'figur': 'mAP'\}: expected keys, with a figure"),
        ({"rows": {"x": {"reference": "cosines"}}}, r"rows\.x\.reference='cosines': expected one of cosine"),
        ({"rows": {"x": {"where": {}}}}, r"rows\.x=.*: expected where: with values by key"),
        ({"over": "bist"}, r"over='bist': no run has it; expected a key"),
        ({"colour": "red"}, r"colour='red': expected no such key"),
        ({"base": "absent"}, r"base='absent': expected the name of a file of tables"),
        ({"align": "middle"}, "align='middle': expected left or right"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_a_file_asks_for_in_vain_is_named_with_what_would_be_right(
    runs: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=r"own\.yaml: " + message):
        filled(runs, **changes)


def test_the_command_finds_tables_by_name_and_ends_with_2_and_one_line_on_wrong_use(
    runs: Path, tmp_path: Path, lshbench
) -> None:
    own = tmp_path / "mine" / "table"
    own.mkdir(parents=True)
    (own / "small.yaml").write_text(SMALL)
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- small:begin -->\n<!-- small:end -->\n")
    asked = ("report", ".", "--config-dir", "mine", "--table")
    printed = lshbench(*asked, "small", "--format", "markdown").stdout
    lshbench(*asked, "small", "--into", "document.md")
    assert document.read_text() == f"before\n<!-- small:begin -->\n{printed}<!-- small:end -->\n"
    assert lshbench(*asked, "mine/table/small.yaml", "--format", "markdown").stdout == printed
    assert "fourier" in lshbench(*asked, "small").stdout
    (own / "wrong.yaml").write_text(SMALL.replace("method: itq", "method: itqq"))
    for name, message in (
        ("wrong", "mine/table/wrong.yaml: rows.other.where.method='itqq': expected one of itq"),
        ("absent", "--table absent: expected the path of a YAML file, or one of small, wrong, ablation"),
    ):
        done = lshbench(*asked, name, check=False)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_table_none_of_whose_rows_has_a_run_is_left_out_and_counted(runs: Path) -> None:
    rows = {"best": {"label": "a", "where": {"method": "fourier"}}, "none": {"label": "b", "where": {"method": "csq"}}}
    tables = [{"rows": ["best"], "columns": ["mAP"]}, {"rows": ["none"], "columns": ["mAP"]}]
    found = filled(runs, rows=rows, tables=tables)
    assert [len(section.grids) for section in found.sections] == [1]
    assert "1 table of " in found.left_out[-1]
    assert found.left_out[-1].endswith(" without any run, left out")
    assert "| b" not in markdown(found)


def test_every_processor_of_the_runs_is_named_with_its_gpu(runs: Path) -> None:
    file = next(runs.glob("itq-*/metrics.json"))
    metrics = json.loads(file.read_text(encoding="utf-8"))
    metrics["environment"] |= {"cpu": "Another", "gpu": "H100"}
    file.write_text(json.dumps(metrics), encoding="utf-8")
    text = markdown(filled(runs, SMALL + "tables: [{rows: [best, other], columns: [mAP]}]", about="On {cpu}."))
    assert f"On Another and H100, or {METRICS['environment']['cpu']}." in text


ONE_DATA_SET = {"unseen", "containment", "tiny_imagenet"}
"""Tables of one data set."""


@pytest.mark.parametrize("name", [name for name, _ in options("table")])
def test_every_shipped_table_can_be_read_and_has_its_rows_and_columns_in_the_document(name: str) -> None:
    file = read_table(conf_folder() / "table" / f"{name}.yaml", [conf_folder()])
    text = (REPORT.parent / "results.md").read_text(encoding="utf-8")
    block = re.search(rf"<!-- {name}:begin -->\n(.*)<!-- {name}:end -->", text, re.DOTALL)
    assert block is not None
    assert all(part in block[1] for part in file.caption.split("{mean}"))
    tables = re.findall(r"(?:^\| ?.*\n)+", block[1], re.MULTILINE)
    assert len(tables) == (len(file.grids) * (1 if name in ONE_DATA_SET else 2))
    for place, table in enumerate(tables):
        grid = file.grids[place % len(file.grids)]
        headings, _, *labels = [line.strip("|\n ").split(" | ") for line in table.splitlines()]
        measures = {column.metric for column in grid.columns}
        shown = [row.label for row in grid.rows if not row.reference or measures & TESTED.keys()]
        assert [row[0].removesuffix(", with labels") for row in labels] == shown
        starts = [column.heading.partition("{")[0] for column in grid.columns]
        shown = [heading for heading in headings if heading != file.row_heading]
        assert all(any(heading.startswith(start) for start in starts) for heading in shown)
        assert all(any(heading.startswith(start) for heading in shown) for start in starts)


def test_the_studys_table_has_a_row_for_each_part_of_the_experiment() -> None:
    file = read_table(conf_folder() / "table" / "study.yaml", [conf_folder()])
    assert {row.name: row.label for row in file.rows} == dict(options("experiment/design"))
    assert all(row.where == {"experiment/design": row.name} for row in file.rows)
    experiment = yaml.safe_load((conf_folder() / "experiment" / "design.yaml").read_text(encoding="utf-8"))
    order = re.split(r"[\s,]+", experiment["hydra"]["sweeper"]["params"]["experiment/design"].strip())
    assert [row.name for row in file.rows] == order


@pytest.mark.slow
def test_the_documents_table_comes_out_of_its_runs_byte_for_byte(lshbench, tmp_path: Path) -> None:
    text = REPORT.read_text(encoding="utf-8")
    table = tmp_path / "mine" / "table" / "digits.yaml"
    table.parent.mkdir(parents=True)
    table.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    run, report = re.findall(
        r"^ {4}lshbench ((?:run|report) .*(?:backbone=pixels|--table digits).*)$", text, re.MULTILINE
    )
    lshbench(*run.split(), "evaluation.plots=false")
    printed = lshbench(*report.split()).stdout
    assert printed == re.search(r"<!-- digits:begin -->\n(.*)<!-- digits:end -->", text, re.DOTALL)[1]
