"""Shared losses against hand-worked values."""

from __future__ import annotations

import math

import pytest
import torch

from lshbench.training import losses


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
