"""How near items are by what is near them, too."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lshbench.errors import UsageError
from lshbench.training import neighbors
from lshbench.training.neighborhoods import Neighborhoods, fewer
from lshbench.training.neighbors import NeighborGraph, mutual, nearest_neighbors
from tests.methods.clusters import clusters, silent
from tests.options import make


def neighborhoods(x: np.ndarray, count: int, steps: Sequence[int], temperature: float = 0.1) -> Neighborhoods:
    unit = normalize(torch.tensor(x))
    return Neighborhoods(NeighborGraph(nearest_neighbors(unit, count, silent)), unit, steps, temperature)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("steps", [[0], [1], [0, 1, 3]])
def test_relevance_is_the_softmax_of_cosines_after_averaging_with_mutual_neighbours(
    steps: list[int], half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lshbench.training.neighborhoods.CELLS", 7 * 40)
    monkeypatch.setattr("lshbench.training.neighborhoods.COLUMNS", 4)
    monkeypatch.setattr("lshbench.training.neighborhoods.ROWS", 7)
    if half:  # as with very many items
        monkeypatch.setattr("lshbench.training.neighborhoods.HALF_BYTES", 0)
        monkeypatch.setattr("lshbench.training.neighborhoods.INDICES", 0)
    x = np.random.default_rng(0).normal(size=(40, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = nearest_neighbors(normalize(torch.tensor(x)), 5, silent)
    both_ways = mutual(nearest)
    weights = np.eye(40)
    for item in range(40):
        # Whoever has no mutual neighbour is averaged with its nearest.
        for other in nearest[item][both_ways[item]] if both_ways[item].any() else nearest[item][:1]:
            weights[item, other] = max(0.0, unit[item] @ unit[other]) ** 3
    weights /= weights.sum(1, keepdims=True)
    first, second = np.array([3, 0, 39]), np.array([1, 3, 8, 8, 20])
    cosines = []
    for step in steps:
        averages = np.linalg.matrix_power(weights, step) @ unit
        averages /= np.linalg.norm(averages, axis=1, keepdims=True)
        cosines.append(averages[first] @ averages[second].T)
    expected = np.exp(np.mean(cosines, axis=0) / 0.3)
    expected /= expected.sum(1, keepdims=True)
    found = neighborhoods(x, 5, steps, 0.3).relevance(first, second).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3 if half else 1e-12)


def test_averaging_brings_a_cluster_together() -> None:
    items = clusters(300, spread=2.0)
    same = torch.tensor(items.y[:, None] == items.y)
    shares = []
    for steps in ([0], [4]):
        unit = neighborhoods(items.x, 20, steps).unit
        nearest = (unit @ unit.T).fill_diagonal_(-1).topk(30).indices
        shares.append(float(same.gather(1, nearest).float().mean()))
    assert shares[1] > shares[0] + 0.05


def test_two_items_and_equal_ones_have_neighbourhoods() -> None:
    for x in (np.eye(2), np.ones((5, 3)), np.zeros((4, 3))):
        near = neighborhoods(x, 50, [2])
        assert torch.isfinite(near.unit).all()
        rows = np.arange(len(x))
        torch.testing.assert_close(near.relevance(rows, rows).sum(1), torch.ones(len(x), dtype=torch.float64))


def test_fewer_neighbours_are_looked_at_among_few_items() -> None:
    assert [fewer(50, items) for items in (10, 4_300, 10_000, 1_000_000)] == [20, 20, 25, 50]
    assert fewer(7, 10_000) == 7


@pytest.mark.parametrize("option", ["fourier_unsupervised", "neural_unsupervised"])
@pytest.mark.parametrize(("bits", "temperature"), [(16, 0.8), (64, 1.0)])
def test_auto_depends_on_the_length_of_the_code(option: str, bits: int, temperature: float) -> None:
    assert make(option, bits).in_effect()["temperature"] == temperature


@pytest.mark.parametrize(("bits", "temperature"), [(16, 0.5), (64, 1.0), (256, 1.0)])
def test_auto_leaves_short_codes_room_to_tell_classes_apart(bits: int, temperature: float) -> None:
    assert make("neural", bits).in_effect()["temperature"] == temperature


@pytest.mark.parametrize("option", ["fourier_unsupervised", "neural_unsupervised"])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"neighbors": 0}, "method.neighbors=0: expected at least 1"),
        ({"averagings": -1}, "method.averagings=-1: expected a whole number from 0 on"),
        ({"averagings": []}, r"method.averagings=\[\]"),
        ({"averagings": [0, 4, 4]}, r"method.averagings=\[0, 4, 4\]"),
        ({"averagings": ["0"]}, r"method.averagings=\['0'\]"),
        ({"relevance_temperature": 0}, "method.relevance_temperature=0: expected a positive number"),
        ({"temperature": "warm"}, "method.temperature='warm': expected a number, or auto"),
    ],
)
def test_a_wrong_key_is_named(option: str, keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        make(option, 8, **keys)


def test_of_many_items_an_index_finds_nearly_all_neighbours_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((40, 24)).repeat(50, axis=0) + 0.6 * generator.standard_normal((2000, 24))
    x[7] = x[3]  # a copy, which may come before the item itself
    unit = normalize(torch.tensor(x, dtype=torch.float32))
    exact = nearest_neighbors(unit, 10, silent)
    monkeypatch.setattr(neighbors, "EXACT_ITEMS", 1000)
    monkeypatch.setattr(neighbors, "CELL_ITEMS", 50)
    monkeypatch.setattr(neighbors, "PROBES", 8)
    with caplog.at_level(logging.INFO):
        found = nearest_neighbors(unit, 10, silent)
    assert not (found == np.arange(2000)[:, None]).any(), "an item is its own neighbour"
    shares = [len(np.intersect1d(one, other)) / 10 for one, other in zip(found, exact, strict=True)]
    assert np.mean(shares) > 0.97
    said = float(caplog.text.split("which finds ")[1].split(" %")[0])
    assert abs(said - 100 * np.mean(shares)) < 1


def test_where_few_are_looked_at_the_nearest_stands_for_those_that_are_not_there() -> None:
    unit = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [1.0, 0.1]]))
    found = neighbors._nearest_of(unit, range(2), [range(2), range(3, 4)], 3)
    assert found.tolist() == [[3, 1, 3], [3, 0, 3]]
    assert neighbors._nearest_of(unit, range(3, 4), [range(3, 4)], 2).tolist() == [[0, 0]]


@pytest.mark.parametrize("cells", [1, 400, 1 << 25])
@pytest.mark.parametrize("repeats", [False, True])
def test_mutual_neighbours_are_those_with_the_item_among_their_own(
    cells: int, repeats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "CELLS", cells)
    generator = np.random.default_rng(0)
    near = np.stack([generator.permutation(np.delete(np.arange(60), item))[:20] for item in range(60)])
    if repeats:
        near[:, -5:] = near[:, :1]  # as where too few are found
    expected = [[item in near[other] for other in near[item]] for item in range(60)]
    assert 0 < np.mean(expected) < 1
    assert mutual(near).tolist() == expected
