"""Iterative quantization: a case with a known answer, the paper's loop by SciPy, and faiss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import faiss
import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from lshbench.errors import UsageError
from lshbench.methods import itq
from lshbench.methods.itq import Itq
from lshbench.methods.linear import random_rotation
from lshbench.training.pca import principal_axes
from lshbench.types import Features


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def features(x: np.ndarray) -> Features:
    return Features(x.astype(np.float32), np.zeros(len(x), np.int64), np.arange(len(x)))


def clustered(count: int = 1500, dim: int = 20) -> Features:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((30, dim)) * np.linspace(3, 1, dim)
    return features(centres[generator.integers(30, size=count)] + generator.standard_normal((count, dim)) * 0.5 + 2)


def test_the_corners_of_a_turned_square_are_brought_back_to_its_corners() -> None:
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] * 25)
    turn = np.deg2rad(27)
    turned = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * 5 + 40
    method = Itq(bits=2).fit(features(turned), silent)
    assert method.history[-1].loss == pytest.approx(0, abs=1e-5)
    codes = method.encode(turned.astype(np.float32), "gallery").unpack()
    assert len({tuple(code) for code in codes[:4]}) == 4


def test_the_rotation_is_that_of_the_papers_loop() -> None:
    train = clustered()
    method = Itq(bits=8, seed=4, iterations=10).fit(train, silent)
    axes = principal_axes(train.x, 8)
    components = (train.x.astype(np.float64) - axes.mean) @ axes.weight
    rotation = random_rotation(8, np.random.default_rng(4))
    for _ in range(10):
        rotation, _ = orthogonal_procrustes(components, np.where(components @ rotation >= 0, 1, -1))
    np.testing.assert_allclose(axes.weight.T @ method.weight, rotation, atol=1e-3)


def test_the_quantisation_error_never_rises_and_is_below_faiss_own() -> None:
    train = clustered()
    method = Itq(bits=12).fit(train, silent)
    losses = np.array([epoch.loss for epoch in method.history])
    assert len(losses) == 50
    assert (np.diff(losses) <= 1e-6).all()
    axes = principal_axes(train.x, 12)
    components = (train.x - axes.mean) @ axes.weight
    components /= np.sqrt((components**2).mean())
    theirs = faiss.ITQMatrix(12)
    theirs.train(np.ascontiguousarray(components))
    rotation = faiss.vector_to_array(theirs.A).reshape(12, 12)
    for candidate in (rotation, rotation.T):
        assert losses[-1] <= ((np.sign(components @ candidate) - components @ candidate) ** 2).mean() + 1e-6


def test_blocks_change_nothing_and_a_part_of_the_items_gives_a_rotation_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = clustered()
    whole = Itq(bits=8, iterations=5).fit(train, silent)
    monkeypatch.setattr(itq, "ENCODE_ROWS", 100)
    np.testing.assert_allclose(Itq(bits=8, iterations=5).fit(train, silent).weight, whole.weight, atol=1e-4)
    part = Itq(bits=8, max_points=200).fit(train, silent)
    np.testing.assert_allclose(part.weight.T @ part.weight, np.eye(8), atol=1e-4)


@pytest.mark.parametrize(("key", "value"), [("iterations", 0), ("max_points", 0)])
def test_values_that_cannot_be_used_are_refused_at_once(key: str, value: int) -> None:
    with pytest.raises(UsageError, match=rf"method\.{key}=0: expected at least 1"):
        Itq(**{"bits": 8, key: value})


def test_more_bits_than_components_are_refused() -> None:
    with pytest.raises(UsageError, match="bits=21: expected at most 20"):
        Itq(bits=21).fit(clustered(), silent)
