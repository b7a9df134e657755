"""Rules of relevance against brute force: true neighbours, judged pairs, and leaving queries out of their rankings."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from lshbench.data.base import Dataset, GivenNeighbors, Judgments, Split
from lshbench.errors import UsageError
from lshbench.metrics.measures import concatenate, measure, summarise
from lshbench.protocols.splits import Selection
from lshbench.ranking.cosine import cosine_blocks, cosine_neighbors
from lshbench.ranking.hamming import hamming_blocks, hamming_neighbors
from lshbench.ranking.listed import first_kept, relevant_results
from lshbench.relevance.base import listed_pairs, own_rows, without_own
from lshbench.relevance.labels import LabelRule
from lshbench.relevance.neighbors import NeighborRule
from lshbench.relevance.qrels import QrelRule
from lshbench.runtime.progress import silent
from lshbench.types import Codes, Features, Neighbors, Relevance, unlabelled

GALLERY, QUERIES = 700, 40


class Ready(Split):
    """A split of ready features without labels."""

    kind = "features"

    def __init__(self, name: str, count: int) -> None:
        self.name, self.labels = name, unlabelled(count)

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return f"sha256:{self.name}"


def sides(seed: int = 0) -> tuple[Features, Features]:
    """Return a gallery, of which some items are there twice, and queries."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((GALLERY, 24)).astype(np.float32) * random.uniform(0.5, 2, (GALLERY, 1)).astype(
        np.float32
    )
    x[GALLERY // 2 : GALLERY // 2 + 60] = x[:60]
    asked = random.standard_normal((QUERIES, 24)).astype(np.float32)
    numbers = np.arange(GALLERY + QUERIES)
    return (
        Features(x, unlabelled(GALLERY), numbers[:GALLERY]),
        Features(asked, unlabelled(QUERIES), numbers[GALLERY:]),
    )


def data_of(judgments: Judgments | None = None, given: GivenNeighbors | None = None) -> tuple[Dataset, Selection]:
    dataset = Dataset("made", Ready("train", GALLERY), Ready("test", QUERIES), judgments, given)
    return dataset, Selection(dataset.query_items, dataset.gallery_items, dataset.gallery_items)


def distances_by(metric: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(q[:, None] - g, axis=2)
    products = q @ g.T
    if metric == "inner_product":
        return -products
    return 1 - products / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(g, axis=1)


def rows_of(relevance: Relevance) -> list[list[int]]:
    listed = relevance.listed
    assert listed is not None
    return [
        listed.rows[slice(*listed.offsets[i : i + 2])][listed.relevant[slice(*listed.offsets[i : i + 2])]].tolist()
        for i in range(len(listed))
    ]


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("ties", ["included", "first"])
def test_true_neighbours_are_those_of_brute_force(metric: str, ties: str, tmp_path: Path) -> None:
    gallery, queries = sides()
    dataset, selection = data_of()
    rule = NeighborRule(k=15, metric=metric, ties=ties)
    rule.check(dataset, selection)
    none = np.full(QUERIES, -1)
    for _ in range(2):  # the second time from the cache
        truth = rule.ground_truth(dataset, gallery, queries, none, tmp_path, silent)
        distances = distances_by(metric, queries.x, gallery.x)
        found, tied = rows_of(truth.relevance), 0
        for i, own in enumerate(distances):
            order = np.lexsort((np.arange(GALLERY), np.round(own, 6)))
            last = own[order[14]]
            wanted = order[:15] if ties == "first" else np.flatnonzero(own <= last + 1e-6)
            tied += len(wanted) > 15
            assert found[i] == sorted(wanted.tolist())
            assert truth.neighbors is not None
            np.testing.assert_allclose(own[truth.neighbors[i]], np.sort(own)[:15], atol=1e-6)
        assert (tied > 0) == (ties == "included")
    assert len(list((tmp_path / "references").glob("*.neighbors.npz"))) == 1


def test_recall_of_true_neighbours_is_that_of_faiss(tmp_path: Path) -> None:
    from faiss.contrib.evaluation import knn_intersection_measure

    gallery, queries = sides(1)
    gallery.x[GALLERY // 2 : GALLERY // 2 + 60] += 0.01  # no copies
    dataset, _ = data_of()
    truth = NeighborRule(k=10, metric="euclidean").ground_truth(
        dataset, gallery, queries, np.full(QUERIES, -1), tmp_path, silent
    )
    index = faiss.IndexFlatL2(24)
    index.add(gallery.x)
    _, exact = index.search(queries.x, 10)
    found = cosine_neighbors(queries.x, gallery.x, 10).ids
    wanted = knn_intersection_measure(found, exact)
    assert 0.2 < wanted < 0.9
    assert relevant_results(truth.relevance, found).mean() == pytest.approx(wanted, abs=1e-12)
    blocks = cosine_blocks(queries.x, gallery.x, truth.relevance)
    recall = summarise(concatenate([measure(block) for block in blocks]))["metrics"]["recall@10"]
    assert recall == pytest.approx(wanted, abs=1e-12)


def test_neighbours_that_a_file_lists_are_checked_by_exact_search(tmp_path: Path) -> None:
    gallery, queries = sides()
    distances = distances_by("euclidean", queries.x, gallery.x)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :30]
    none = np.full(QUERIES, -1)

    def truth(rows: np.ndarray, by: str, **keys: object) -> list[list[int]]:
        dataset, selection = data_of(given=GivenNeighbors(rows, None, by))
        rule = NeighborRule(**keys)
        rule.check(dataset, selection)
        return rows_of(rule.ground_truth(dataset, gallery, queries, none, tmp_path, silent).relevance)

    exact = NeighborRule(k=20, metric="euclidean").ground_truth(data_of()[0], gallery, queries, none, tmp_path, silent)
    assert truth(rows, "euclidean", k=20) == rows_of(exact.relevance)
    with pytest.raises(
        UsageError, match=r"other neighbours than exact search by cosine finds: of 40 queries checked, \d"
    ):
        truth(rows, "cosine", k=20)
    wrong = rows.copy()
    wrong[:, 5] = rows[:, 6]
    with pytest.raises(UsageError, match="are listed twice"):
        truth(wrong, "euclidean", k=20)
    with pytest.raises(UsageError, match=r"relevance\.k=31: expected at most 30"):
        truth(rows, "euclidean", k=31)
    with pytest.raises(UsageError, match=r"relevance\.metric='?cosine'?: expected euclidean"):
        truth(rows, "euclidean", k=20, metric="cosine")
    dataset, selection = data_of(given=GivenNeighbors(rows, None, "euclidean"))
    part = Selection(selection.queries, selection.gallery[:500], selection.train)
    with pytest.raises(UsageError, match=r"relevance\.source=exact"):
        NeighborRule(k=20).check(dataset, part)
    NeighborRule(k=20, source="exact").check(dataset, part)
    with pytest.raises(UsageError, match="lists no neighbours"):
        NeighborRule(source="file").check(*data_of())


def test_leaving_out_equals_a_ranking_without_the_diagonal_and_copies_stay_in(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    codes = Codes(random.integers(0, 256, (300, 2), np.uint8), 16)
    codes.packed[150:200] = codes.packed[:50]  # copies under another name
    labels, numbers = random.integers(0, 5, 300), np.arange(1000, 1300)
    items = Features(np.zeros((300, 1), np.float32), labels, numbers)
    dataset, _ = data_of()
    own = own_rows(numbers, numbers)
    truth = LabelRule().ground_truth(dataset, items, items, own, tmp_path, silent)
    blocks = list(hamming_blocks(codes, codes, truth.relevance))
    measures = concatenate([measure(block) for block in blocks])
    for i in range(0, 300, 7):
        others = np.flatnonzero(np.arange(300) != i)
        rest = Codes(codes.packed[others], 16)
        (block,) = hamming_blocks(codes[i : i + 1], rest, Relevance(labels[i : i + 1], labels[others]))
        wanted = measure(block)
        for name, values in wanted.items():
            np.testing.assert_array_equal(measures[name][i], values[0], err_msg=name)
    found = first_kept(hamming_neighbors(codes, codes, 11), truth.relevance, 10)
    assert found.ids.shape == (300, 10)
    assert not (found.ids == np.arange(300)[:, None]).any()
    assert (found.ids[:50] == np.arange(150, 200)[:, None]).any(axis=1).all()


def test_results_are_k_of_those_that_stay_however_many_are_left_out_of_others() -> None:
    ids = np.array([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4], [2, 0, 1, 3, 4]])
    found = Neighbors(ids, np.tile(np.arange(5, dtype=np.float32), (3, 1)), np.full(3, 5), np.ones((3, 5), np.int64))
    # The first query leaves four rows out, the second none, the last the nearest one.
    listed = listed_pairs(np.array([0, 0, 0, 0, 2]), np.array([0, 1, 3, 4, 2]), np.full(5, -1), 3)
    relevance = Relevance(np.zeros(3, np.int64), np.zeros(5, np.int64), listed=listed)
    kept = first_kept(found, relevance, 2)
    assert kept.ids.tolist() == [[2, -1], [0, 1], [0, 1]]
    assert kept.distances.tolist() == [[2, np.inf], [0, 1], [1, 2]]
    some = np.array([1, 2])
    asked = Neighbors(ids[some], found.distances[some], found.candidates[some], found.tied[some])
    assert first_kept(asked, relevance.of_queries(some), 2).ids.tolist() == [[0, 1], [0, 1]]
    assert first_kept(asked, relevance.of_queries(some), 7).ids.tolist()[1] == [0, 1, 3, 4, -1, -1, -1]


def test_nearest_others_are_k_items_besides_the_query_itself(tmp_path: Path) -> None:
    gallery, _ = sides()
    own = np.arange(GALLERY)
    for metric in ("cosine", "euclidean", "inner_product"):
        truth = NeighborRule(k=5, metric=metric).ground_truth(data_of()[0], gallery, gallery, own, tmp_path, silent)
        distances = distances_by(metric, gallery.x, gallery.x)
        distances[own, own] = np.inf
        for i, found in enumerate(rows_of(truth.relevance)):
            assert found == np.flatnonzero(distances[i] <= np.sort(distances[i])[4] + 1e-6).tolist()
        assert (truth.relevance.listed.left_out.sum(), truth.relevance.most_left_out) == (GALLERY, 1)


def test_judged_pairs_become_grades_of_the_gallery_that_a_run_has(tmp_path: Path) -> None:
    gallery, queries = sides()
    # A pair of an item outside the gallery, one of no query, a judged-not-relevant and a junk one.
    pairs = [(700, 3, 2), (700, 9, 0), (701, 4, -1), (701, 5, 1), (701, 720, 2), (6, 7, 3), (703, 8, 3)]
    asked, items, grades = (np.array(column) for column in zip(*pairs, strict=True))
    dataset, selection = data_of(Judgments(asked, items, grades.astype(np.float32)))
    rule = QrelRule(threshold=2)
    rule.check(dataset, selection)
    assert (rule.unanswered(dataset, selection).count, rule.unanswered(dataset, selection).total) == (38, 40)
    truth = rule.ground_truth(dataset, gallery, queries, np.full(QUERIES, -1), tmp_path, silent)
    assert {i: rows for i, rows in enumerate(rows_of(truth.relevance)) if rows} == {0: [3], 3: [8]}
    listed = truth.relevance.listed
    assert listed is not None
    assert listed.graded
    assert listed.left_out.sum() == 1
    for row, gain, threshold in ((3, 2, 2), (8, 3, 2)):
        assert listed.grades[listed.rows == row] == gain
        assert listed.threshold == threshold
    powers = QrelRule(threshold=2, gain="exponential").ground_truth(
        dataset, gallery, queries, np.full(QUERIES, -1), tmp_path, silent
    )
    assert powers.relevance.listed.grades.tolist() == [3, 0, -1, 1, 7]
    assert rows_of(powers.relevance) == rows_of(truth.relevance)
    with pytest.raises(UsageError, match="no item of the gallery was judged 9 or more"):
        QrelRule(threshold=9).check(dataset, selection)
    twice = Judgments(np.array([700, 700]), np.array([3, 3]), np.ones(2, np.float32))
    with pytest.raises(UsageError, match="1 pairs are judged twice"):
        QrelRule().check(data_of(twice)[0], selection)
    with pytest.raises(UsageError, match="has no judged pairs"):
        QrelRule().check(*data_of())


def test_a_query_is_not_relevant_to_itself_though_it_is_listed() -> None:
    relevance = Relevance.of_lists(
        QrelRule()._listed(Judgments(*np.array([[0, 0], [1, 2]]), np.ones(2)), np.arange(3), np.arange(3)), 3
    )
    kept = without_own(relevance, np.array([1, -1, -1]))
    assert rows_of(kept) == [[2], [], []]
    assert kept.listed.left_out.tolist() == [True, False]


def test_data_without_labels_are_refused_by_labels_and_values_are_checked() -> None:
    with pytest.raises(UsageError, match="made has no labels; expected relevance=neighbors"):
        LabelRule().check(*data_of())
    for make, message in (
        (lambda: LabelRule("any"), r"relevance\.kind"),
        (lambda: NeighborRule(0), r"relevance\.k=0"),
        (lambda: NeighborRule(metric="l2"), r"relevance\.metric"),
        (lambda: NeighborRule(ties="some"), r"relevance\.ties"),
        (lambda: QrelRule(0), r"relevance\.threshold"),
        (lambda: QrelRule(gain="log"), r"relevance\.gain"),
        (lambda: NeighborRule(k=701).check(*data_of()), "at most 700, the items of the gallery"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


def test_neighbors_of_training_items_are_searched_for_by_the_metric_of_those_that_are_listed() -> None:
    dataset, _ = data_of(given=GivenNeighbors(np.zeros((QUERIES, 5), np.int64), None, "inner_product"))
    for rule, metric in (
        (NeighborRule(5), "inner_product"),
        (NeighborRule(5, source="exact"), "auto"),
        (NeighborRule(5, "euclidean", source="exact"), "euclidean"),
    ):
        applied = rule.of_training(dataset, 3)
        assert isinstance(applied, NeighborRule)
        assert (applied.k, applied.metric, applied.source) == (3, metric, "exact")
