"""Time ranking and metrics beside the usual ways of computing them, in one process, and print the ratios.

    python scripts/bench_metrics.py                      all but e., some ten minutes on two cores
    python scripts/bench_metrics.py --quick              fewer queries, one repeat: a minute or two
    python scripts/bench_metrics.py --output docs        also docs/bench_metrics.json, and a plot of time and memory
    python scripts/bench_metrics.py --parts imagenet     e. alone; with --output, added to what is there

What is compared, for random codes and ten classes, medians of several repeats after a warm-up:

a. (hamming) expected mAP with both bounds, P@10 and P@50 of 10,000 queries against 50,000 codes, from packed codes to
   per-query numbers: with the loop of deep-hashing code (a matrix-vector product and an argsort for each query; timed
   on a sample of the queries, as its time is proportional to them), and with a bare kernel that only XORs, counts bits
   and fills one histogram a query;
b. (hamming) the exact nearest 100 for the same, with faiss.IndexBinaryFlat;
c. (large) as a., without a comparison, for 50,000 queries against 1.28 million codes of 64 bits, with peak memory;
d. (cosine) mAP by cosine of 10,000 x 50,000 x 1,280, with the matrix product alone;
e. (imagenet) mAP by cosine of some queries against 1.28 million vectors of 256 numbers in a memory map, with the
   memory beyond the map, and what 50,000 queries would take;
f. (lists) 10,000 queries against 1.28 million codes of 64 bits, with 100 relevant items listed for each and by labels.

Ratios above 1 mean that ours is faster, except for the bare kernel and the matrix product: ours does more, and its time
is given as a multiple of theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numba
import numpy as np
from numba import njit, prange

from lshbench.kernels.words import code_words, popcount
from lshbench.metrics.average_precision import average_precision
from lshbench.metrics.precision import precision_at
from lshbench.ranking.cosine import MOST_QUERIES, VectorGallery, cosine_blocks
from lshbench.ranking.hamming import CodeGallery, hamming_blocks, hamming_neighbors
from lshbench.relevance.base import listed_pairs
from lshbench.runtime.threads import set_threads
from lshbench.types import Codes, RankedBlock, Relevance

CLASSES = 10
LISTED = 100
"""Relevant rows that each query lists."""
BITS = (16, 64, 128, 256, 1000)
PARTS = ("hamming", "large", "lists", "cosine", "imagenet", "plot")
IMAGENET = 1_280_000, 50_000
"""Gallery and queries."""


@njit(parallel=True)
def bare_histograms(queries: np.ndarray, words: np.ndarray, counts: np.ndarray) -> None:
    """XOR, count bits, fill one histogram a query: the least that a ranking by Hamming distance takes."""
    for i in prange(len(queries)):
        counts[i] = 0
        if words.shape[0] == 1:
            query = queries[i, 0]
            for word in words[0]:
                counts[i, popcount(query ^ word)] += np.uint32(1)
        else:
            for item in range(words.shape[1]):
                distance = np.uint64(0)
                for plane in range(words.shape[0]):
                    distance += popcount(queries[i, plane] ^ words[plane, item])
                counts[i, distance] += np.uint32(1)


def argsort_loop(queries: np.ndarray, gallery: np.ndarray, relevance: Relevance) -> tuple[float, float, float]:
    """Return mAP@all, P@10 and P@50 as deep-hashing code computes them: query by query, from codes of -1 and 1."""
    precisions = np.zeros(3)
    for i in range(len(queries)):
        hits = relevance.gallery == relevance.queries[i]
        distances = 0.5 * (gallery.shape[1] - queries[i] @ gallery.T)
        hits = hits[np.argsort(distances)].astype(np.float32)
        found = int(hits.sum())
        if found:
            ranks = np.flatnonzero(hits) + 1.0
            precisions += np.mean(np.arange(1, found + 1) / ranks), hits[:10].mean(), hits[:50].mean()
    return tuple(precisions / len(queries))


def measures(block: RankedBlock) -> list[np.ndarray]:
    """Return what a. times: AP with both bounds, P@10 and P@50."""
    return [*average_precision(block), *precision_at(block, 10), *precision_at(block, 50)]


def hamming_measures(queries: Codes, gallery: Codes, relevance: Relevance) -> np.ndarray:
    """Return the means of :func:`measures`."""
    blocks = [measures(block) for block in hamming_blocks(queries, gallery, relevance, positions=0)]
    return np.array([np.concatenate(parts).mean() for parts in zip(*blocks, strict=True)])


def seconds(*works: Callable[[], object], repeats: int) -> list[float]:
    """Return the median time of each work; they take turns, so that disturbances fall on all alike."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(repeats):
        for work, own in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def peak_beyond(work: Callable[[], object]) -> tuple[float, int | None]:
    """Return the time of a work and how far memory rose above what was in use before; None off Linux."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def resident(field: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024

    before = None
    with contextlib.suppress(OSError):
        clear.write_text("5")  # sets the peak back to what is in use now
        before = resident("VmRSS")
    start = time.perf_counter()
    work()
    taken = time.perf_counter() - start
    return taken, None if before is None else resident("VmHWM") - before


def random_codes(random: np.random.Generator, items: int, bits: int) -> Codes:
    """Return codes of independent fair bits."""
    return Codes(random.integers(0, 256, (items, bits // 8), np.uint8), bits)


def random_labels(random: np.random.Generator, queries: int, gallery: int) -> Relevance:
    """Return labels of ten classes."""
    return Relevance(random.integers(0, CLASSES, queries), random.integers(0, CLASSES, gallery))


def compare_hamming(bits: int, queries: int, gallery: int, sample: int, repeats: int) -> dict[str, float]:
    """Run a. and b. for one code length."""
    random = np.random.default_rng(bits)
    ours, theirs = random_codes(random, queries, bits), random_codes(random, gallery, bits)
    relevance = random_labels(random, queries, gallery)
    words, planes = np.ascontiguousarray(code_words(ours).T), code_words(theirs)
    counts = np.empty((queries, bits + 1), np.uint32)
    some = Codes(ours.packed[:sample], bits)
    signs = [2 * side.unpack().astype(np.float32) - 1 for side in (some, theirs)]

    full, bare = seconds(
        lambda: hamming_measures(ours, theirs, relevance),
        lambda: bare_histograms(words, planes, counts),
        repeats=repeats,
    )
    few = relevance.rows(0, sample)
    (loop,) = seconds(lambda: argsort_loop(*signs, few), repeats=repeats)
    loop *= queries / sample
    # The loop's order of ties is one of those that the bounds span.
    expected, best, worst = hamming_measures(some, theirs, few)[:3]
    mean = argsort_loop(*signs, few)[0]
    assert worst - 1e-6 <= mean <= best + 1e-6, (worst, mean, expected, best)

    index = faiss.IndexBinaryFlat(bits)
    index.add(theirs.packed)
    prepared = CodeGallery.from_codes(theirs)
    near, flat = seconds(
        lambda: hamming_neighbors(ours, prepared, 100), lambda: index.search(ours.packed, 100), repeats=repeats
    )
    assert np.array_equal(hamming_neighbors(ours, prepared, 100).distances, index.search(ours.packed, 100)[0])
    print(
        f"{bits:5d} bits  measures {full:7.3f} s   argsort loop {loop:7.1f} s ({loop / full:6.0f} times ours)   "
        f"bare kernel {bare:6.3f} s (ours {full / bare:4.2f} times)   "
        f"top 100 {near:6.3f} s   faiss {flat:6.3f} s ({flat / near:4.1f} times ours)",
        flush=True,
    )
    return {"measures": full, "loop": loop, "bare": bare, "top100": near, "faiss": flat}


def large(queries: int, gallery: int, bits: int = 64) -> dict[str, float | None]:
    """Run c., or one point of the plot, in a process of its own: memory that another left free would hide its need."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        taken, memory = pool.apply(_large, (queries, gallery, bits, numba.get_num_threads()))
    room = "" if memory is None else f", {memory / 2**20:,.0f} MiB beyond codes and labels"
    print(f"{queries:,} x {gallery:,} x {bits} bits: {taken:.3f} s{room}", flush=True)
    return {"queries": queries, "gallery": gallery, "bits": bits, "seconds": taken, "bytes": memory}


