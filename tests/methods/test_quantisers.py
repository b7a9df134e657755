"""Quantisers against faiss's own indexes: what is decoded, how the gallery is ranked, and what is refused."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.evaluation.evaluate import evaluate
from lshbench.index.flat import FlatIndex
from lshbench.methods.float16 import Float16
from lshbench.methods.lsq import LocalSearchQuantiser
from lshbench.methods.opq import OptimisedProductQuantiser
from lshbench.methods.pq import ProductQuantiser
from lshbench.methods.rabitq import RaBitQuantiser
from lshbench.methods.residual import ResidualQuantiser
from lshbench.methods.sq import ScalarQuantiser
from lshbench.methods.turboquant import TurboQuantiser
from lshbench.runtime.progress import silent
from lshbench.types import Encoded, Features, Relevance

ITEMS, ASKED, DIM = 2000, 200, 32
IP, L2 = faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
DECOMPRESS = faiss.AdditiveQuantizer.ST_decompress

MAKE = {
    "float16": Float16,
    "sq8": lambda: ScalarQuantiser(bits=64),
    "sq4": lambda: ScalarQuantiser(bits=64, bits_per_dimension=4),
    "pq": lambda: ProductQuantiser(bits=32),
    "opq": lambda: OptimisedProductQuantiser(bits=16, iterations=1),
    "residual": lambda: ResidualQuantiser(bits=24, beam=2),
    "lsq": lambda: LocalSearchQuantiser(bits=16, iterations=1, searches=1),
    "turboquant1": lambda: TurboQuantiser(bits=32, bits_per_dimension=1),
    "turboquant4": lambda: TurboQuantiser(bits=64),
    "rabitq1": lambda: RaBitQuantiser(bits=96),
    "rabitq4": lambda: RaBitQuantiser(bits=256, bits_per_dimension=4),
}


@functools.cache
def data() -> tuple[Features, np.ndarray, np.ndarray]:
    """Return training items, and features and labels of the gallery and, behind it, the queries."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((10, DIM)) + 1
    y = generator.integers(0, 10, ITEMS + ASKED)
    x = (centres[y] + generator.standard_normal((ITEMS + ASKED, DIM))).astype(np.float32)
    y[ITEMS - ITEMS // 5 : ITEMS] = generator.integers(0, 10, ITEMS // 5)
    return Features(x[:400], y[:400], np.arange(400)), x, y


@functools.cache
def fitted(name: str) -> Any:
    return MAKE[name]().fit(data()[0], silent)


def engine(name: str, method: Any) -> Any:
    """Return faiss's index of a fitted quantiser, empty: by Euclidean distance, but where factors estimate products."""
    if name == "float16":
        index: Any = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, IP)
    elif name.startswith(("sq", "turboquant")):
        index = faiss.IndexScalarQuantizer(method.dim, method._quantiser.qtype, L2)
        faiss.copy_array_to_vector(faiss.vector_to_array(method._quantiser.trained), index.sq.trained)
    elif name in ("pq", "opq"):
        index = faiss.IndexPQ(method.dim, method.bytes, 8, L2)
        faiss.copy_array_to_vector(method.state()["centroids"].ravel(), index.pq.centroids)
    elif name.startswith("rabitq"):
        index = faiss.IndexRaBitQ(method.dim, IP, method.bits_per_dimension)
        index.qb = 0
        faiss.copy_array_to_vector(method.mean @ method.weight, index.center)
    else:
        kind = faiss.IndexResidualQuantizer if name == "residual" else faiss.IndexLocalSearchQuantizer
        index = kind(method.dim, method.bytes, 8, L2, DECOMPRESS)
        own = index.rq if name == "residual" else index.lsq
        faiss.copy_array_to_vector(method.state()["codebooks"].ravel(), own.codebooks)
        own.is_trained = True
    index.is_trained = True
    return index


def expected_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Return AP as the mean over all orders of ties, from a query's scores."""
    order = np.argsort(-scores, kind="stable")
    _, first, size = np.unique(-scores[order], return_index=True, return_counts=True)
    hits = np.add.reduceat(relevant[order].astype(float), first)
    group = np.repeat(np.arange(len(first)), size)
    place = np.arange(len(scores))
    within = (place - first[group]) * (hits - 1)[group] / np.maximum(size - 1, 1)[group]
    precision = ((np.cumsum(hits) - hits)[group] + 1 + within) / (place + 1)
    return float((precision * (hits / size)[group]).sum() / relevant.sum())


