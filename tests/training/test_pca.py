"""Principal components: against scikit-learn, from memory maps, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA as ReferencePCA

from lshbench.errors import UsageError
from lshbench.training import pca as reduction
from lshbench.training.pca import PCA, column_moments, principal_axes


def features(items: int = 300, columns: int = 20, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    scales = np.linspace(3, 0.1, columns)
    mixed = (generator.standard_normal((items, columns)) * scales) @ generator.standard_normal((columns, columns))
    return (mixed + generator.uniform(5, 9, columns)).astype(np.float32)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("items", "columns"), [(300, 20), (12, 40)], ids=["covariance", "gram"])
def test_components_are_those_of_scikit_learn(items: int, columns: int, whiten: bool) -> None:
    x = features(items, columns)
    reference = ReferencePCA(5, whiten=whiten, svd_solver="full").fit(x.astype(np.float64))
    ours = PCA(5, whiten=whiten, seed=0).fit(x)
    expected = reference.transform(x)
    expected *= np.sign((expected * ours.transform(x)).sum(axis=0))
    np.testing.assert_allclose(ours.transform(x), expected, atol=1e-3)
    np.testing.assert_allclose(principal_axes(x, 5).variance, reference.explained_variance_, rtol=1e-5)


@pytest.mark.parametrize("fraction", [0.3, 0.8, 0.95, 0.999])
def test_a_fraction_keeps_as_many_components_as_scikit_learn_does(fraction: float) -> None:
    x = features()
    reference = ReferencePCA(fraction, svd_solver="full").fit(x.astype(np.float64))
    assert PCA(fraction).fit(x).transform(x).shape == (300, reference.n_components_)


def test_statistics_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features()
    whole = principal_axes(x, 6, standardize=True)
    means, deviations = column_moments(x)
    monkeypatch.setattr(reduction, "BLOCK_ROWS", 7)
    blocks = principal_axes(x, 6, standardize=True)
    np.testing.assert_allclose(blocks.weight, whole.weight, atol=1e-5)
    np.testing.assert_allclose(column_moments(x), (means, deviations), rtol=1e-9)
    np.testing.assert_allclose((means, deviations), (x.mean(0, np.float64), x.std(0, dtype=np.float64)), rtol=1e-6)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    x = np.random.default_rng(0).integers(0, 8, (500, 3)).astype(np.float32) + np.float32(2**20)
    np.testing.assert_allclose(column_moments(x)[1], x.std(axis=0, dtype=np.float64), rtol=1e-9)


def test_the_entry_of_largest_magnitude_of_every_axis_is_positive() -> None:
    for seed in range(5):
        weight = principal_axes(features(seed=seed)).weight
        assert (weight[np.abs(weight).argmax(axis=0), np.arange(weight.shape[1])] > 0).all()


def test_axes_are_orthonormal_even_where_there_is_no_variance() -> None:
    for x in (features(12, 40), features(40, 12), np.repeat(features(4, 30), 3, axis=0)):
        axes = principal_axes(x)
        np.testing.assert_allclose(axes.weight.T @ axes.weight, np.eye(len(axes.variance)), atol=1e-5)


def test_standardised_axes_ignore_the_scale_of_columns_and_leave_constant_ones_out() -> None:
    x = features()
    stretched = x * np.float32([1, 100, 0.01, *[1] * 17])
    first, second = principal_axes(x, 4, standardize=True), principal_axes(stretched, 4, standardize=True)
    np.testing.assert_allclose(
        (x - first.mean) @ first.weight, (stretched - second.mean) @ second.weight, rtol=1e-2, atol=1e-3
    )
    constant = np.concatenate([x, np.full((300, 1), 0.1, np.float32)], axis=1)
    axes = principal_axes(constant, 4, standardize=True)
    assert (axes.weight[-1] == 0).all()
    assert np.isfinite(axes.weight).all()


def test_whitening_gives_unit_variance_and_nothing_where_there_is_none() -> None:
    x = np.repeat(features(4, 30), 3, axis=0)
    reduced = PCA(6, whiten=True).fit(x).transform(x)
    np.testing.assert_allclose(reduced.std(axis=0, ddof=1)[:3], 1, rtol=1e-4)
    assert (reduced[:, 3:] == 0).all()


def test_a_read_only_memory_map_is_reduced_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = features()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = PCA(4).fit(x).transform(x)
    monkeypatch.setattr(reduction, "BLOCK_ROWS", 64)
    reduced = PCA(4).fit(mapped).transform(mapped)
    assert reduced.dtype == np.float32
    assert reduced.flags.c_contiguous
    np.testing.assert_allclose(reduced, whole, atol=1e-3)


def test_a_restored_reduction_gives_the_same_components() -> None:
    x = features()
    fitted = PCA(0.9, whiten=True).fit(x)
    state = {name: array.copy() for name, array in fitted.state().items()}
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in state.values())
    np.testing.assert_array_equal(PCA(0.9, whiten=True).restore(state).transform(x), fitted.transform(x))


@pytest.mark.parametrize("dim", [0, -3, 0.0, 1.0, 1.5, 64.0, True, "many", float("nan")])
def test_a_dimension_that_means_nothing_is_refused_at_once(dim: object) -> None:
    with pytest.raises(UsageError, match=r"pca\.dim=.*expected a number of components .*, a fraction"):
        PCA(dim)  # type: ignore[arg-type]


def test_more_components_than_there_can_be_are_refused_with_what_is_possible() -> None:
    with pytest.raises(UsageError, match=r"pca\.dim=21: expected at most 20: 300 training items of 20 numbers"):
        PCA(21).fit(features())
    with pytest.raises(UsageError, match=r"pca\.dim=13: expected at most 12: 12 training items of 40 numbers"):
        PCA(13).fit(features(12, 40))


def test_features_that_do_not_vary_are_refused() -> None:
    with pytest.raises(UsageError, match="all the same features"):
        PCA(0.95).fit(np.full((50, 4), 0.1, np.float32))
