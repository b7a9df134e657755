"""Layers that train faster: what is rounded, when, and how much is dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lshbench.methods.fourier.map import MapLayer
from lshbench.training.heads import Standardise
from lshbench.training.layers import Dropout, HiddenLinear, products_in
from tests.options import head


def test_products_are_short_in_training_within_the_block_only() -> None:
    layer, x = HiddenLinear(40, 8), torch.randn(5, 40)
    exact = functional.linear(x, layer.weight, layer.bias)
    with products_in("bfloat16", nn.Sequential(layer)):
        short = layer(x)
        assert torch.equal(layer.eval()(x), exact)
        layer.train()
    assert short.dtype == torch.float32
    assert not torch.equal(short, exact)
    assert torch.allclose(short, exact, atol=0.05)
    assert torch.equal(layer(x), exact)
    with products_in("float32", layer):
        assert torch.equal(layer(x), exact)


def test_gradients_of_short_products_are_float32_and_close() -> None:
    layer, x = HiddenLinear(40, 8, bias=False), torch.randn(64, 40)
    layer(x).square().mean().backward()
    exact, layer.weight.grad = layer.weight.grad, None
    with products_in("bfloat16", layer):
        layer(x).square().mean().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert torch.allclose(layer.weight.grad, exact, atol=0.02 * float(exact.abs().max()))


def test_all_but_a_heads_last_layer_may_be_short() -> None:
    linear = [layer for layer in head(hidden=[4, 3]).build(5, 2) if isinstance(layer, nn.Linear)]
    assert [isinstance(layer, HiddenLinear) for layer in linear] == [True, True, False]
    assert issubclass(MapLayer, nn.Linear)
    with products_in("bfloat16", layer := MapLayer(8, 2)):
        assert layer.short


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.999999])
def test_dropout_drops_its_part_and_keeps_the_mean(part: float) -> None:
    torch.manual_seed(0)
    layer, x = Dropout(part), torch.ones(1000, 333, requires_grad=True)
    dropped = layer(x)
    assert float((dropped == 0).float().mean()) == pytest.approx(part, abs=0.003)
    assert torch.equal(layer.eval()(x), x)
    if part < 0.9:
        assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.01)
        assert float(dropped.detach().max()) == pytest.approx(1 / (1 - part), rel=1e-4)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)


def test_features_that_are_never_negative_enter_by_their_square_root() -> None:
    x = np.random.default_rng(0).gamma(0.5, size=(500, 3)).astype(np.float32)
    standardise = Standardise(3)
    standardise.learn(x)
    roots = np.sqrt(x.astype(float))
    expected = (roots - roots.mean(0)) / roots.std(0)
    assert np.allclose(standardise(torch.tensor(x)).numpy(), expected, atol=1e-4)
    # A query below 0 counts as 0.
    assert torch.equal(standardise(torch.full((1, 3), -1.0)), standardise(torch.zeros(1, 3)))
    standardise.learn(x - 1)
    assert np.allclose(standardise(torch.tensor(x - 1)).numpy(), (x - x.mean(0)) / x.std(0), atol=1e-4)
