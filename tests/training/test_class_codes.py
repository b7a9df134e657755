"""Fixed codes of classes: distances, similar classes, what is done where there are too few codes, and several classes
an item."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lshbench.errors import UsageError
from lshbench.methods.dpn import Dpn
from lshbench.training.class_codes import (
    bernoulli_codes,
    class_codes,
    class_similarity,
    item_codes,
    memberships,
    similar_codes,
    target_codes,
)
from lshbench.training.data import TrainingData
from lshbench.types import Features
from tests.options import head, training


def distances(codes: torch.Tensor) -> set[int]:
    return {int((a != b).sum()) for a, b in itertools.combinations(codes, 2)}


@pytest.mark.parametrize(("classes", "bits"), [(10, 64), (64, 64), (2, 2), (100, 128)])
def test_hadamard_codes_differ_in_half_of_their_bits(classes: int, bits: int) -> None:
    codes = class_codes("hadamard", classes, bits, seed=0)
    assert codes.dtype == torch.float32
    assert codes.shape == (classes, bits)
    assert distances(codes) == {bits // 2}


def test_beyond_bits_classes_opposite_codes_are_taken_too() -> None:
    assert distances(class_codes("hadamard", 100, 64, seed=0)) == {32, 64}
    assert distances(class_codes("hadamard", 128, 64, seed=0)) == {32, 64}
    assert distances(class_codes("hadamard", 2, 1, seed=0)) == {1}


@pytest.mark.parametrize(("classes", "bits"), [(10, 48), (129, 64), (1000, 48)])
def test_where_there_is_no_hadamard_matrix_codes_are_random(classes: int, bits: int) -> None:
    codes = class_codes("hadamard", classes, bits, seed=0)
    assert torch.equal(codes, class_codes("bernoulli", classes, bits, seed=0))
    assert set(codes.unique().tolist()) == {-1, 1}
    assert abs(float(codes.mean())) < 0.15
    assert 0 not in distances(codes[:100])


@pytest.mark.parametrize(("classes", "bits"), [(10, 3), (8, 3), (7, 3), (5, 1), (1, 1), (1, 4096)])
def test_random_codes_are_distinct_as_long_as_there_are_any(classes: int, bits: int) -> None:
    codes = bernoulli_codes(classes, bits, np.random.default_rng(0))
    assert codes.shape == (classes, bits)
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    assert len(counts) == min(classes, 2**bits)
    assert counts.max() - counts.min() <= 1


def test_a_seed_decides_the_codes() -> None:
    for targets in ("hadamard", "bernoulli"):
        first = class_codes(targets, 10, 64, seed=0)
        assert torch.equal(first, class_codes(targets, 10, 64, seed=0))
        assert not torch.equal(first, class_codes(targets, 10, 64, seed=1))


def test_another_kind_of_codes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"method\.targets='random': expected hadamard, bernoulli or similar"):
        Dpn(bits=8, seed=0, device="cpu", head=head(), training=training(), targets="random", margin=1.0)


def test_items_take_their_classs_code_or_the_majority_of_several() -> None:
    codes = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [1.0, -1.0, 1.0]])
    ties = torch.tensor([-1.0, 1.0, -1.0])
    single = memberships(torch.tensor([2, 0]), 3)
    assert single.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert torch.equal(item_codes(single, codes, ties), codes[[2, 0]])
    several = memberships(torch.tensor([[True, True, True], [True, True, False], [False, False, False]]), 3)
    assert item_codes(several, codes, ties).tolist() == [[1, -1, -1], [1, 1, -1], [-1, 1, -1]]


def cost(codes: np.ndarray, similarity: np.ndarray) -> float:
    """What similar_codes brings down, pair by pair."""
    total = 0.0
    for first, second in itertools.combinations(range(len(codes)), 2):
        product = float(np.mean(codes[first] * codes[second]))
        total += (product - 0.5 * similarity[first, second]) ** 2 + 4 * max(0.0, product - 0.5) ** 2
    return total


@given(classes=st.integers(1, 7), bits=st.integers(1, 9), seed=st.integers(0, 99))
def test_no_flip_of_a_single_bit_makes_similar_codes_better(classes: int, bits: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    means = generator.standard_normal((classes, 3))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    drawn = bernoulli_codes(classes, bits, generator)
    similarity = means @ means.T
    codes = similar_codes(drawn, similarity)
    assert codes.shape == drawn.shape
    assert set(np.unique(codes).tolist()) <= {-1, 1}
    least = cost(codes, similarity)
    assert least <= cost(drawn, similarity) + 1e-9
    for place in np.ndindex(*codes.shape):
        flipped = codes.copy()
        flipped[place] *= -1
        assert cost(flipped, similarity) >= least - 1e-9


def grouped(pairs: int, items: int, dim: int = 32) -> Features:
    """Classes in pairs that lie near each other, 2k and 2k + 1, far from the other pairs."""
    generator = np.random.default_rng(0)
    centers = np.repeat(4 * generator.standard_normal((pairs, dim)), 2, axis=0)
    centers += generator.standard_normal(centers.shape)
    y = np.arange(2 * pairs * items) % (2 * pairs)
    return Features((centers[y] + generator.standard_normal((len(y), dim))).astype(np.float32), y, np.arange(len(y)))


@pytest.mark.parametrize("bits", [16, 64])
@pytest.mark.parametrize("several", [False, True])
def test_codes_of_similar_classes_are_near_but_a_quarter_of_their_bits_apart(bits: int, several: bool) -> None:
    items = grouped(pairs=8, items=20)
    if several:
        items = replace(items, y=np.eye(16, dtype=bool)[items.y])
    data = TrainingData(items, training(validation=0), 0, torch.device("cpu"))
    codes = target_codes("similar", data, bits, seed=0)
    assert codes.dtype == torch.float32
    apart = torch.cdist(codes, codes, p=1) / 2
    partners = torch.arange(16) ^ 1
    own = apart[torch.arange(16), partners]
    others = apart[~torch.eye(16, dtype=torch.bool) & (torch.arange(16)[:, None] != partners)]
    assert float(own.mean()) < 0.36 * bits
    assert float(own.min()) >= bits / 4 - 1
    assert float(others.mean()) > 0.49 * bits


def test_similar_codes_need_a_similarity() -> None:
    with pytest.raises(ValueError, match="need one"):
        class_codes("similar", 4, 16, seed=0)


def test_too_many_classes_for_similar_codes_get_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData(grouped(pairs=2, items=20), training(validation=0), 0, torch.device("cpu"))
    similar = target_codes("similar", data, 16, seed=0)
    monkeypatch.setattr("lshbench.training.class_codes.MOST_SIMILAR", 3)
    drawn = target_codes("similar", data, 16, seed=0)
    assert torch.equal(drawn, class_codes("bernoulli", 4, 16, seed=0))
    assert not torch.equal(drawn, similar)


def test_a_class_without_items_is_similar_to_none() -> None:
    items = grouped(pairs=2, items=20)
    labels = np.zeros((len(items), 5), bool)
    labels[np.arange(len(items)), items.y] = True
    data = TrainingData(replace(items, y=labels), training(validation=0), 0, torch.device("cpu"))
    similarity = class_similarity(data, seed=0)
    assert similarity.shape == (5, 5)
    assert similarity[0, 1] > 0.5 > similarity[0, 2]
    assert not similarity[4].any()
    np.testing.assert_allclose(similarity[:4, :4].diagonal(), 1)
