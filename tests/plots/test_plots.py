"""Plots: drawn where there is something to draw, legible at the extremes, right in what they compute."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from example_run import make_run
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lshbench.metrics.curves import Curves
from lshbench.plots.bits import bit_balance, bit_correlations
from lshbench.plots.distances import _separation, distances
from lshbench.plots.draw import draw_all
from lshbench.plots.files import run_figures
from lshbench.plots.loss import loss
from lshbench.plots.precision import precision_at_k, precision_recall
from lshbench.plots.style import DPI, PAPER, SCREEN, Medium, write_figure
from lshbench.plots.tradeoff import pareto_front, tradeoff
from lshbench.plots.training import training
from lshbench.run_folder import RunFolder

ALL = ["bit_balance", "distances", "loss", "precision_at_k", "precision_recall", "tradeoff", "training"]
EXTREMES: dict[str, dict[str, Any]] = {
    "one bit": {"bits": 1, "classes": 2, "queries": 20, "noise": 0.2},
    "4096 bits": {"bits": 4096, "classes": 20, "queries": 20, "gallery": 400},
    "one query": {"queries": 1, "classes": 2, "gallery": 60, "bits": 16},
    "1000 classes and long names": {
        "classes": 1000,
        "bits": 128,
        "gallery": 2000,
        "queries": 50,
        "dataset": "some_organisation_with_a_long_name/a_data_set_with_a_long_name_v2",
        "method": "random_projection_with_a_long_name",
        "noise": 0.5,
        "reference": False,
        "fraction": 0.0123,
        "epochs": 200,
        "settings": 2,
    },
    "many settings": {"gallery": 300, "queries": 20, "fraction": 0.9, "settings": 25},
}


def test_a_run_gets_every_plot_as_a_whole_picture_and_the_same_again(tmp_path: Path) -> None:
    run, twin = (make_run(tmp_path / name, settings=2) for name in ("run", "twin"))
    drawn = draw_all(run)
    for left, right in zip(drawn, draw_all(twin), strict=True):
        assert left.read_bytes() == right.read_bytes()
    assert sorted(path.stem for path in drawn) == ALL
    for path in drawn:
        with Image.open(path) as image:
            image.load()
            assert image.width >= 900
            # More than a blank page with a frame.
            assert len(set(image.convert("L").resize((64, 48)).tobytes())) > 20
    assert sorted(run.path.glob("plots/*")) == sorted(drawn)


def test_paper_figures_keep_their_texts_fit_a_column_and_are_the_same_every_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10, settings=2)
    for name, figure in run_figures(run, PAPER):
        assert figure.get_size_inches()[0] == (6.9 if name in ("bit_balance", "loss", "tradeoff") else 3.3)
        sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
        assert 5 <= min(sizes) <= max(sizes) <= 8
    svg, again, pdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write_figure(precision_recall(run, PAPER), svg, "svg")
    write_figure(precision_recall(run, PAPER), again, "svg")
    write_figure(precision_recall(run, PAPER), pdf, "pdf")
    assert svg.getvalue() == again.getvalue()
    assert b">recall</text>" in svg.getvalue()
    assert b"<dc:date>" not in svg.getvalue()
    assert b"/FontFile2" in pdf.getvalue(), "TrueType, not shapes"
    assert b"CreationDate" not in pdf.getvalue()


def test_a_method_without_bits_or_training_gets_no_plot_of_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", codes=False, epochs=0, ranking="cosine", method="kmeans")
    assert sorted(path.stem for path in draw_all(run)) == ["distances", "loss", "precision_at_k", "precision_recall"]
    assert "bits" not in " ".join(texts(precision_recall(run)))


def test_an_index_with_one_setting_has_no_trade_off_to_draw(tmp_path: Path) -> None:
    assert tradeoff(make_run(tmp_path / "one", gallery=200, queries=10)) is None
    assert isinstance(tradeoff(make_run(tmp_path / "two", gallery=200, queries=10, settings=2)), Figure)


def test_a_ranking_whose_distances_were_not_counted_gets_no_plot_of_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10)
    one = np.array([0.0, 1.0])
    for counted in ({}, dict.fromkeys(("same_class", "other_class"), np.array([], np.int64))):
        edges = {"distance_edges": np.array([-0.5])} if counted else {}
        curves = Curves(recall=one, precision=one, k=np.array([1, 2]), precision_at_k=one, **edges, **counted)
        with RunFolder.claim(tmp_path / f"other{len(counted)}") as folder:
            folder.write_curves(curves)
        other = type(run)(folder.path, run.metrics)
        assert distances(other) is None
        assert bit_balance(other) is None
        assert isinstance(precision_at_k(other), Figure)


@pytest.mark.parametrize(
    ("name", "medium"),
    [
        *(pytest.param(name, SCREEN, marks=() if "1000" in name else pytest.mark.slow) for name in EXTREMES),
        *(pytest.param(name, PAPER, marks=pytest.mark.slow) for name in ("4096 bits", "1000 classes and long names")),
    ],
    ids=lambda value: {SCREEN: "screen", PAPER: "paper"}.get(value, value),
)
def test_no_text_is_cut_off_at_the_picture_s_edge_or_lies_on_other_text(
    tmp_path: Path, name: str, medium: Medium
) -> None:
    run = make_run(tmp_path / "run", **{"settings": 2, **EXTREMES[name]})
    for draw in (precision_recall, precision_at_k, distances, bit_balance, training, loss, tradeoff):
        figure = draw(run, medium)
        assert figure is not None
        figure.canvas.draw()
        width, height = figure.get_size_inches() * DPI
        boxes = []
        for text in figure.findobj(Text):
            if not (text.get_visible() and text.get_text().strip()) or text.get_figure() is None:
                continue
            box = text.get_window_extent()
            if is_hidden_tick(text, figure):
                continue
            where = f"{draw.__name__}: {text.get_text()!r} at {box}"
            assert box.x0 >= -1, where
            assert box.y0 >= -1, where
            assert box.x1 <= width + 1, where
            assert box.y1 <= height + 1, where
            boxes.append((text.get_text(), box))
        for i, (first, box) in enumerate(boxes):
            for second, other in boxes[i + 1 :]:
                apart = box.x1 <= other.x0 + 1 or other.x1 <= box.x0 + 1
                apart = apart or box.y1 <= other.y0 + 3 or other.y1 <= box.y0 + 3
                # The heading keeps an empty line for what stands below it.
                assert apart or first.endswith("\n") or second.endswith("\n"), f"{draw.__name__}: {first!r} {second!r}"


def is_hidden_tick(text: Text, figure: Figure) -> bool:
    """Ticks outside an axis' limits exist but are not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if text in (tick.label1, tick.label2):
                    return not low <= tick.get_loc() <= high
    return False


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_figures_say_what_where_and_beside_what(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shown = " | ".join(texts(precision_recall(run)))
    assert "Precision over recall" in shown
    assert "cifar10_images (efficientnet_lite0) · fourier · 64 bits · trained with labels · hamming ranking" in shown
    assert f"fourier, mAP {run.metrics.metrics['mAP']:.3f}" in shown
    assert f"exact cosine, mAP {run.metrics.reference.cosine['mAP']:.3f}" in shown


def test_what_labels_give_without_a_code_is_drawn_where_its_curve_was_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classifier=True)
    classifier = run.metrics.reference.classifier
    for draw, metric in ((precision_recall, "mAP"), (precision_at_k, "P@10")):
        assert f"classifier, no code, {metric} {classifier.probabilities[metric]:.3f}" in texts(draw(run))
    without = make_run(tmp_path / "without")
    assert not any("classifier" in text for text in texts(precision_recall(without)))


