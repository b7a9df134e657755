"""FourierHashNet: what its recipes learn, its two sides, and how pairs are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lshbench.errors import UsageError
from lshbench.methods import fourier_stages
from lshbench.methods.fourier import Fourier
from lshbench.methods.fourier_stages import PairSampler
from lshbench.methods.neighbors import NeighborGraph
from lshbench.methods.training_data import TrainingData
from lshbench.methods.training_settings import Training
from tests.methods.clusters import clusters, quality, several_labels, silent
from tests.methods.test_neural import random_quality

FEW = {"epochs": 4, "min_batches": 10}


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
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        Fourier(8, **keys)
    assert named in str(error.value)


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