def _large(queries: int, gallery: int, bits: int, threads: int) -> tuple[float, int | None]:
    set_threads(threads)
    random = np.random.default_rng(0)
    few = random_codes(random, 100, bits)
    hamming_measures(few, few, random_labels(random, 100, 100))  # loads the compiled code
    ours, theirs = random_codes(random, queries, bits), random_codes(random, gallery, bits)
    relevance = random_labels(random, queries, gallery)
    return peak_beyond(lambda: hamming_measures(ours, theirs, relevance))


def compare_lists(queries: int, gallery: int, repeats: int, bits: int = 64) -> dict[str, float]:
    """Rank by listed rows and by labels, with the positions that published definitions need and without."""
    random = np.random.default_rng(1)
    ours, theirs = random_codes(random, queries, bits), CodeGallery.from_codes(random_codes(random, gallery, bits))
    labels = random_labels(random, queries, gallery)
    rows = random.integers(0, gallery // LISTED, (queries, LISTED)) + gallery // LISTED * np.arange(LISTED)
    listed = listed_pairs(np.repeat(np.arange(queries), LISTED), rows.ravel(), np.ones(rows.size), queries)
    lists = Relevance.of_lists(listed, gallery)

    def work(relevance: Relevance, positions: int) -> Callable[[], object]:
        return lambda: [measures(block) for block in hamming_blocks(ours, theirs, relevance, positions=positions)]

    kinds = {"labels": (labels, 0), "lists": (lists, 0), "labels_5000": (labels, 5000), "lists_5000": (lists, 5000)}
    found = dict(zip(kinds, seconds(*(work(*kind) for kind in kinds.values()), repeats=repeats), strict=True))
    print(
        f"{queries:,} x {gallery:,} x {bits} bits, {LISTED} listed: lists {found['lists']:.2f} s, labels "
        f"{found['labels']:.2f} s; with the first 5,000 positions {found['lists_5000']:.2f} s and "
        f"{found['labels_5000']:.2f} s",
        flush=True,
    )
    return found


def compare_cosine(queries: int, gallery: int, dimensions: int, repeats: int) -> dict[str, float]:
    """Run d."""
    random = np.random.default_rng(0)
    ours, theirs = (random.standard_normal((n, dimensions), np.float32) for n in (queries, gallery))
    relevance = random_labels(random, queries, gallery)
    product = np.empty((min(MOST_QUERIES, queries), gallery), np.float32)

    def multiply() -> None:
        for start in range(0, queries, len(product)):
            rows = ours[start : start + len(product)]
            np.matmul(rows, theirs.T, out=product[: len(rows)])

    full, bare = seconds(
        lambda: [measures(block) for block in cosine_blocks(ours, theirs, relevance, positions=0)],
        multiply,
        repeats=repeats,
    )
    print(
        f"cosine {queries:,} x {gallery:,} x {dimensions:,}: {full:.2f} s   "
        f"matrix product {bare:.2f} s (ours {full / bare:4.2f} times)",
        flush=True,
    )
    return {"measures": full, "product": bare}


def imagenet(queries: int, gallery: int, dimensions: int) -> dict[str, float | None]:
    """Run e., in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        taken, memory = pool.apply(_imagenet, (queries, gallery, dimensions, numba.get_num_threads()))
    room = "" if memory is None else f", {memory / 2**20:,.0f} MiB beyond vectors and labels"
    print(
        f"cosine {queries:,} x {gallery:,} x {dimensions:,}, memory map: {taken:.2f} s{room}; "
        f"{IMAGENET[1]:,} queries at that rate: {taken * IMAGENET[1] / queries / 60:.0f} min",
        flush=True,
    )
    return {
        "queries": queries,
        "gallery": gallery,
        "dimensions": dimensions,
        "seconds": taken,
        "bytes": memory,
    }


def _imagenet(queries: int, gallery: int, dimensions: int, threads: int) -> tuple[float, int | None]:
    set_threads(threads)
    random = np.random.default_rng(0)
    ours = random.standard_normal((queries, dimensions), np.float32)
    some = random_labels(random, queries, 100)
    list(cosine_blocks(ours, ours[:100], some, positions=0))  # loads the compiled code
    relevance = Relevance(random.integers(0, 1000, queries), random.integers(0, 1000, gallery))
    with tempfile.TemporaryDirectory() as folder:
        vectors = np.lib.format.open_memmap(Path(folder) / "x.npy", "w+", np.float32, (gallery, dimensions))
        for start in range(0, gallery, 1 << 14):
            rows = vectors[start : start + (1 << 14)]
            rows[:] = random.standard_normal(rows.shape, np.float32)
        prepared = VectorGallery.from_vectors(vectors)  # once, however many queries there are
        return anonymous_peak(
            lambda: [measures(block) for block in cosine_blocks(ours, prepared, relevance, positions=0)]
        )


def anonymous_peak(work: Callable[[], object]) -> tuple[float, int | None]:
    """Return the time of a work and how far its memory rose, pages of mapped files left out; None off Linux.

    The kernel keeps no peak of that: it is read every few milliseconds.
    """
    status = Path("/proc/self/status")
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        seen.append(int(line.split()[1]) * 1024)

    def watch() -> None:
        while not done.wait(0.005):
            read()

    known = status.exists()
    watcher = threading.Thread(target=watch)
    if known:
        read()
        watcher.start()
    start = time.perf_counter()
    work()
    taken = time.perf_counter() - start
    done.set()
    if not known:
        return taken, None
    watcher.join()
    return taken, max(seen) - seen[0]


def plot(sizes: list[dict], widths: list[dict], path: Path) -> None:
    """Draw time and memory against the gallery's size and the code's length."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    from lshbench.plots.style import REFERENCE, RUN, SCREEN, drawing, dress, head, write_figure

    figure = drawing(SCREEN, SCREEN.double, 6.6)
    head(
        figure,
        f"Expected mAP with bounds, P@10 and P@50 of {sizes[0]['queries']:,} queries",
        "rankings by Hamming distance of the whole gallery",
    )
    axes = figure.subplots(2, 2, sharex="col", sharey="row", gridspec_kw={"wspace": 0.08, "hspace": 0.1})
    columns = [
        (sizes, "gallery", f"gallery items ({sizes[0]['bits']} bits)"),
        (widths, "bits", f"bits a code ({widths[0]['gallery']:,} items)"),
    ]
    for column, (runs, key, label) in enumerate(columns):
        x = [run[key] for run in runs]
        rows = [
            ("microseconds a query", [1e6 * run["seconds"] / run["queries"] for run in runs], RUN),
            (
                "peak MiB beyond codes and labels",
                [np.nan if run["bytes"] is None else run["bytes"] / 2**20 for run in runs],
                REFERENCE,
            ),
        ]
        for row, (name, values, colour) in enumerate(rows):
            axis = axes[row, column]
            axis.plot(x, values, "o-", color=colour, markersize=5, linewidth=SCREEN.line)
            for place, value in zip(x, values, strict=True):
                if np.isfinite(value):
                    axis.annotate(
                        f"{value:.0f}", (place, value), (0, 7), textcoords="offset points", ha="center", fontsize=8
                    )
            dress(axis, x=label if row else "", y="" if column else name)
            axis.set(xscale="log", yscale="log")
            axis.margins(0.08, 0.15)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
        axes[1, column].set_xticks(x, [_short(number) for number in x])
        axes[1, column].xaxis.set_minor_locator(NullLocator())
    with path.open("wb") as file:
        write_figure(figure, file)


def _short(number: int) -> str:
    """Return 640k for 640,000 and 1.28M for 1,280,000."""
    for size, letter in ((1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (size if letter == 'M' else 1000):g}{letter}"
    return f"{number:,}"


def main() -> None:
    """Read options, run everything, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer queries, one repeat")
    parser.add_argument("--output", type=Path, help="folder for bench_metrics.json and bench_metrics.png")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="what to run (default: all but imagenet)")
    parser.add_argument("--threads", type=int, help="threads of every library; all cores by default")
    parser.add_argument("--repeats", type=int, help="repeats that medians are taken of; 5 by default")
    options = parser.parse_args()
    parts = options.parts or [part for part in PARTS if part != "imagenet"]
    threads = set_threads(options.threads)
    repeats = options.repeats or (1 if options.quick else 5)
    queries, sample = (2_000, 50) if options.quick else (10_000, 500)
    print(f"{threads} threads, {repeats} repeats; {queries:,} queries against 50,000 codes", flush=True)
    result: dict[str, object] = {
        "threads": threads,
        "repeats": repeats,
        "queries": queries,
        "machine": platform.processor() or platform.machine(),
    }
    if "hamming" in parts:
        result["hamming"] = {bits: compare_hamming(bits, queries, 50_000, sample, repeats) for bits in BITS}
    if "large" in parts:
        result["large"] = large(2_000 if options.quick else IMAGENET[1], IMAGENET[0])
    if "lists" in parts:
        result["lists"] = compare_lists(500 if options.quick else 10_000, IMAGENET[0], repeats)
    if "cosine" in parts:
        result["cosine"] = compare_cosine(500 if options.quick else 10_000, 50_000, 1_280, repeats)
    if "imagenet" in parts:
        result["imagenet"] = imagenet(512, IMAGENET[0], 256)
    if not options.output:
        return
    options.output.mkdir(parents=True, exist_ok=True)
    if "plot" in parts:
        count = 500 if options.quick else 2_000
        sizes = [large(count, size) for size in (10_000, 40_000, 160_000, 640_000, 1_280_000)]
        widths = [large(count, 50_000, bits) for bits in (16, 64, 128, 256, 512, 1000, 4096)]
        result |= {"sizes": sizes, "widths": widths}
        plot(sizes, widths, options.output / "bench_metrics.png")
    file = options.output / "bench_metrics.json"
    if file.exists():
        earlier = json.loads(file.read_text())
        # Parts timed apart, in the same way, make one file.
        if all(earlier.get(key) == result[key] for key in ("threads", "repeats", "queries", "machine")):
            result = earlier | result
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
