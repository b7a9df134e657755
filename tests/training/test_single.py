"""One item alone by NumPy, against the layers themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lshbench.training.heads import Head, Standardise
from lshbench.training.single import for_one_item


class Doubled(nn.Module):
    """A layer that NumPy's part doesn't know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def layers_of(hidden: list[int], batch_norm: bool, activation: str, positive: bool) -> nn.Sequential:
    generator = np.random.default_rng(len(hidden))
    x = generator.normal(size=(300, 20)).astype(np.float32)
    head = Head(hidden=hidden, batch_norm=batch_norm, activation=activation, dropout=0.5)
    layers = nn.Sequential(Standardise(20), *head.build(20, 9))
    layers[0].learn(np.abs(x) if positive else x)
    layers.train()
    for _ in range(3):  # statistics of the batch normalisations
        layers(torch.from_numpy(np.abs(x)))
    return layers.eval()


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("hidden", [[], [16], [16, 8]])
def test_one_item_has_the_layers_outputs(hidden: list[int], batch_norm: bool, activation: str, positive: bool) -> None:
    layers = layers_of(hidden, batch_norm, activation, positive)
    items = np.random.default_rng(5).normal(size=(40, 20), scale=4).astype(np.float32)
    items[0] *= 1e4  # clipped
    items[1] = 0
    with torch.inference_mode():
        expected = layers(torch.from_numpy(items)).numpy()
    single = for_one_item(layers)
    for item, wanted in zip(items, expected, strict=True):
        before = item.copy()
        found = single(item)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(item, before)


def test_a_batch_normalisation_behind_the_last_layer_is_part_of_it() -> None:
    layers = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 3
    layers(x)
    with torch.inference_mode():
        expected = layers.eval()(x[:1])[0].numpy()
    np.testing.assert_allclose(for_one_item(layers)(x[0].numpy()), expected, rtol=1e-5, atol=1e-5)


def test_torch_does_what_is_not_known() -> None:
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(torch.tensor([0.5, 3.0]))
    layers = nn.Sequential(nn.Linear(3, 2), Doubled(), norm, nn.GELU(approximate="tanh")).eval()
    x = np.array([1, -2, 3], np.float32)
    with torch.inference_mode():
        expected = layers(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(for_one_item(layers)(x), expected, rtol=1e-6)


def test_what_is_not_finite_stays_so() -> None:
    layers = layers_of([8], True, "gelu", True)
    assert np.isnan(for_one_item(layers)(np.full(20, np.nan, np.float32))).all()
