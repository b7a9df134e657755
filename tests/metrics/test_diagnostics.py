"""Bit diagnostics on codes small enough to work out, and against NumPy's own statistics."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lshbench.metrics import diagnostics
from lshbench.metrics.diagnostics import (
    bit_correlation,
    bucket_sizes,
    diagnose,
    quantisation_loss,
)
from lshbench.types import Codes


def codes_of(bits) -> Codes:
    bits = np.array(bits, np.uint8)
    return Codes(np.packbits(bits, axis=1), bits.shape[1])


# Bit 0 is balanced, bit 1 equals it, bit 2 is set once in four, bit 3 is constant.
WORKED = codes_of([[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1]])


def test_worked_example() -> None:
    figures = diagnose(WORKED, np.array([[3.0, -1.0], [1.0, -3.0]], np.float32))
    assert figures["bit_balance"] == pytest.approx((0 + 0 + 1 / 2 + 1) / 4)
    assert figures["constant_bits"] == 1
    # Pairs of bits 0, 1 and 2; bit 2 has covariance -1/8 with either, and deviations 1/2 and sqrt(3)/4.
    assert figures["bit_correlation"] == pytest.approx((1 + 2 / math.sqrt(3) / 2 + 2 / math.sqrt(3) / 2) / 3)
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert figures["entropy_bits"] == pytest.approx(1 + 1 + quarter)
    assert figures["code_entropy_bits"] == pytest.approx(0.25 * 2 + 0.25 * 2 + 0.5 * 1)
    assert figures["distinct_codes"] == 3
    # Sizes 1, 1, 2: mean absolute difference 4 of 9 ordered pairs, over twice the mean of 4/3.
    assert figures["buckets"] == {
        "occupied": 3,
        "largest": 2,
        "mean": pytest.approx(4 / 3),
        "seen": pytest.approx((1 + 1 + 4) / 4),
        "singletons": 2,
        "gini": pytest.approx((4 / 9) / (2 * 4 / 3)),
    }
    scale = math.sqrt(5)
    assert figures["quantisation_loss"] == pytest.approx(((3 / scale - 1) ** 2 + (1 / scale - 1) ** 2) / 2)
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize("bits", [1, 7, 64, 65, 130])
def test_figures_agree_with_numpy_whatever_the_length_and_the_chunks(bits: int, monkeypatch) -> None:
    monkeypatch.setattr(diagnostics, "CELLS", 500)
    generator = np.random.default_rng(bits)
    table = (generator.random((300, bits)) < generator.uniform(0.1, 0.9, bits)).astype(np.uint8)
    table[::3] = table[0]
    figures = diagnose(codes_of(table))
    share = table.mean(axis=0)
    assert figures["bit_balance"] == pytest.approx(np.abs(2 * share - 1).mean())
    assert figures["entropy_bits"] == pytest.approx(-(share * np.log2(share) + (1 - share) * np.log2(1 - share)).sum())
    sizes = np.sort(np.unique(table, axis=0, return_counts=True)[1])
    np.testing.assert_array_equal(bucket_sizes(codes_of(table)), sizes)
    if bits == 1:
        assert figures["bit_correlation"] is None
    else:
        matrix = np.abs(np.corrcoef(table.T))
        assert figures["bit_correlation"] == pytest.approx(matrix[np.triu_indices(bits, 1)].mean())


def test_constant_codes_have_no_correlation_and_no_entropy() -> None:
    figures = diagnose(codes_of(np.ones((5, 3))))
    assert figures["bit_correlation"] is None
    assert (figures["bit_balance"], figures["entropy_bits"], figures["code_entropy_bits"]) == (1.0, 0.0, 0.0)
    assert (figures["distinct_codes"], figures["constant_bits"]) == (1, 3)
    assert figures["buckets"]["gini"] == 0.0


def test_no_codes_have_no_figures() -> None:
    figures = diagnose(Codes(np.empty((0, 1), np.uint8), 8))
    assert figures["bit_balance"] is None
    assert figures["distinct_codes"] == 0


def test_correlation_of_very_much_work_is_estimated_from_a_seeded_sample(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    first = generator.random(20_000) < 0.5
    second = first ^ (generator.random(20_000) < 0.1)
    codes = codes_of(np.stack([first, second], axis=1))
    exact = bit_correlation(codes)
    monkeypatch.setattr(diagnostics, "CORRELATION_WORK", 4 * 4000)
    sampled = bit_correlation(codes, seed=1)
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=0.03)
    assert sampled == bit_correlation(codes, seed=1)


def test_quantisation_loss_is_0_for_equal_magnitudes_and_known_for_gaussians() -> None:
    assert quantisation_loss(np.array([[2.0, -2.0], [-2.0, 2.0]])) == 0.0
    assert quantisation_loss(np.zeros((3, 2))) == 1.0
    gaussian = np.random.default_rng(0).normal(0, 7, (4000, 50)).astype(np.float32)
    assert quantisation_loss(gaussian) == pytest.approx(2 - 2 * math.sqrt(2 / math.pi), abs=0.01)
