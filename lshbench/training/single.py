"""Layers in evaluation mode for one item alone, computed by NumPy.

torch takes longer to start each operation than it takes for a single item: this is two to three times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor, nn

from lshbench.training.heads import SMALLEST, Standardise

Step = Callable[[np.ndarray], np.ndarray]
"""What a layer does: from the numbers of one item, float32 ``(d,)``, to others."""

ONE, HALF, INVERSE_ROOT_OF_TWO = np.float32(1), np.float32(0.5), np.float32(0.5**0.5)


@dataclass
class Linear:
    """A linear layer, with the batch normalisation behind it, if any, folded in."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        product = self.weight @ x
        product += self.bias
        return product


def for_one_item(layers: Iterable[nn.Module]) -> Step:
    """Return what layers in evaluation mode do, on a CPU; torch does what isn't known here.

    Their weights must not change afterwards: some are copied, others shared.
    """
    steps: list[Step] = []
    for layer in layers:
        match layer:
            case nn.Dropout():
                pass
            case Standardise():
                steps.append(standardising(layer))
            case nn.GELU(approximate="none"):
                steps.append(_gelu)
            case nn.ReLU():
                steps.append(_relu)
            case nn.Linear():
                bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
                steps.append(Linear(numbers_of(layer.weight), numbers_of(bias)))
            case nn.BatchNorm1d(affine=True, track_running_stats=True) if steps and isinstance(
                before := steps[-1], Linear
            ):
                scale, offset = map(numbers_of, scale_and_offset(layer, torch.from_numpy(before.bias)))
                steps[-1] = Linear(before.weight * scale[:, None], offset)
            case _:
                steps.append(_by_torch(layer))

    def run(x: np.ndarray) -> np.ndarray:
        for step in steps:
            x = step(x)
        return x

    return run


def scale_and_offset(norm: nn.BatchNorm1d, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the products of a layer with a bias are multiplied by, and what is added then, each ``(d,)``.

    Args:
        norm: the batch normalisation behind the layer, in evaluation mode.
        bias: the layer's.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, (bias - norm.running_mean) * scale + norm.bias


def numbers_of(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers in order of rows, in the same memory where they lie so."""
    return np.ascontiguousarray(tensor.detach().numpy())


def standardising(layer: Standardise) -> Step:
    """Return the step of a :class:`lshbench.training.heads.Standardise`."""
    mean, inverse_deviation = numbers_of(layer.mean), numbers_of(layer.inverse_deviation)
    rooted, clip, smallest = bool(layer.rooted), np.float32(layer.clip), np.float32(SMALLEST)

    def standardise(x: np.ndarray) -> np.ndarray:
        standard = np.sqrt(np.maximum(x, smallest)) if rooted else x
        standard = standard - mean
        standard *= inverse_deviation
        np.maximum(standard, -clip, out=standard)
        return np.minimum(standard, clip, out=standard)

    return standardise


def _by_torch(layer: nn.Module) -> Step:
    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return layer(torch.from_numpy(x)[None])[0].numpy()

    return run


def _gelu(x: np.ndarray) -> np.ndarray:
    share = x * INVERSE_ROOT_OF_TWO
    erf(share, out=share)
    share += ONE
    share *= x
    share *= HALF
    return share


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, np.float32(0))
