"""Published protocols: their sizes are checked, or drawn, and the figure that papers report can be computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lshbench.config import build
from lshbench.data.base import Dataset, Split
from lshbench.errors import UsageError
from lshbench.metrics.definitions import DEFINITIONS, number_in, template
from lshbench.metrics.measures import AP_CUTOFFS
from lshbench.protocols.splits import EvaluationProtocol
from lshbench.types import unlabelled
from tests import options

SHIPPED = ("coco", "imagenet100", "mirflickr24", "mirflickr38", "nuswide21", "nuswide81", "voc2012")


class LabelledSplit(Split):
    kind = "features"

    def __init__(self, name: str, labels: np.ndarray) -> None:
        self.name, self.labels = name, labels

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return "sha256:0"


def protocol(option: str, **changes: Any) -> EvaluationProtocol:
    keys = options.composed(f"protocol={option}")["protocol"]
    return build({"protocol": keys | changes}, "protocol", EvaluationProtocol)


def data(sizes: tuple[int, ...], classes: int = 8) -> Dataset:
    """A data set of so many gallery items, queries and, with three sizes, training items; each has a label or two."""
    random = np.random.default_rng(1)
    splits = []
    for name, size in zip(("gallery", "query", "train"), sizes, strict=False):
        labels = np.zeros((size, classes), bool)
        labels[np.arange(size), random.integers(classes, size=size)] = True
        labels[np.arange(size), random.integers(classes, size=size)] = True
        splits.append(LabelledSplit(name, labels))
    return Dataset("made", splits[0], splits[1], train=splits[2] if len(sizes) == 3 else None)


@pytest.mark.parametrize("option", SHIPPED)
def test_the_reported_figure_is_one_that_runs_compute(option: str) -> None:
    named = protocol(option).definition
    assert template(named) in DEFINITIONS
    assert number_in(named) in (None, *AP_CUTOFFS)


SMALL = {"queries": 20, "train": 40, "gallery": 140, "classes": 8}


def test_three_sets_of_the_published_sizes_are_taken_as_they_are() -> None:
    selection = protocol("coco", **SMALL).select(data((140, 20, 40)), 0, None, None)
    assert (len(selection.queries), len(selection.gallery), len(selection.train)) == (20, 140, 40)
    np.testing.assert_array_equal(selection.queries, np.arange(140, 160))


def test_other_sizes_are_refused_or_named(caplog: pytest.LogCaptureFixture) -> None:
    found = data((138, 20, 40))
    with pytest.raises(UsageError, match=r"138 database items in place of 140; expected the published lists, or prot"):
        protocol("coco", **SMALL).select(found, 0, None, None)
    assert len(protocol("coco", **SMALL | {"gallery": [140, 138]}).select(found, 0, None, None).gallery) == 138
    protocol("coco", **SMALL | {"classes": 9}, counts="report").select(found, 0, None, None)
    assert "138 database items in place of 140, 8 classes in place of 9" in caplog.text


@pytest.mark.parametrize(("option", "gallery"), [("coco", 140), ("mirflickr38", 100), ("nuswide21", 140)])
def test_sets_of_the_published_sizes_are_drawn_where_the_data_has_none(option: str, gallery: int) -> None:
    made = protocol(option, **SMALL | {"gallery": gallery})
    selection = made.select(data((130, 30)), 0, None, None)
    assert (len(selection.queries), len(selection.train), len(selection.gallery)) == (20, 40, gallery)
    assert not np.isin(selection.queries, [*selection.gallery, *selection.train]).any()
    assert np.isin(selection.train, selection.gallery).all() == made.train_in_gallery
    assert made.select(data((130, 30)), 0, None, None).hash() == selection.hash()
    assert made.select(data((130, 30)), 1, None, None).hash() != selection.hash()


def test_items_without_labels_are_left_out_of_draws_and_a_set_without_any_is_refused() -> None:
    some = data((150, 30))
    some.gallery.labels[:20] = False
    selection = protocol("coco", **SMALL).select(some, 0, None, None)
    assert some.labels[selection.items()].any(axis=1).all()
    assert len(selection.items()) == 160
    none = Dataset("made", LabelledSplit("a", unlabelled(50)), LabelledSplit("b", unlabelled(9)))
    with pytest.raises(UsageError, match="the data set has no labels"):
        protocol("coco", **SMALL).select(none, 0, None, None)
    with pytest.raises(UsageError, match="60 items are too few for 20 queries, 40 training items and a database"):
        protocol("coco", **SMALL).select(data((50, 10)), 0, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 0}, r"protocol\.queries=0: expected at least 1"),
        ({"gallery": "all"}, r"protocol\.gallery='all'"),
        ({"counts": "no"}, r"protocol\.counts='no': expected error or report"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        protocol("coco", **changes)
