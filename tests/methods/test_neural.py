"""Neural hashing: what its recipes learn, and the neighbours that stand for labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lshbench.errors import UsageError
from lshbench.methods import neural
from lshbench.methods.random_projection import RandomProjection
from lshbench.training.losses import fence
from lshbench.training.neighbors import NeighborGraph, mutual, nearest_neighbors
from tests.methods.clusters import clusters, quality, several_labels, silent
from tests.options import make

FEW = {"epochs": 4, "min_batches": 10}


def random_quality(bits: int) -> float:
    gallery, queries = clusters(300), clusters(60, seed=9)
    mean = gallery.x.mean(0)

    class Hyperplanes(RandomProjection):
        def project(self, x: np.ndarray, side: str) -> np.ndarray:
            return (x - mean) @ np.random.default_rng(0).normal(size=(x.shape[1], self.bits))

    return quality(Hyperplanes(bits=bits), gallery, queries)


@pytest.mark.parametrize("option", ["neural", "neural_unsupervised"])
def test_the_variant_beats_random_hyperplanes(option: str) -> None:
    method = make(option, training=FEW).fit(clusters(300), silent)
    assert quality(method, clusters(300), clusters(60, seed=9)) > random_quality(16) + 0.02
    assert set(method.history[0].terms) == {"balance", "fence", "collision"}


@pytest.mark.parametrize(("option", "rate"), [("neural_paper", 0.05), ("neural_design", 1e-3)])
@pytest.mark.parametrize("supervision", ["labels", "none"])
def test_the_other_options_lower_their_objective(option: str, rate: float, supervision: str) -> None:
    training = {"epochs": 5, "min_batches": 20, "learning_rate": rate}
    method = make(option, supervision=supervision, training=training).fit(clusters(300), silent)
    assert method.history[-1].loss < method.history[0].loss
    assert np.isfinite(method.project(clusters(5).x, "query")).all()


def test_the_published_network_is_one_layer_drawn_from_a_standard_normal() -> None:
    method = make("neural_paper", training={"epochs": 1, "learning_rate": 1e-9})
    state = method.fit(clusters(300, inputs=200), silent).state()
    weights = [array for array in state.values() if array.ndim == 2]
    assert [array.shape for array in weights] == [(16, 200)]
    assert weights[0].std() == pytest.approx(1, abs=0.05)


def test_several_labels_an_item_and_a_restart_from_the_state() -> None:
    method = make("neural", 8, training=FEW).fit(several_labels(clusters(200)), silent)
    x = clusters(10, seed=4).x
    again = make("neural", 8, training=FEW).restore(method.state())
    assert np.array_equal(method.project(x, "gallery"), again.project(x, "gallery"))


def test_nearest_neighbours_equal_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lshbench.training.neighbors.CELLS", 7 * 40)
    x = np.random.default_rng(0).normal(size=(40, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    found = nearest_neighbors(torch.nn.functional.normalize(torch.tensor(x)), 5, silent)
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
    ("option", "keys", "named"),
    [
        ("neural_paper", {"supervision": "some"}, "method.supervision='some'"),
        ("neural", {"temperature": 0.0}, "method.temperature=0.0"),
        ("neural", {"temperature": "cold"}, "method.temperature='cold': expected a number, or auto"),
        ("neural", {"recipe": "paper"}, "method.recipe='paper': no such key"),
        ("neural", {"supervision": "none"}, "method.supervision='none': no such key"),
        ("neural_paper", {"temperature": 1.0}, "method.temperature=1.0: no such key"),
        ("neural_design", {"temperature": 1.0}, "method.temperature=1.0: no such key"),
        ("neural", {"balance_weight": 2.0}, "method.balance_weight=2.0"),
        ("neural", {"balance_weight": 0.7, "fence_weight": 0.7}, "method.fence_weight=0.7"),
        ("neural", {"device": "tpu9"}, "device='tpu9'"),
    ],
)
def test_a_wrong_key_is_named(option: str, keys: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as error:
        make(option, 8, **keys)
    assert named in str(error.value)


def test_an_item_is_no_stranger_to_itself() -> None:
    graph = NeighborGraph(np.stack([(np.arange(6) + 1) % 6, (np.arange(6) - 1) % 6], axis=1))
    items = np.array([0, 3, 1])
    assert np.array_equal(graph.related(items, items), [[True, False, True], [False, True, False], [True, False, True]])


CODES = torch.tensor(
    [[0.9, -0.8, 0.1, -0.6], [0.5, 0.5, -0.9, -0.2], [-0.7, 0.3, 0.4, 0.95], [0.25, -0.15, 0.6, -1.0]]
).double()


def apart(*edges: tuple[int, int]) -> torch.Tensor:
    mask = torch.ones(4, 4, dtype=torch.bool)
    for edge in edges:
        mask[edge] = False
    return mask


def test_permgnn_sums_have_the_reference_values() -> None:
    assert float(neural.item_balance(CODES)) == pytest.approx(1.75)
    assert float(fence(CODES)) == pytest.approx(7.15)
    assert float(neural.collision(CODES, apart((0, 1)))) == pytest.approx(8.83)
    assert float(neural.collision(CODES, apart((0, 1), (1, 0)))) == pytest.approx(8.75)


@pytest.mark.parametrize(
    ("edges", "balance", "fence", "total"),
    [
        ([(0, 1)], 0.01, 0.01, 0.5630875),
        ([(0, 1), (1, 0)], 0.01, 0.01, 0.5581875),
        ([(0, 1), (1, 0)], 0.3, 0.3, 0.88625),
    ],
)
def test_permgnn_totals_have_the_reference_values(
    edges: list[tuple[int, int]], balance: float, fence: float, total: float
) -> None:
    terms = neural.permgnn(CODES, apart(*edges), balance, fence)
    assert float(sum(terms.values())) == pytest.approx(total)
