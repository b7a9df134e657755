"""FourierHashNet's losses against hand-worked and independently computed values."""

from __future__ import annotations

import math

import pytest
import torch

from lshbench.methods.fourier import losses
from lshbench.training.losses import bit_balance, mean_fence

CODES = torch.tensor(
    [[0.9, -0.8, 0.1, -0.6], [0.5, 0.5, -0.9, -0.2], [-0.7, 0.3, 0.4, 0.95], [0.25, -0.15, 0.6, -1.0]]
).double()
COSINES = torch.tensor([0.8, 0.45, -0.3, 0.4]).double()
TARGETS = torch.tensor([1.0, 0.0, 0.0, 1.0]).double()


def test_reduction_losses_have_the_reference_values() -> None:
    assert float(losses.cosine_cross_entropy(COSINES, TARGETS)) == pytest.approx(0.5459506392511446)
    assert float(losses.cosine_squares(COSINES, TARGETS)) == pytest.approx(0.748125)
    assert float(losses.pairwise_ranking(COSINES, TARGETS)) == pytest.approx(0.025)
    assert float(losses.pairwise_ranking(COSINES, torch.ones(4))) == 0, "one class has no irrelevant pairs"


def test_cross_entropy_survives_a_cosine_that_rounding_pushed_past_one() -> None:
    assert math.isfinite(float(losses.cosine_cross_entropy(torch.tensor([1.0000001]), torch.tensor([1.0]))))


def test_query_agnostic_terms_have_the_reference_values() -> None:
    assert float(bit_balance(CODES)) == pytest.approx(0.134375)
    assert float(losses.decorrelation(CODES)) == pytest.approx(0.3184375)
    assert float(mean_fence(CODES)) == pytest.approx(0.446875)
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


def test_geometry_is_least_for_codes_that_rank_as_the_features_do() -> None:
    features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0], [-1.0, 0.2]])
    alike = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    unlike = alike[[0, 2, 1, 3]]
    assert float(losses.geometry(alike, alike, features, 0.5, 0.1)) < 0.1
    assert float(losses.geometry(unlike, unlike, features, 0.5, 0.1)) > 1


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_joined_vectors_have_the_weighted_means_of_both_cosines(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(7, width, generator=generator, dtype=torch.float64) for width in (3, 5))
    found = losses.joined(first, second, share)
    cosines = [torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=2) for x in (first, second)]
    torch.testing.assert_close(found @ found.T, share * cosines[0] + (1 - share) * cosines[1])
