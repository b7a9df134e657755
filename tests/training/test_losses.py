"""Losses against hand-worked and independently computed values."""

from __future__ import annotations

import math

import pytest
import torch

from lshbench.training import losses

CODES = torch.tensor(
    [[0.9, -0.8, 0.1, -0.6], [0.5, 0.5, -0.9, -0.2], [-0.7, 0.3, 0.4, 0.95], [0.25, -0.15, 0.6, -1.0]]
).double()
COSINES = torch.tensor([0.8, 0.45, -0.3, 0.4]).double()
TARGETS = torch.tensor([1.0, 0.0, 0.0, 1.0]).double()


def apart(*edges: tuple[int, int]) -> torch.Tensor:
    mask = torch.ones(4, 4, dtype=torch.bool)
    for edge in edges:
        mask[edge] = False
    return mask


def test_permgnn_sums_have_the_reference_values() -> None:
    assert float(losses.item_balance(CODES)) == pytest.approx(1.75)
    assert float(losses.fence(CODES)) == pytest.approx(7.15)
    assert float(losses.collision(CODES, apart((0, 1)))) == pytest.approx(8.83)
    assert float(losses.collision(CODES, apart((0, 1), (1, 0)))) == pytest.approx(8.75)


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
    terms = losses.permgnn(CODES, apart(*edges), balance, fence)
    assert float(sum(terms.values())) == pytest.approx(total)


def test_reduction_losses_have_the_reference_values() -> None:
    assert float(losses.cosine_cross_entropy(COSINES, TARGETS)) == pytest.approx(0.5459506392511446)
    assert float(losses.cosine_squares(COSINES, TARGETS)) == pytest.approx(0.748125)
    assert float(losses.pairwise_ranking(COSINES, TARGETS)) == pytest.approx(0.025)
    assert float(losses.pairwise_ranking(COSINES, torch.ones(4))) == 0, "one class has no irrelevant pairs"


def test_cross_entropy_survives_a_cosine_that_rounding_pushed_past_one() -> None:
    assert math.isfinite(float(losses.cosine_cross_entropy(torch.tensor([1.0000001]), torch.tensor([1.0]))))


def test_query_agnostic_terms_have_the_reference_values() -> None:
    assert float(losses.bit_balance(CODES)) == pytest.approx(0.134375)
    assert float(losses.decorrelation(CODES)) == pytest.approx(0.3184375)
    assert float(losses.mean_fence(CODES)) == pytest.approx(0.446875)
    assert float(sum(losses.query_agnostic(CODES, 0.1, 0.1).values())) == pytest.approx(0.18403125)
    assert float(sum(losses.query_agnostic(CODES, 0.1, 0.8).values())) == pytest.approx(0.312875)


@pytest.mark.parametrize(("ranking_weight", "total"), [(0.05, 0.315078125), (0.65, 0.522265625)])
def test_query_aware_terms_have_the_reference_values(ranking_weight: float, total: float) -> None:
    query = torch.tensor([0.6, -0.4, 0.9, 0.2]).double()
    relevant = torch.tensor([True, False, True, False])
    assert float(losses.code_ranking(query, CODES[relevant], CODES[~relevant])) == pytest.approx(0.625)
    terms = losses.query_aware(query, CODES, relevant, 0.1, ranking_weight)
    assert float(terms["fence"]) == pytest.approx(0.1 * 0.4609375)
    assert float(sum(terms.values())) == pytest.approx(total)


def test_contrastive_loss_is_the_mean_surprise_of_the_relevant() -> None:
    codes = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, 1.0]])
    relevant = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    # Items 0 and 1 choose between each other (product 1 after division) and item 2 (product 0) at
    # temperature 1/2; item 2 has nobody to find and counts as 0.
    expected = 2 * -math.log(math.exp(2) / (math.exp(2) + 1)) / 3
    assert float(losses.contrastive(codes, codes, relevant, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_paired_contrastive_loss_counts_the_item_on_the_same_row() -> None:
    codes = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(-2)))
    assert float(losses.contrastive(codes, codes, torch.eye(2), 0.5, paired=True)) == pytest.approx(expected, rel=1e-5)


def test_class_softmax_takes_the_margin_from_the_target_only() -> None:
    class_codes = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    target = torch.tensor([[1.0, 0.0]])
    expected = -math.log(math.exp(2 * 0.8) / (math.exp(2 * 0.8) + 1))
    loss = losses.class_softmax(torch.tensor([[3.0, 3.0]]), class_codes, target, margin=0.2, scale=2.0)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_geometry_is_least_for_codes_that_rank_as_the_features_do() -> None:
    features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0], [-1.0, 0.2]])
    alike = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    unlike = alike[[0, 2, 1, 3]]
    assert float(losses.geometry(alike, alike, features, 0.5, 0.1)) < 0.1
    assert float(losses.geometry(unlike, unlike, features, 0.5, 0.1)) > 1
