"""Shorter precisions keep what their rounding would cost most."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lshbench.features.precision import rounded, shorten

SHORT = st.sampled_from([torch.bfloat16, torch.float16])


def test_a_row_whose_sum_rounding_would_change_is_rounded_to_keep_it() -> None:
    # In bfloat16 neighbours of 1 are 1/128 apart: both 1.003 would become 1, and the row's sum 0 in place of .006.
    weights = torch.tensor([[1.003, 1.003, -2.0]])
    assert float(weights.bfloat16().float().sum()) == 0.0
    kept = rounded(weights, torch.bfloat16).float()
    assert kept.tolist() == [[1.0078125, 1.0, -2.0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40), SHORT)
@settings(max_examples=60, deadline=None)
def test_each_weight_goes_to_a_neighbour_and_each_sum_comes_nearer(
    seed: int, rows: int, taps: int, dtype: torch.dtype
) -> None:
    exact = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, taps, 1, 1)).astype(np.float32))
    found, nearest = rounded(exact, dtype), exact.to(dtype)
    assert found.shape == exact.shape
    assert found.dtype == dtype
    away = torch.where(exact > nearest.float(), torch.inf, -torch.inf).to(dtype)
    assert bool(((found == nearest) | (found == torch.nextafter(nearest, away))).all())
    error, before = ((x.double() - exact.double()).sum((1, 2, 3)).abs() for x in (found, nearest))
    assert bool((error <= before).all())


def test_weights_that_need_no_rounding_stay() -> None:
    exact = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    assert torch.equal(rounded(exact, torch.bfloat16).float(), exact)


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit", "resnet10t"])
def test_a_shorter_network_is_near_the_one_it_was(model: str) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=0).eval().requires_grad_(False)
    images = torch.randn(4, 3, 64, 64) if model != "test_vit" else torch.randn(4, 3, 160, 160)
    exact = network(images)
    shorten(network, torch.bfloat16)
    kinds = {value.dtype for value in network.parameters()}
    assert kinds == ({torch.float32, torch.bfloat16} if model == "test_efficientnet" else {torch.bfloat16})
    short = network(images.to(next(network.parameters()).dtype))
    assert short.dtype == torch.bfloat16
    assert float(nn.functional.cosine_similarity(exact, short.float()).min()) > 0.995


def test_float32_is_left_as_it_is() -> None:
    network = nn.Conv2d(3, 4, 3)
    before = network.weight.clone()
    shorten(network, torch.float32)
    assert torch.equal(network.weight, before)
