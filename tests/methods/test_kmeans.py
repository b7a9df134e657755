"""k-means: against scikit-learn, brute force, and what it refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import faiss
import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.cluster import KMeans as ReferenceKMeans

import lshbench.commands.run  # noqa: F401  (registers the schema that the root configuration names)
from lshbench.config import build, conf_folder
from lshbench.errors import UsageError
from lshbench.index.base import Index
from lshbench.methods.kmeans import KMeans
from lshbench.system import build_index
from lshbench.types import Features


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def items(count: int = 800, seed: int = 0) -> Features:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((12, 16))[generator.integers(12, size=count)] * 3
    x = (x + generator.standard_normal((count, 16))).astype(np.float32)
    return Features(x, np.zeros(count, np.int64), np.arange(count))


def squared_distances(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return ((x[:, None].astype(np.float64) - centroids) ** 2).sum(axis=2)


def test_the_objective_is_as_good_as_scikit_learns() -> None:
    train = items()
    method = KMeans(clusters=12, restarts=5, tolerance=0, iterations=100).fit(train, silent)
    reference = ReferenceKMeans(12, n_init=5, random_state=0).fit(train.x)
    inertia = squared_distances(train.x, method.centroids).min(axis=1).sum()
    assert inertia <= 1.01 * reference.inertia_
    assert method.history[-1].loss == pytest.approx(inertia / len(train), rel=1e-3)
    losses = [epoch.loss for epoch in method.history]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(losses))


def test_more_restarts_are_never_worse_and_converged_restarts_end() -> None:
    train = items()
    one, five = (KMeans(clusters=12, restarts=n, iterations=200).fit(train, silent) for n in (1, 5))
    assert five.history[-1].loss <= one.history[-1].loss
    assert len(one.history) < 100


def test_gallery_items_get_the_nearest_cluster_and_queries_all_of_them_nearest_first() -> None:
    train, queries = items(), items(50, seed=1)
    method = KMeans(clusters=9).fit(train, silent)
    gallery = method.encode(train.x, "gallery").numbers
    asked = method.encode(queries.x, "query").numbers
    np.testing.assert_array_equal(gallery[:, 0], squared_distances(train.x, method.centroids).argmin(axis=1))
    expected = np.argsort(squared_distances(queries.x, method.centroids), axis=1)
    np.testing.assert_array_equal(asked, expected)


def test_spherical_clusters_do_not_see_the_length_of_vectors() -> None:
    train = items()
    lengths = np.random.default_rng(3).uniform(0.1, 10, (len(train), 1)).astype(np.float32)
    method = KMeans(clusters=9, spherical=True).fit(train, silent)
    np.testing.assert_allclose(np.linalg.norm(method.centroids, axis=1), 1, rtol=1e-5)
    first = method.encode(train.x, "gallery").numbers
    second = method.encode(train.x * lengths, "gallery").numbers
    assert (first == second).mean() > 0.999
    cosines = (train.x / np.linalg.norm(train.x, axis=1, keepdims=True)) @ method.centroids.T
    assert method.history[-1].loss == pytest.approx(1 - cosines.max(axis=1).mean(), rel=1e-2)
    again = KMeans(clusters=9, spherical=True).fit(Features(train.x * lengths, train.y, train.ids), silent)
    np.testing.assert_allclose(again.centroids, method.centroids, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_clusters_with_one_thread_and_with_two(threads: int) -> None:
    train = items(20000)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(threads)
        first, second = (KMeans(clusters=40, seed=5, iterations=8).fit(train, silent).centroids for _ in range(2))
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(first, second)


def test_as_many_clusters_as_items_makes_each_item_its_own() -> None:
    train = items(30)
    method = KMeans(clusters=30, restarts=2).fit(train, silent)
    clusters = method.encode(train.x, "gallery").numbers
    assert sorted(clusters[:, 0]) == list(range(30))
    assert method.history[-1].loss == 0


def test_duplicates_of_one_item_do_not_stop_it() -> None:
    x = np.repeat(items(3).x, 20, axis=0)
    method = KMeans(clusters=10).fit(Features(x, np.zeros(60, np.int64), np.arange(60)), silent)
    assert np.isfinite(method.centroids).all()


def test_at_most_so_many_items_a_cluster_are_learnt_from() -> None:
    train = items()
    method = KMeans(clusters=4, max_points_per_cluster=10, tolerance=0, iterations=20).fit(train, silent)
    drawn = np.sort(np.random.default_rng(0).choice(800, 40, replace=False))
    part = train.take(drawn)
    assert method.history[-1].loss == pytest.approx(
        squared_distances(part.x, method.centroids).min(axis=1).mean(), rel=1e-3
    )


@pytest.mark.parametrize(("overrides", "index"), [([], "ivf"), (["index=flat"], "flat"), (["index.nprobe=3"], "ivf")])
def test_choosing_it_chooses_its_index_unless_the_command_line_does(overrides: list[str], index: str) -> None:
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", ["method=kmeans", "method.clusters=7", "~backbone", *overrides])
    config = OmegaConf.to_container(composed, resolve=True)
    assert config["index"]["name"] == index
    if index == "flat":
        with pytest.raises(UsageError, match="index='flat': expected ivf for a method that gives cluster numbers"):
            build_index(config, "clusters")
    else:
        assert config["index"]["clusters"] == 7
        assert build_index(config, "clusters").ranking == "cosine"


def test_more_probes_than_clusters_are_refused_before_any_data_is_read() -> None:
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", ["method=kmeans", "method.clusters=7", "index.nprobe=8", "~backbone"])
    with pytest.raises(UsageError, match=r"index\.nprobe=8: expected at most 7, the number of clusters"):
        build(OmegaConf.to_container(composed, resolve=True), "index", Index)


def test_faiss_prints_no_warning_about_few_items(capfd: pytest.CaptureFixture[str]) -> None:
    KMeans(clusters=100).fit(items(200), silent)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("clusters", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (500, 9), (512, 9), (513, 10)])
def test_bits_are_what_it_takes_to_write_a_clusters_number(clusters: int, bits: int) -> None:
    assert KMeans(clusters=clusters).bits == bits


def test_more_clusters_than_training_items_are_refused() -> None:
    with pytest.raises(UsageError, match=r"method\.clusters=31: expected at most 30, the number of training items"):
        KMeans(clusters=31).fit(items(30), silent)


@pytest.mark.parametrize(
    ("key", "value"),
    [("clusters", 0), ("iterations", 0), ("restarts", -1), ("tolerance", 1), ("max_points_per_cluster", 0)],
)
def test_values_that_cannot_be_used_are_refused_at_once(key: str, value: int) -> None:
    with pytest.raises(UsageError, match=rf"method\.{key}={value}: expected"):
        KMeans(**{"clusters": 3, key: value})