def test_an_index_of_features_does_not_stand_under_the_method_s_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", settings=2)
    search = replace(run.metrics.search, index="hnsw", ranks="features")
    run = replace(run, metrics=replace(run.metrics, search=search))
    for draw in (precision_recall, precision_at_k, distances, tradeoff):
        shown = " | ".join(texts(draw(run)))
        assert "features by hnsw" in shown
        assert "fourier" not in shown
    for draw in (bit_balance, training):
        assert "fourier · 64 bits" in " | ".join(texts(draw(run)))


def test_what_code_and_index_change_hangs_between_the_features_and_the_results(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10)
    figure = loss(run)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["mAP", "P@10", "P@50"]
    steps = run.metrics.loss
    bars = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in figure.axes[1].patches]
    expected = [(0, 0.47), (0.47, 0.44), (0.44, 0.6), (0, 0.6)]
    assert np.array(bars) == pytest.approx(np.array(expected))
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.470", "-.030", "+.160", "0.600"]
    alone = replace(run.metrics, loss=replace(steps, codes=None))
    assert len(loss(replace(run, metrics=alone)).axes[0].patches) == 3, "features, index, results"
    nothing = replace(run.metrics, loss=replace(steps, codes=None, features=None))
    assert loss(replace(run, metrics=nothing)) is None
    assert loss(replace(run, metrics=replace(run.metrics, loss=None))) is None


def test_the_front_is_what_nothing_beats_in_both_directions() -> None:
    assert pareto_front([3, 1, 2, 2, 4], [0.9, 0.2, 0.5, 0.6, 0.9]) == [1, 3, 0]
    assert pareto_front([1, 1, 1], [0.5, 0.5, 0.4]) == [0]
    assert pareto_front([], []) == []


