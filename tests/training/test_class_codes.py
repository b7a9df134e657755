"""Fixed codes of classes: distances, what is done where there are too few codes, and several classes an item."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lshbench.errors import UsageError
from lshbench.methods.dpn import Dpn
from lshbench.training.class_codes import bernoulli_codes, class_codes, item_codes, memberships
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
    with pytest.raises(UsageError, match=r"method\.targets='random': expected hadamard or bernoulli"):
        Dpn(bits=8, seed=0, device="cpu", head=head(), training=training(), targets="random", margin=1.0)


def test_items_take_their_classs_code_or_the_majority_of_several() -> None:
    codes = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [1.0, -1.0, 1.0]])
    ties = torch.tensor([-1.0, 1.0, -1.0])
    single = memberships(torch.tensor([2, 0]), 3)
    assert single.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert torch.equal(item_codes(single, codes, ties), codes[[2, 0]])
    several = memberships(torch.tensor([[True, True, True], [True, True, False], [False, False, False]]), 3)
    assert item_codes(several, codes, ties).tolist() == [[1, -1, -1], [1, 1, -1], [-1, 1, -1]]
