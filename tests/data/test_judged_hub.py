"""MTEB's layout on the Hub: corpus, queries and judged pairs are found by the names of configurations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

from lshbench.data.hub import HubSource
from lshbench.errors import UsageError
from lshbench.types import Progress, is_unlabelled
from tests.conftest import Command

RANDOM = np.random.default_rng(0)
CORPUS, QUERIES = (RANDOM.standard_normal((count, 8)).astype(np.float32) for count in (40, 6))
PAIRS = [(query, item, 1 + (item % 2)) for query in range(6) for item in range(query, 40, 7)]


def vectors(ids: list[str], values: np.ndarray) -> pa.Table:
    return pa.table({"id": ids, "emb": pa.array(list(values), pa.list_(pa.float32()))})


def repository(folder: Path, queries: pa.Table | None = None, pairs: list[tuple[str, str, int]] | None = None) -> Path:
    """Write a repository: its README names the configurations, as those of the Hub do."""
    if queries is None:
        queries = vectors([f"q{row}" for row in range(6)], QUERIES)
    if pairs is None:
        pairs = [(f"q{query}", f"c{item}", grade) for query, item, grade in PAIRS]
    columns = list(zip(*pairs, strict=True))
    parts = {
        "corpus": vectors([f"c{row}" for row in range(40)], CORPUS),
        "queries": queries,
        "qrels": pa.table(dict(zip(("query-id", "corpus-id", "score"), map(list, columns), strict=True))),
    }
    lines = ["---", "configs:"]
    for name, table in parts.items():
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "test-00000-of-00001.parquet")
        lines += [f"- config_name: {name}", "  data_files:", "  - split: test", f"    path: {name}/test-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def test_its_parts_are_found_by_their_names(tmp_path: Path, silent: Progress) -> None:
    data = HubSource(path=str(repository(tmp_path / "made"))).open(tmp_path / "cache", silent)
    assert (len(data.gallery), len(data.query)) == (40, 6)
    assert is_unlabelled(data.labels)
    found = zip(data.judgments.queries - 40, data.judgments.items, data.judgments.grades, strict=True)
    assert [tuple(map(int, one)) for one in found] == PAIRS
    np.testing.assert_array_equal(data.query.read_features(np.arange(6), silent), QUERIES)


def test_pairs_of_unknown_items_are_left_out_and_counted(
    tmp_path: Path, silent: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    folder = repository(tmp_path / "made", pairs=[("q0", "c1", 1), ("q1", "c99", 1), ("q9", "c1", 1)])
    data = HubSource(path=str(folder)).open(tmp_path / "cache", silent)
    assert data.judgments.items.tolist() == [1]
    assert "2 of 3 judged pairs name items that are not there and are left out (the first: query 'q1', item 'c99')" in (
        caplog.text
    )


def test_a_query_is_an_item_of_the_corpus_if_id_and_content_are_its_own(tmp_path: Path, silent: Progress) -> None:
    names = [f"c{row}" for row in range(40)]
    pairs = [(f"c{row}", f"c{(row + 1) % 40}", 1) for row in range(40)]
    order = RANDOM.permutation(40)
    whole = vectors([names[row] for row in order], CORPUS[order])
    data = HubSource(path=str(repository(tmp_path / "all", whole, pairs))).open(tmp_path / "cache", silent)
    assert data.same_split
    np.testing.assert_array_equal(data.judgments.items, (data.judgments.queries + 1) % 40)
    some = vectors(["c3", "c5", "c7"], np.stack([CORPUS[3], CORPUS[0], CORPUS[7]]))
    part = HubSource(path=str(repository(tmp_path / "some", some, pairs[3:4]))).open(tmp_path / "cache", silent)
    listed = zip(part.judgments.queries.tolist(), part.judgments.items.tolist(), part.judgments.grades, strict=True)
    assert sorted(listed) == [(40, 3, -1), (40, 4, 1), (42, 7, -1)]


def test_columns_that_are_not_there_are_named(tmp_path: Path, silent: Progress) -> None:
    folder = repository(tmp_path / "made", queries=pa.table({"name": ["a"], "emb": [[1.0] * 8]}))
    with pytest.raises(UsageError, match="queries: no column called id; there are: name, emb"):
        HubSource(path=str(folder)).open(tmp_path / "cache", silent)


def test_a_run_takes_such_a_repository_from_the_hub(tmp_path: Path, lshbench: Command) -> None:
    # Six more queries are items of the corpus, each left out of its own ranking, which is no leak.
    queries = np.concatenate([QUERIES, CORPUS[3:9]])
    names = [*(f"q{row}" for row in range(6)), *(f"c{row}" for row in range(3, 9))]
    judged = [*PAIRS, *((query, (query + 11) % 40, 1) for query in range(6, 12))]
    pairs = [(names[query], f"c{item}", grade) for query, item, grade in judged]
    repository(tmp_path / "hub" / "owner" / "judged", vectors(names, queries), pairs)
    with HubServer(tmp_path / "hub").running() as server:
        environment = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": None}
        quick = ("method=none", "reference.time=false", "evaluation.plots=false")
        lshbench("run", "dataset=hub", "dataset.repository=owner/judged", "relevance=qrels", *quick, env=environment)
    (file,) = tmp_path.glob("outputs/**/metrics.json")
    metrics = json.loads(file.read_text())
    assert (metrics["dataset"]["gallery"], metrics["dataset"]["queries"]) == (40, 12)
    protocol = metrics["protocol"]
    assert (protocol["query_gallery_overlap"], protocol["exact_duplicates"], protocol["leak"]) == (6, 0, False)
    relevant = np.zeros((12, 40), bool)
    for query, item, _ in judged:
        relevant[query, item] = True
    cosine = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (CORPUS / np.linalg.norm(CORPUS, axis=1)[:, None]).T
    cosine[np.arange(6, 12), np.arange(3, 9)] = -2  # behind all others, where it changes nothing
    ranked = np.take_along_axis(relevant, np.argsort(-cosine, axis=1), axis=1)
    precision = np.cumsum(ranked, axis=1) / np.arange(1, 41)
    plain = ((precision * ranked).sum(1) / ranked.sum(1)).mean()
    assert metrics["metrics"]["mAP"] == pytest.approx(plain, abs=1e-12)