def test_every_setting_stands_at_its_cost_and_the_best_are_joined(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=300, queries=20, fraction=0.5, settings=5)
    columns = run.tradeoff()
    figure = tradeoff(run)
    assert figure is not None
    assert len(figure.axes) == 6
    for axes, name in zip(figure.axes[::2], ("mAP", "P@10", "recall@10/cosine"), strict=True):
        front, others, last, exact, scan = axes.get_lines()
        found = {*zip(*front.get_data(), strict=True), *zip(*others.get_data(), strict=True)}
        assert found == set(zip(columns["candidates_fraction"], columns[name], strict=True))
        assert len(others.get_xdata()) == 1, "the last setting but one finds less at more cost"
        assert last.get_data()[1][0] == columns[name][-1]
        assert set(exact.get_ydata()) == {1.0 if "recall" in name else run.metrics.reference.cosine[name]}
        assert scan.get_xdata()[0] == 1.0
    assert figure.axes[1].get_lines()[-1].get_xdata()[0] == 500, "the exact scan takes 2 ms a query"
    shown = " | ".join(texts(figure))
    assert f"mAP: {run.metrics.metrics['mAP']:.3f}, exact cosine" in shown
    assert "flat: probes=16, 38.6 bytes an item" in " | ".join(text.get_text() for text in figure.legends[0].texts)


def test_memory_is_a_cost_where_settings_differ_in_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=300, queries=20, settings=3)
    columns = run.tradeoff() | {"bytes_per_item": [8.0, 16.0, 16.0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), run.path / "tradeoff.parquet")
    figure = tradeoff(run)
    assert figure is not None
    assert len(figure.axes) == 9
    assert figure.axes[8].get_xlabel() == "bytes an item"
    low, high = figure.axes[2].get_xlim()
    assert low < 8 < 16 < high


def test_settings_that_find_nothing_and_figures_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=300, queries=20, fraction=0.0, reference=False, settings=2)
    figure = tradeoff(run)
    assert figure is not None
    assert len(figure.axes) == 4
    figure.canvas.draw()


def test_only_the_reference_s_mean_is_known_where_its_curve_was_not_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10)
    kept = run.curves()
    with RunFolder.claim(tmp_path / "other") as folder:
        folder.write_curves(
            Curves(recall=kept.recall, precision=kept.precision, k=kept.k, precision_at_k=kept.precision_at_k)
        )
    other = type(run)(folder.path, run.metrics)
    [_, line] = precision_recall(other).axes[0].get_lines()
    assert set(line.get_ydata()) == {run.metrics.reference.cosine["mAP"]}
    assert len(precision_at_k(other).axes[0].get_lines()[1].get_xdata()) == 2


def test_class_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10, dataset="a$\\frac$b")
    draw_all(run)


def test_correlations_are_those_of_numpy_and_unknown_for_constant_bits() -> None:
    generator = np.random.default_rng(0)
    bits = (generator.random((500, 11)) < 0.5).astype(np.uint8)
    bits[:, 3] = bits[:, 7]
    bits[:, 5] = 1
    shown = np.array([0, 3, 5, 7, 10])
    found = bit_correlations(np.packbits(bits, axis=1), 11, shown)
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(bits[:, shown].T)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isnan(found[2]).all()
    assert found[1, 3] == pytest.approx(1)


def test_separation_is_the_share_of_couples_in_the_right_order() -> None:
    # Same-class distances 0, 1, 1; others 1, 2: of 6 couples 4 are right and 2 tied.
    assert _separation(np.array([1, 2, 0]), np.array([0, 1, 1])) == pytest.approx((4 + 2 / 2) / 6)


def test_long_codes_share_bars_and_lose_no_pair(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", bits=4096, classes=20, queries=20, gallery=400)
    figure = distances(run)
    assert figure is not None
    for patch in figure.axes[0].patches:
        data = patch.get_data()  # type: ignore[attr-defined]
        assert len(data.values) <= 80
        assert data.values.sum() == pytest.approx(1)


def test_the_chosen_epoch_is_marked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10, epochs=12)
    figure = training(run)
    assert figure is not None
    chosen = json.loads((run.path / "training.json").read_text())["chosen_epoch"]
    assert figure.axes[0].get_lines()[1].get_xdata()[0] == chosen
    assert training(make_run(tmp_path / "one", gallery=200, queries=10, epochs=1)) is None


def test_drawing_leaves_matplotlib_s_global_state_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=200, queries=10)
    (run.path / "metrics.json").write_text(json.dumps(run.metrics.to_json()))
    code = (
        "import sys, matplotlib\nfrom pathlib import Path\n"
        "from lshbench.plots.draw import draw_all\nfrom lshbench.run_folder import Run\n"
        # Looking at the backend would load pyplot.
        "def settings(): return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = settings()\nrun = Run.open(Path(sys.argv[1]))\n"
        "assert len(draw_all(run)) == 6\n"
        "assert settings() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert not {'torch', 'faiss'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)