@pytest.mark.parametrize("name", MAKE)
def test_the_gallery_is_ranked_as_the_engine_scores_it(name: str) -> None:
    method, (_, x, y) = fitted(name), data()
    gallery, queries = method.encode(x[:ITEMS], "gallery"), method.encode(x[ITEMS:], "query")
    # Ties, whose order matters: items of other labels that are stored alike.
    gallery.stored[ITEMS - ITEMS // 5 :] = gallery.stored[: ITEMS // 5]
    index = engine(name, method)
    assert index.sa_code_size() == gallery.stored.shape[1] == method.bits / 8
    index.add_sa_codes(gallery.stored)
    centre = method.mean @ method.weight if name.startswith("rabitq") else 0
    scale = np.float32(np.max(getattr(method, "scale", 1)))
    asked = queries.x if name == "float16" else (queries.x[:, :-1] + centre) * scale
    found, rows = index.search(np.ascontiguousarray(asked), ITEMS)
    scores = np.empty_like(found)
    np.put_along_axis(scores, rows, found if index.metric_type == IP else -found, axis=1)
    relevance = Relevance(y[ITEMS:], y[:ITEMS])
    exact = [expected_precision(own, y[:ITEMS] == label) for own, label in zip(scores, y[ITEMS:], strict=True)]
    flat = FlatIndex(gives="quantised").build(Encoded(x[:ITEMS], gallery))
    ours = evaluate(flat.rank(Encoded(x[ITEMS:], queries), relevance), ASKED, silent, "").measures["AP"]
    # Sums of squares are rounded otherwise than products, and change the places of a few items that are next to equal.
    assert abs(np.mean(ours) - np.mean(exact)) < (1e-6 if index.metric_type == IP else 2e-6)
    decoded = method.decode(gallery.stored)
    if name != "rabitq4":  # of which faiss decodes the signs alone
        numbers = decoded if name == "float16" else (decoded[:, :-1] + centre) * scale
        np.testing.assert_allclose(numbers, index.sa_decode(gallery.stored), rtol=1e-6, atol=1e-7)
    products = queries.x @ decoded.T
    if index.metric_type == L2:
        squares = np.einsum("ij,ij->i", asked, asked)[:, None]
        np.testing.assert_allclose(squares - 2 * float(scale) ** 2 * products, -scores, rtol=1e-4, atol=1e-4)
        apart = (x[ITEMS:] / np.linalg.norm(x[ITEMS:], axis=1)[:, None] - method.mean)[:, None]
        apart = apart - decoded[None, :20, :-1] @ method.weight.T
        half = (apart**2).sum(axis=2) / 2
        np.testing.assert_allclose(1 - queries.offset[:, None] - products[:, :20], half, rtol=1e-4, atol=1e-5)
    else:
        added = (asked @ centre)[:, None] if name.startswith("rabitq") else 0  # the same to all items of a query
        np.testing.assert_allclose(products + added, scores, rtol=1e-4, atol=1e-4)
    learnt = {name: array for name, array in method.state().items() if name in ("centroids", "codebooks", "ranges")}
    codebooks = sum(array.nbytes for array in learnt.values())
    beside = 4 if name in ("residual", "lsq") else 0  # a sum of several codebooks' vectors has a length of its own
    assert (flat.bytes, flat.fixed_bytes) == (ITEMS * (method.bits / 8 + beside) + codebooks, codebooks)
    assert flat.code_bytes == ITEMS * method.bits / 8
    assert bool(codebooks) == (name in ("pq", "opq", "residual", "lsq", "sq8", "sq4"))


@pytest.mark.parametrize("name", MAKE)
def test_a_query_alone_finds_from_stored_bytes_what_a_batch_finds_from_decoded_vectors(name: str) -> None:
    method, (_, x, _) = fitted(name), data()
    gallery, queries = method.encode(x[:ITEMS], "gallery"), method.encode(x[ITEMS:], "query")
    gallery.stored[ITEMS - ITEMS // 5 :] = gallery.stored[: ITEMS // 5]
    index = FlatIndex(gives="quantised").build(Encoded(x[:ITEMS], gallery))
    assert queries.terms is not None
    seen = 0
    batch = index.search(Encoded(x[ITEMS:], queries), 50)
    for row in range(0, ASKED, 9):
        alone = index.search(Encoded(x[ITEMS + row : ITEMS + row + 1], queries[row : row + 1]), 50)
        np.testing.assert_allclose(alone.distances[0], batch.distances[row], atol=1e-6)
        scores = queries.x[row].astype(float) @ method.decode(gallery.stored[alone.ids[0]]).T.astype(float)
        np.testing.assert_allclose(alone.distances[0], 1 - queries.offset[row] - scores, atol=1e-6)
        tied = np.diff(alone.distances[0]) == 0
        assert (np.diff(alone.ids[0])[tied] > 0).all(), "ties by the smaller row"
        distance = dict(zip(alone.ids[0].tolist(), alone.distances[0].tolist(), strict=True))
        copies = [(one, one + ITEMS - ITEMS // 5) for one in distance if one + ITEMS - ITEMS // 5 in distance]
        assert all(distance[one] == distance[other] for one, other in copies), "however far apart they lie"
        seen += len(copies)
    assert seen


def test_scores_estimate_the_cosine_and_distances_say_so() -> None:
    _, x, _ = data()
    cosine = (x[ITEMS:] / np.linalg.norm(x[ITEMS:], axis=1)[:, None]) @ (x / np.linalg.norm(x, axis=1)[:, None]).T
    made: dict[str, tuple[Any, float]] = {
        "float16": (Float16(), 0.0005),
        "sq8": (ScalarQuantiser(bits=256), 0.002),
        "rabitq4": (RaBitQuantiser(bits=288, bits_per_dimension=4), 0.012),
        "turboquant4": (TurboQuantiser(bits=128), 0.02),
        "residual": (ResidualQuantiser(bits=128), 0.05),
    }
    for method, most in made.values():
        method.fit(data()[0], silent)
        index = FlatIndex(gives="quantised").build(Encoded(x, method.encode(x, "gallery")))
        found = index.search(Encoded(x[ITEMS:], method.encode(x[ITEMS:], "query")), 5)
        exact = 1 - np.take_along_axis(cosine, found.ids, axis=1)
        assert np.abs(found.distances - exact).mean() < most


@pytest.mark.parametrize("name", MAKE)
def test_lengths_of_vectors_count_for_nothing_however_short_or_long(name: str) -> None:
    method, x = fitted(name), data()[1]
    asked = np.stack([x[0], x[0], x[1], x[1]])
    asked[1] *= np.float32(1e-38 / np.abs(x[0]).max())
    asked[3] *= np.float32(3e38 / np.abs(x[1]).max())
    gallery, queries = method.encode(x[:300], "gallery"), method.encode(asked, "query")
    # The short one has lost most of its digits.
    np.testing.assert_allclose(queries.x[0], queries.x[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(queries.x[2], queries.x[3], rtol=1e-5, atol=1e-6)
    found = FlatIndex(gives="quantised").build(Encoded(x[:300], gallery)).search(Encoded(asked, queries), 300)
    assert (np.sort(found.ids, axis=1) == np.arange(300)).all()


def test_queries_that_are_not_finite_are_refused_before_compiled_code_sees_them() -> None:
    method, (_, x, y) = fitted("pq"), data()
    gallery, queries = method.encode(x[:300], "gallery"), method.encode(x[:2], "query")
    queries.x[1, 0] = np.nan
    index = FlatIndex(gives="quantised").build(Encoded(x[:300], gallery))
    with pytest.raises(ValueError, match="queries hold NaN or infinite values"):
        index.search(Encoded(x[:2], queries), 5)
    with pytest.raises(ValueError, match="queries hold NaN or infinite values"):
        list(index.rank(Encoded(x[:2], queries), Relevance(y[:2], y[:300])))


def test_items_stored_alike_tie_however_they_lie() -> None:
    method, (_, x, _) = fitted("opq"), data()
    gallery = np.tile(x[:50], (40, 1))
    index = FlatIndex(gives="quantised").build(Encoded(gallery, method.encode(gallery, "gallery")))
    found = index.search(Encoded(x[ITEMS:], method.encode(x[ITEMS:], "query")), 60)
    # The forty copies of an item come together, by their rows.
    assert (found.ids[:, :40] % 50 == found.ids[:, :1] % 50).mean() > 0.9
    assert (np.diff(found.ids[:, :60], axis=1)[np.diff(found.distances[:, :60], axis=1) == 0] > 0).all()


def test_parts_with_codebooks_of_their_own_come_back() -> None:
    method = ResidualQuantiser(bits=80, beam=1).fit(data()[0], silent)
    assert (method.parts, method.books, method.dim) == (2, 5, DIM)
    stored = method.encode(data()[1][:100], "gallery").stored
    again = ResidualQuantiser(bits=80, beam=1).restore(method.state())
    np.testing.assert_array_equal(again.decode(stored), method.decode(stored))
    books = method.state()["codebooks"]
    sums = [sum(books[part, book][stored[:, 5 * part + book]] for book in range(5)) for part in range(2)]
    np.testing.assert_allclose(method.decode(stored)[:, :-1], np.concatenate(sums, axis=1), atol=1e-6)


def few() -> Features:
    train = data()[0]
    return Features(train.x[:200], train.y[:200], train.ids[:200])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProductQuantiser(bits=12), "bits=12: expected a multiple of 8"),
        (lambda: ProductQuantiser(bits=64, dim=12), r"method\.dim=12: expected a multiple of 8"),
        (lambda: ProductQuantiser(bits=64, dim="all"), r"method\.dim='all': expected auto"),
        (lambda: ProductQuantiser(bits=64, dim=40).fit(data()[0], silent), r"method\.dim=40: expected at most 32"),
        (lambda: ProductQuantiser(bits=512).fit(data()[0], silent), "bits=512: expected fewer: .* 64 parts"),
        (lambda: ScalarQuantiser(bits=512).fit(data()[0], silent), "bits=512: expected fewer: .* 64 numbers"),
        (lambda: ScalarQuantiser(bits=64, dim=9), r"method\.dim=9: expected auto, or 8"),
        (lambda: ScalarQuantiser(bits=64, bits_per_dimension=6), r"bits_per_dimension=6: expected 4 or 8"),
        (lambda: TurboQuantiser(bits=64, bits_per_dimension=3), r"bits_per_dimension=3: expected 1, 2, 4 or 8"),
        (lambda: RaBitQuantiser(bits=64), "bits=64: expected 72, 80, 88 and so on .* 8 of an item's bytes"),
        (lambda: RaBitQuantiser(bits=128, bits_per_dimension=4), "bits=128: expected 192, 224, 256 and so on"),
        (lambda: RaBitQuantiser(bits=200, bits_per_dimension=4), "bits=200: expected 192, 224, 256 and so on"),
        (lambda: ProductQuantiser(bits=64, max_points=200).fit(data()[0], silent), r"method\.max_points=200: exp"),
        (lambda: ProductQuantiser(bits=64).fit(few(), silent), "200 training items: expected at least 256"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused_with_what_would_be_right(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("name", ["pq", "sq8", "turboquant4", "residual"])
def test_numbers_whose_products_would_not_be_finite_are_damage(name: str) -> None:
    state = fitted(name).state()
    for key, array in state.items():
        for number in (np.nan, np.inf, -3e38):
            damaged = array.copy()
            damaged.flat[-1] = number
            with pytest.raises(ValueError, match=f"{key} holds numbers that are not from -1e|scale is"):
                MAKE[name]().restore(state | {key: damaged})


def test_codes_and_queries_whose_products_would_not_be_finite_are_refused() -> None:
    method, (_, x, _) = fitted("pq"), data()
    gallery, queries = method.encode(x[:300], "gallery"), method.encode(x[:20], "query")
    for asked in (20, 1):
        far = replace(queries[:asked], decode=lambda stored: method.decode(stored) * np.float32(1e30))
        index = FlatIndex(gives="quantised").build(Encoded(x[:300], gallery))
        with pytest.raises(ValueError, match="codes decode to NaN or infinite numbers, or to such"):
            index.search(Encoded(x[:asked], far), 5)
    index = FlatIndex(gives="quantised").build(Encoded(x[:300], gallery))
    with pytest.raises(ValueError, match=r"queries hold values beyond 1e\+09"):
        index.search(Encoded(x[:20], replace(queries, x=queries.x * np.float32(1e12))), 5)


@pytest.mark.parametrize("name", ["pq", "sq8", "turboquant4", "residual"])
def test_states_of_other_shapes_are_damage(name: str) -> None:
    for key, array in fitted(name).state().items():
        with pytest.raises(ValueError, match=f"{key} is float32|numbers in"):
            MAKE[name]().restore(fitted(name).state() | {key: np.concatenate([array, array])[..., None]})
        with pytest.raises(ValueError, match=f"{key} is missing"):
            MAKE[name]().restore({other: one for other, one in fitted(name).state().items() if other != key})
