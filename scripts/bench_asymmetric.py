"""Time asymmetric ranking of binary codes beside Hamming ranking and the best alternatives, by turns in one process.

    python scripts/bench_asymmetric.py                            10,000 queries against 50,000 codes, some minutes
    python scripts/bench_asymmetric.py --queries 500 --repeats 3  seconds

Random codes of which each class has an equal share are ranked by random projections:

- mAP: the expected value over ties, by lshbench (`lshbench.ranking.asymmetric_codes`); for the same projections as
  products with codes of -1 and 1 that are ranked by cosine's kernels (`product`); and by sorting each query's row of
  such a product with NumPy, of 64 queries, scaled up (`argsort`);
- top 100: of all queries and of queries alone, by lshbench; by faiss.IndexFlatIP over codes of -1 and 1 (32 times the
  bytes); and by NumPy from byte tables, of 64 queries, scaled up (`tables`).

A figure is the least of milliseconds a query.  Ratios are to lshbench's Hamming ranking of the same codes: the price of
the query's real values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from lshbench.metrics.average_precision import average_precision
from lshbench.ranking.asymmetric_codes import asymmetric_code_blocks, asymmetric_code_neighbors
from lshbench.ranking.cosine import cosine_blocks
from lshbench.ranking.hamming import CodeGallery, hamming_blocks, hamming_neighbors
from lshbench.runtime.threads import available_cores, set_threads
from lshbench.types import Codes, RankedBlock, Relevance

K, SAMPLE = 100, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=50_000, help="in the gallery")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=5, help="turns, of which the fastest counts")
    options = parser.parse_args()
    set_threads(options.threads)
    table = Table("bits", "classes", "what", "how", "ms a query", "/ Hamming")
    for bits in options.bits:
        for classes in options.classes:
            measure(table, options, bits, classes)
    Console(width=100).print(table)


def measure(table: Table, options: argparse.Namespace, bits: int, classes: int) -> None:
    """Add the rows of one code length and number of classes."""
    generator = np.random.default_rng(0)
    queries, items = options.queries, options.items
    projections = generator.standard_normal((queries, bits), np.float32)
    codes = Codes.from_signs(generator.standard_normal((items, bits), np.float32))
    asked, gallery = Codes.from_signs(projections), CodeGallery.from_codes(codes)
    signs = (2 * codes.unpack().astype(np.float32) - 1).copy()
    relevance = Relevance(generator.integers(0, classes, queries), generator.integers(0, classes, items))
    few = relevance.rows(0, min(SAMPLE, queries))
    index = faiss.IndexFlatIP(bits)
    index.add(signs)

    sides: dict[str, tuple[Callable[[], object], int]] = {
        "Hamming": (lambda: mean_ap(hamming_blocks(asked, gallery, relevance, positions=0)), queries),
        "lshbench": (lambda: mean_ap(asymmetric_code_blocks(projections, codes, relevance, positions=0)), queries),
        "product": (lambda: mean_ap(cosine_blocks(projections, signs, relevance, positions=0)), queries),
        "argsort": (lambda: sorted_ap(projections[:SAMPLE], signs, few), len(few.queries)),
    }
    add(table, (bits, classes, "mAP"), sides, options.repeats)
    ours = mean_ap(asymmetric_code_blocks(projections[:SAMPLE], codes, few, positions=0))
    # Codes that are equal tie for us, and are sorted by row there.
    assert abs(ours - sorted_ap(projections[:SAMPLE], signs, few)) < (1e-4 if bits >= 64 else 0.01)
    if classes != options.classes[0]:
        return
    sides = {
        "Hamming": (lambda: hamming_neighbors(asked, gallery, K), queries),
        "lshbench": (lambda: asymmetric_code_neighbors(projections, codes, K), queries),
        "faiss, 32 times the bytes": (lambda: index.search(projections, K), queries),
        "tables": (lambda: table_neighbors(projections[:SAMPLE], codes), len(few.queries)),
    }
    add(table, (bits, "", f"top {K}, batch"), sides, options.repeats)
    alone = range(min(SAMPLE, queries))
    sides = {
        "Hamming": (lambda: [hamming_neighbors(asked[i : i + 1], gallery, K) for i in alone], len(alone)),
        "lshbench": (lambda: [asymmetric_code_neighbors(projections[i : i + 1], codes, K) for i in alone], len(alone)),
        "faiss, 32 times the bytes": (lambda: [index.search(projections[i : i + 1], K) for i in alone], len(alone)),
        "tables": (lambda: table_neighbors(projections[:SAMPLE], codes), len(alone)),
    }
    add(table, (bits, "", f"top {K}, alone"), sides, options.repeats)


def add(
    table: Table, names: tuple[object, ...], sides: dict[str, tuple[Callable[[], object], int]], repeats: int
) -> None:
    """Time the sides by turns, after one to warm up, and add a row for each."""
    least = dict.fromkeys(sides, np.inf)
    for turn in range(repeats + 1):
        for name, (work, queries) in sides.items():
            start = time.perf_counter()
            work()
            if turn:
                least[name] = min(least[name], 1e3 * (time.perf_counter() - start) / queries)
    for name, figure in least.items():
        table.add_row(*map(str, names), name, f"{figure:.4f}", f"{figure / least['Hamming']:.2f}")


def mean_ap(blocks: Iterator[RankedBlock]) -> float:
    """Return mAP, expected over ties."""
    return float(np.concatenate([average_precision(block).expected for block in blocks]).mean())


def sorted_ap(projections: np.ndarray, signs: np.ndarray, relevance: Relevance) -> float:
    """Return mAP by sorting each row of a matrix product."""
    found = []
    for scores, label in zip(projections @ signs.T, relevance.queries, strict=True):
        hits = relevance.gallery[np.argsort(-scores, kind="stable")] == label
        ranks = np.flatnonzero(hits) + 1
        found.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(found))


def table_neighbors(projections: np.ndarray, codes: Codes) -> list[np.ndarray]:
    """Return the nearest items of each query, not in order, from what each value of each byte adds."""
    bits = 8 * codes.packed.shape[1]
    padded = np.zeros((len(projections), bits), np.float32)
    padded[:, : codes.bits] = projections
    values = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) - 1
    found = []
    for query in padded:
        tables = query.reshape(-1, 8) @ values.T
        scores = np.zeros(len(codes), np.float32)
        for byte, entries in enumerate(tables):
            scores += entries[codes.packed[:, byte]]
        found.append(np.argpartition(-scores, K)[:K])
    return found


if __name__ == "__main__":
    main()
