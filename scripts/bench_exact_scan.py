"""Time exact search by cosine beside faiss and one matrix product, by turns in one process, and print the ratios.

    python scripts/bench_exact_scan.py                                                  about ten minutes, 12 GiB
    python scripts/bench_exact_scan.py --items 10000 --dimensions 64 --repeats 3        seconds

Of random unit vectors the 100 nearest are searched: for queries alone and for all at once,

- by lshbench (`lshbench.ranking.cosine`), which every index of a run is compared with;
- by faiss.IndexFlatIP;
- not at all: `gallery @ query`, or `queries @ gallery.T` for the batch, makes the similarities and finds nothing.

A figure is the median of milliseconds a query.  The last two columns are times of lshbench divided by those of the
others: below 1, lshbench is faster.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

from lshbench.runtime.threads import available_cores, let_waiting_threads_sleep, set_threads

K = 100
ROW = "{:>9} {:>10} {:>7} {:>7} {:>9} {:>9} {:>9} {:>7} {:>9}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="in the gallery")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[64, 256, 1280])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, available_cores()])
    parser.add_argument("--queries", type=int, default=256, help="of the batch")
    parser.add_argument("--repeats", type=int, default=7, help="turns, of which the median counts")
    options = parser.parse_args()
    let_waiting_threads_sleep()  # as in a run; heeded by libraries that are yet to be imported

    heading = ("items", "dimensions", "threads", "queries", "lshbench", "faiss", "product", "/ faiss", "/ product")
    print(ROW.format(*heading), flush=True)
    for items in options.items:
        for dimensions in options.dimensions:
            measure(options, items, dimensions)


def measure(options: argparse.Namespace, items: int, dimensions: int) -> None:
    """Print the rows of one gallery: queries alone and together, for each number of threads."""
    import faiss
    import numpy as np

    from lshbench.ranking.cosine import VectorGallery, cosine_neighbors

    generator = np.random.default_rng(0)
    vectors, queries = (generator.standard_normal((n, dimensions), np.float32) for n in (items, options.queries))
    for rows in (vectors, queries):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(dimensions)
    index.add(vectors)
    gallery = VectorGallery.from_vectors(vectors)
    one = queries[:1]
    found = cosine_neighbors(queries, gallery, K).ids
    assert (found == index.search(queries, K)[1]).mean() > 0.999, "they find the same"
    for threads in dict.fromkeys(options.threads):
        set_threads(threads)
        for name, asked in (("1", one), (str(options.queries), queries)):
            sides: list[Callable[[], object]] = [
                lambda asked=asked: cosine_neighbors(asked, gallery, K),
                lambda asked=asked: index.search(asked, K),
                (lambda: vectors @ one[0]) if len(asked) == 1 else (lambda: queries @ vectors.T),
            ]
            ours, theirs, product = (1e3 * seconds / len(asked) for seconds in by_turns(sides, options.repeats))
            figures = [f"{value:.3f}" for value in (ours, theirs, product)]
            ratios = [f"{ours / theirs:.2f}", f"{ours / product:.2f}"]
            print(ROW.format(f"{items:,}", dimensions, threads, name, *figures, *ratios), flush=True)


def by_turns(sides: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median of the seconds that each side takes, after one turn to warm up.

    The order changes with every turn: each side finds the caches and the others' threads as another left them.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    generator, order = random.Random(0), list(range(len(sides)))
    for turn in range(repeats + 1):
        generator.shuffle(order)
        for number in order:
            start = time.perf_counter()
            sides[number]()
            if turn:
                seconds[number].append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


if __name__ == "__main__":
    main()
