"""FourierHashNet: what its recipes learn, its two sides, and how pairs are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lshbench.errors import UsageError
from lshbench.methods.fourier.joint import RECIPES, Fourier
from lshbench.methods.fourier.joint import staged as fourier_stages
from lshbench.methods.fourier.staged import PairSampler
from lshbench.training.data import TrainingData
from lshbench.training.neighbors import NeighborGraph
from lshbench.training.settings import Training
from tests.methods.clusters import clusters, quality, several_labels, silent
from tests.methods.test_neural import random_quality

FEW = {"epochs": 4, "min_batches": 10}
ONE_GO = ["balance_weight", "class_weight", "geometry_weight", "temperature", "geometry_temperature"]
PAPER = ["reduction_loss", "hash_objective", "decorrelation_weight"]
AGNOSTIC = {"recipe": "paper", "hash_objective": "query_agnostic"}


@pytest.fixture(autouse=True)
def short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourier_stages, "HASH_EPOCHS", 3)
    monkeypatch.setattr(fourier_stages, "TRAINING_QUERIES", 40)


@pytest.mark.parametrize("supervision", ["labels", "none"])
def test_the_default_recipe_beats_random_hyperplanes(supervision: str) -> None:
    method = Fourier(16, 0, "cpu", supervision=supervision, training=FEW).fit(clusters(300), silent)
    assert quality(method, clusters(300), clusters(60, seed=9)) > random_quality(16) + 0.02


@pytest.mark.parametrize("recipe", ["paper", "design"])
@pytest.mark.parametrize("supervision", ["labels", "none"])
def test_both_stages_of_the_other_recipes_are_trained(recipe: str, supervision: str) -> None:
    method = Fourier(16, 0, "cpu", recipe, supervision, training={"epochs": 3, "learning_rate": 2e-4})
    method.fit(clusters(300), silent)
    assert [row.epoch for row in method.history] == [1, 2, 3, 4, 5, 6]
    assert set(method.history[0].terms) == {"reduction"}
    assert set(method.history[-1].terms) == {"ranking", "fence", "balance"}
    assert method.history[2].loss < method.history[0].loss
    assert method.chosen_epoch > 3


def test_the_two_sides_have_encoders_of_their_own_and_share_the_hash_layer() -> None:
    method = Fourier(16, 0, "cpu", training=FEW).fit(clusters(300), silent)
    x = clusters(20, seed=4).x
    assert not np.allclose(method.project(x, "query"), method.project(x, "gallery"))
    assert [name for name in method.state() if name.startswith("hash.")] == ["hash.weight", "hash.bias"]


def test_the_paper_recipe_has_the_published_shape() -> None:
    method = Fourier(16, 0, "cpu", "paper", training={"epochs": 1}).fit(clusters(300), silent)
    state = method.state()
    assert state["encoders.query.map_layer.weight"].shape == (10, 4 * 10 * 12)
    assert state["hash.weight"].shape == (16, 10)
    assert np.abs(state["fourier.frequencies"]).max() > 3


@pytest.mark.parametrize("recipe", ["default", "transfer", "paper", "design"])
def test_a_restored_method_projects_as_before(recipe: str) -> None:
    keys = {"recipe": recipe, "training": {"epochs": 1}}
    method = Fourier(8, 0, "cpu", **keys).fit(several_labels(clusters(200)), silent)
    x = clusters(10, seed=4).x
    again = Fourier(8, 5, "cpu", **keys).restore(method.state())
    for side in ("gallery", "query"):
        assert np.array_equal(method.project(x, side), again.project(x, side))


def test_without_a_map_the_encoders_see_the_features_only() -> None:
    method = Fourier(8, 0, "cpu", map_dim=0, training=FEW).fit(clusters(200), silent)
    assert not [name for name in method.state() if "map" in name or name.startswith("fourier")]


@pytest.mark.parametrize("kind", ["labels", "several", "neighbours"])
def test_pairs_are_drawn_one_relevant_for_one_irrelevant(kind: str) -> None:
    items = clusters(200)
    data = TrainingData(
        several_labels(items) if kind == "several" else items, Training(validation=0), 0, torch.device("cpu")
    )
    graph = None
    if kind == "neighbours":
        graph = NeighborGraph(np.stack([(np.arange(200) + 1) % 200, (np.arange(200) - 1) % 200], axis=1))
    first, second, relevant = PairSampler(data, graph).draw(np.arange(200), 400, np.random.default_rng(0))
    assert relevant.sum() == 200
    if graph is None:
        assert np.array_equal(items.y[first] == items.y[second], relevant)
    else:
        assert np.array_equal(np.isin((first - second) % 200, [1, 199]), relevant)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"recipe": "best"}, "method.recipe='best'"),
        ({"supervision": "some"}, "method.supervision='some'"),
        ({"frequencies": 0}, "method.frequencies=0"),
        ({"band": -1.0}, "method.band=-1.0"),
        ({"ranking_weight": -1.0}, "method.ranking_weight=-1.0"),
        ({"head": {"hidden": []}}, "method.head.hidden=[]"),
        ({"map_dim": 0, "skip": False}, "method.skip=False"),
        ({"recipe": "transfer", "supervision": "none"}, "method.supervision='none'"),
        ({"gallery_share": 1.5}, "method.gallery_share=1.5"),
        ({"head": {"activation": "tanh"}}, "method.head.activation='tanh'"),
        ({"training": {"batch_size": 1}}, "method.training.batch_size=1"),
        ({"temperature": float("inf")}, "method.temperature=inf"),
        ({"class_weight": float("nan")}, "method.class_weight=nan"),
        ({"recipe": "paper", "reduction_loss": "hinge"}, "method.reduction_loss='hinge'"),
        ({"recipe": "paper", "hash_objective": "aware"}, "method.hash_objective='aware'"),
        ({"recipe": "paper", "ranking_weight": 0.95}, "method.ranking_weight=0.95: expected at most 1 - fence_weight"),
        (AGNOSTIC | {"decorrelation_weight": 0.95}, "method.decorrelation_weight=0.95: expected at most 1 - fence"),
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        Fourier(8, **keys)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("keys", "ignored", "where"),
    [
        ({"supervision": "none"}, ["class_weight", "geometry_weight", "geometry_temperature"], "supervision=none"),
        ({"recipe": "paper", "supervision": "none"}, ONE_GO, "recipe=paper"),
        ({"recipe": "paper"}, ONE_GO, "recipe=paper"),
        ({"recipe": "design"}, [*ONE_GO, *PAPER, "gallery_share"], "recipe=design"),
        ({"recipe": "design"}, ["frequencies", "threshold", "band", "scale"], "map_dim=0"),
        ({"map_dim": 0}, ["frequencies", "threshold", "band", "scale"], "map_dim=0"),
        ({}, PAPER, "recipe=default"),
        ({"recipe": "transfer"}, PAPER, "recipe=transfer"),
        ({}, ["geometry_temperature"], "geometry_weight=0"),
        ({"ranking_weight": 0.0}, ["temperature"], "ranking_weight=0"),
        ({"recipe": "paper"}, ["decorrelation_weight"], "hash_objective=query_aware"),
        (AGNOSTIC, ["ranking_weight"], "hash_objective=query_agnostic"),
    ],
)
def test_a_key_that_nothing_would_read_is_refused(keys: dict[str, object], ignored: list[str], where: str) -> None:
    method = Fourier(8, 0, "cpu", **keys)
    for key in ignored:
        assert key not in method.in_effect()
        value = getattr(method.settings, key)
        with pytest.raises(UsageError, match=rf"method\.{key}={value!r}: expected null with method\.{where},"):
            Fourier(8, 0, "cpu", **keys, **{key: value})


@pytest.mark.parametrize("supervision", ["labels", "none"])
@pytest.mark.parametrize("keys", [{"map_dim": 0}, *({"recipe": name} for name in RECIPES), AGNOSTIC], ids=str)
def test_what_is_not_refused_changes_the_codes(
    keys: dict[str, object], supervision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keys.get("recipe") == "transfer" and supervision == "none":
        return
    monkeypatch.setattr(fourier_stages, "HASH_EPOCHS", 1)
    monkeypatch.setattr(fourier_stages, "TRAINING_QUERIES", 4)
    keys = {"supervision": supervision, "head": {"hidden": [16]}, **keys}
    keys["training"] = {"epochs": 1, "min_batches": 2, "batch_size": 64, "validation": 0.0}

    def projected(**changed: object) -> np.ndarray:
        method = Fourier(8, 0, "cpu", **keys | changed).fit(clusters(100), silent)
        return np.concatenate([method.project(clusters(20, seed=4).x, side) for side in ("query", "gallery")])

    made = Fourier(8, 0, "cpu", **keys).in_effect()
    assert Fourier(8, 0, "cpu", **keys | made).in_effect() == made
    before = projected()
    for key, value in made.items():
        if isinstance(value, float):
            assert not np.array_equal(projected(**{key: value / 2 + 0.01}), before), key


@pytest.mark.parametrize("loss", ["squares", "ranking"])
def test_the_paper_recipes_other_reduction_losses_are_trained(loss: str) -> None:
    keys = {"training": {"epochs": 3, "learning_rate": 2e-4}}
    method = Fourier(16, 0, "cpu", "paper", reduction_loss=loss, **keys).fit(clusters(300), silent)
    usual = Fourier(16, 0, "cpu", "paper", **keys).fit(clusters(300), silent)
    assert method.history[2].loss < method.history[0].loss != usual.history[0].loss


def test_the_query_agnostic_objective_is_trained_without_positives() -> None:
    method = Fourier(16, 0, "cpu", **AGNOSTIC, training={"epochs": 1}).fit(clusters(300), silent)
    first, *_, last = method.history[1:]
    assert set(last.terms) == {"fence", "decorrelation", "balance"}
    assert last.loss < first.loss


def test_labels_teach_the_transfer_recipe_without_a_term_that_names_classes() -> None:
    method = Fourier(8, 0, "cpu", "transfer", training=FEW).fit(clusters(200), silent)
    assert set(method.history[-1].terms) == {"geometry", "fence", "balance"}
    assert method.history[-1].terms["geometry"] < method.history[0].terms["geometry"]
    assert quality(method, clusters(300), clusters(60, seed=9)) > random_quality(8) + 0.02


def test_a_query_is_reduced_by_both_encoders_in_the_shares_asked_for() -> None:
    x = clusters(20, seed=4).x
    state = Fourier(8, 0, "cpu", training=FEW).fit(clusters(200), silent).state()

    def projected(share: float, side: str) -> np.ndarray:
        return Fourier(8, 0, "cpu", gallery_share=share).restore(state).project(x, side)

    own, gallery = projected(0, "query"), projected(0, "gallery")
    assert np.abs(own - gallery).max() > 0.1
    assert np.allclose(projected(0.25, "query"), 0.75 * own + 0.25 * gallery, atol=1e-4)
    assert np.allclose(projected(0.25, "gallery"), gallery, atol=1e-4)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"recipe": "paper"},
        {"recipe": "design"},
        {"recipe": "transfer", "gallery_share": 0.0},
        {"map_dim": 0},
        {"skip": False, "head": {"hidden": [24, 16]}},
        {"map_dim": 6, "frequencies": 2, "unit_length": True, "head": {"batch_norm": False, "activation": "relu"}},
    ],
    ids=str,
)
def test_codes_are_those_of_the_trained_network(keys: dict) -> None:
    # Features that are never negative are taken by their roots.
    data = clusters(200)
    data = replace(data, x=np.abs(data.x))
    method = Fourier(16, 0, "cpu", training={"epochs": 1}, **keys).fit(data, silent)
    x = np.abs(clusters(30, seed=4).x)
    for side in ("gallery", "query"):
        assert method.network is not None
        with torch.inference_mode():
            expected = method.network(torch.tensor(x), "gallery" if method.recipe == "design" else side).numpy()
        np.testing.assert_allclose(method.project(x, side), expected, atol=1e-4 * np.abs(expected).max())


def test_a_second_fit_replaces_what_the_first_encoded_by() -> None:
    x = clusters(20, seed=4).x
    method = Fourier(16, 0, "cpu", training={"epochs": 1}).fit(clusters(200), silent)
    method.project(x, "query")
    method.fit(clusters(200, seed=3), silent)
    alone = Fourier(16, 0, "cpu", training={"epochs": 1}).fit(clusters(200, seed=3), silent)
    np.testing.assert_array_equal(method.project(x, "query"), alone.project(x, "query"))
