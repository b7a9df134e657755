"""Neural hashing: what its recipes learn, and the neighbours that stand for labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lshbench.errors import UsageError
from lshbench.methods.neural import Neural
from lshbench.training.neighbors import NeighborGraph, mutual, nearest_neighbors
from tests.methods.clusters import clusters, quality, several_labels, silent

FEW = {"epochs": 4, "min_batches": 10}


def random_quality(bits: int) -> float:
    gallery, queries = clusters(300), clusters(60, seed=9)
    mean = gallery.x.mean(0)

    class Hyperplanes(Neural):
        def project(self, x: np.ndarray, side: str) -> np.ndarray:
            return (x - mean) @ np.random.default_rng(0).normal(size=(x.shape[1], self.bits))

    return quality(Hyperplanes(bits), gallery, queries)


@pytest.mark.parametrize("supervision", ["labels", "none"])
def test_the_default_recipe_beats_random_hyperplanes(supervision: str) -> None:
    method = Neural(16, 0, "cpu", supervision=supervision, training=FEW).fit(clusters(300), silent)
    assert quality(method, clusters(300), clusters(60, seed=9)) > random_quality(16) + 0.02
    assert set(method.history[0].terms) == {"balance", "fence", "collision"}


@pytest.mark.parametrize("recipe", ["paper", "design"])
@pytest.mark.parametrize("supervision", ["labels", "none"])
def test_the_other_recipes_lower_their_objective(recipe: str, supervision: str) -> None:
    training = {"epochs": 5, "min_batches": 20, "learning_rate": 1e-3 if recipe == "design" else None}
    method = Neural(16, 0, "cpu", recipe, supervision, training=training).fit(clusters(300), silent)
    assert method.history[-1].loss < method.history[0].loss
    assert np.isfinite(method.project(clusters(5).x, "query")).all()


def test_the_paper_recipe_is_one_layer_drawn_from_a_standard_normal() -> None:
    method = Neural(16, 0, "cpu", "paper", training={"epochs": 1, "learning_rate": 1e-9})
    state = method.fit(clusters(300, inputs=200), silent).state()
    weights = [array for array in state.values() if array.ndim == 2]
    assert [array.shape for array in weights] == [(16, 200)]
    assert weights[0].std() == pytest.approx(1, abs=0.05)


def test_several_labels_an_item_and_a_restart_from_the_state() -> None:
    method = Neural(8, 0, "cpu", training=FEW).fit(several_labels(clusters(200)), silent)
    x = clusters(10, seed=4).x
    again = Neural(8, 0, "cpu", training=FEW).restore(method.state())
    assert np.array_equal(method.project(x, "gallery"), again.project(x, "gallery"))


def test_nearest_neighbours_equal_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lshbench.training.neighbors.CELLS", 7 * 40)
    x = np.random.default_rng(0).normal(size=(40, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    found = nearest_neighbors(torch.tensor(x), 5, silent)
    assert np.array_equal(found, np.argsort(-cosines, axis=1)[:, :5])


def test_mutual_neighbours_have_each_other_and_the_lonely_keep_their_nearest() -> None:
    neighbors = np.array([[1, 2], [0, 2], [1, 0], [0, 1]])
    assert mutual(neighbors).tolist() == [[True, True], [True, True], [True, True], [False, False]]
    graph = NeighborGraph(neighbors)
    related = graph.related(np.array([0, 3]), np.array([0, 1, 2, 2]))
    assert related.tolist() == [[True, True, True, True], [True, False, False, False]]
    drawn = {int(graph.draw(np.array([0]), np.random.default_rng(seed))[0]) for seed in range(20)}
    assert drawn == {1, 2}


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"recipe": "best"}, "method.recipe='best'"),
        ({"supervision": "some"}, "method.supervision='some'"),
        ({"neighbors": 0}, "method.neighbors=0"),
        ({"temperature": 0.0}, "method.temperature=0.0"),
        ({"recipe": "paper", "temperature": 1.0}, "method.temperature=1.0: expected null with method.recipe=paper"),
        ({"recipe": "design", "temperature": 1.0}, "method.temperature=1.0: expected null with method.recipe=design"),
        ({"balance_weight": 2.0}, "method.balance_weight=2.0"),
        ({"balance_weight": 0.7, "fence_weight": 0.7}, "method.fence_weight=0.7"),
        ({"device": "tpu9"}, "device='tpu9'"),
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        Neural(8, **keys)
    assert named in str(error.value)


@pytest.mark.parametrize("recipe", ["default", "paper", "design"])
def test_what_a_recipe_stood_for_makes_it_again(recipe: str) -> None:
    made = Neural(8, 0, "cpu", recipe, "none")
    again = Neural(8, 0, "cpu", recipe, "none", **made.in_effect())
    assert again.in_effect() == made.in_effect()
    assert ("temperature" in made.in_effect()) == (recipe == "default")


def test_an_item_is_no_stranger_to_itself() -> None:
    graph = NeighborGraph(np.stack([(np.arange(6) + 1) % 6, (np.arange(6) - 1) % 6], axis=1))
    items = np.array([0, 3, 1])
    assert np.array_equal(graph.related(items, items), [[True, False, True], [False, True, False], [True, False, True]])
