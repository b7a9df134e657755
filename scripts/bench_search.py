"""Time search in hash tables beside faiss and beside other tables, in one process, and print the ratios.

    python scripts/bench_search.py                           everything: some hours where models have to be trained
    python scripts/bench_search.py --only scaling engines    some of it
    python scripts/bench_search.py --quick                   small data that is embedded: a minute or two
    python scripts/bench_search.py --run dataset.path=DIR    further keys of the runs that features come from
    python scripts/bench_search.py --output FOLDER           also bench_search.json and plots

What is compared; features and models are those of runs of `lshbench run` below --runs, made where they are missing:

engines   `buckets` with faiss.IndexBinaryMultiHash and IndexBinaryHash over the same random-projection codes, and with
          IndexLSH, which makes as many bits itself; none reads features.  Queries alone and in a batch, at equal
          recall@10, of ranking by Hamming distance (items as near as the tenth count) and of exact cosine (at shares
          of what ranking all codes by Hamming distance reaches of it);
scaling   microseconds a query at recall@10 of .9 of exact cosine, and bytes an item, for synthetic clusters of 10,000
          to 3 million items of 128 dimensions, 100 items a cluster: at every size 32 tables, some 16 items a bucket,
          and a shortlist of 100; the memory is that of the process, with the exact neighbours' search in it;
tables    candidates at recall@10 of .8 and .9: tables of `neural` and `fourier`, trained without labels, with tables of
          `random_projection` of the same size;
probes    how many tables reach the same recall with and without probing further buckets;
flat      `fourier` with labels and buckets, at most 2 % of the gallery scanned, with faiss.IndexFlatIP over the
          features: P@10, and single-query throughput with the query's encoding in it.

Settings of each side that reach the recall are timed; the fastest few are then timed by turns with those of the others,
and the least of their medians counts.  Ratios above 1 mean that ours is faster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import multiprocessing
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from bench_search_parts import (
    SINGLE,
    K,
    Options,
    Setting,
    by_turns,
    fastest,
    measured,
    opened,
    our_settings,
    silent,
    time_all,
    union,
)

from lshbench.data.synthetic import SyntheticSource
from lshbench.evaluation.tradeoff import overlap
from lshbench.index.buckets import BucketsIndex
from lshbench.methods.random_projection import RandomProjection
from lshbench.ranking.cosine import cosine_neighbors
from lshbench.ranking.hamming import hamming_neighbors
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.environment import peak_memory_bytes
from lshbench.runtime.threads import set_threads
from lshbench.types import Encoded, Features

TARGETS = (0.8, 0.9)
SHARES = (0.8, 0.95)
"""Of the recall of exact cosine that ranking all codes by Hamming distance reaches."""

_TIMES = ("single_us", "batch_us")

FINALISTS = 4
"""Settings of an engine that are timed by turns, those which were fastest when timed alone."""

PROBES_OF_ENGINES = [1, 2, 4, 8, 16, 24, 32, 37, 48, 56, 64, 79, 96, 128, 176]

FURTHER = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
"""Probes of `tables`."""

SOME = slice(0, 500)
"""Queries that candidates are counted for."""
NAMES = ("engines", "scaling", "tables", "probes", "flat")


# engines


def engines(options: Options) -> dict[str, Any]:
    """Compare with faiss' hashes of codes."""
    run = opened(options, "random_projection", ["method=random_projection", "bits=64"])
    some = slice(0, 500 if options.quick else 1000)
    gallery, queries = run.encode(run.gallery, "gallery"), run.encode(run.queries, "query", some)
    packed, asked, bits = gallery.binary.packed, queries.binary.packed, gallery.binary.bits
    tenth = hamming_neighbors(queries.binary, gallery.binary, K).distances[:, -1:]
    nearest = cosine_neighbors(queries.features, gallery.features, K).ids

    def recall(found: Any) -> dict[str, float]:
        ids = found.ids if hasattr(found, "ids") else found[1]
        far = np.bitwise_count(packed[ids] ^ asked[:, None]).sum(2)
        return {"hamming": float(((far <= tenth) & (ids >= 0)).mean()), "cosine": overlap(ids, nearest, K)}

    auto = max(4, round(np.log2(len(packed))) - 4)
    theirs: dict[str, list[Setting]] = {"IndexBinaryMultiHash": [], "IndexBinaryHash": []}
    for tables, size in (*itertools.product((1, 2, 4), (auto - 4, auto - 2, auto)), (4, 16), (8, 8)):
        if size > 1 and tables * size <= bits:
            index = faiss.IndexBinaryMultiHash(bits, tables, size)
            theirs["IndexBinaryMultiHash"] += _faiss_hash(index, packed, asked, f"{tables} x {size} bits", 3)
    for size in (auto - 4, auto - 2, auto, auto + 2):
        index = faiss.IndexBinaryHash(bits, max(2, size))
        theirs["IndexBinaryHash"] += _faiss_hash(index, packed, asked, f"{size} bits", 4)
    lsh = faiss.IndexLSH(gallery.features.shape[1], bits, True, False)
    centre = gallery.features.mean(0)
    lsh.add(np.ascontiguousarray(gallery.features - centre))
    centred = np.ascontiguousarray(queries.features - centre)
    theirs["IndexLSH"] = [_plain("IndexLSH", lsh, centred)]

    singles = 50 if options.quick else SINGLE
    flat = overlap(hamming_neighbors(queries.binary, gallery.binary, K).ids, nearest, K)
    targets = {"hamming": TARGETS, "cosine": [share * flat for share in SHARES]}
    engines = {engine: measured(settings, recall, targets) for engine, settings in theirs.items()}
    ours = engines["buckets"] = []
    for size in (auto - 4, auto - 2, auto, auto + 2):
        grid = {"tables": [1, 2, 4], "bits_per_table": max(2, size), "probes": PROBES_OF_ENGINES, "draw": "disjoint"}
        undirected = Encoded(queries.features, replace(queries.binary, projections=None))
        for asking, directed in ((queries, ""), (undirected, "by Hamming distance, ")):
            settings = our_settings(gallery, asking, directed, grid | {"rescore": "hamming"})
            ours += measured(settings, recall, targets)
    for settings in engines.values():
        time_all(settings, targets, len(asked), singles)
    print(f"ranking all codes by Hamming distance: recall@10 of exact cosine {flat:.3f}")
    rows = []
    goals = [(truth, target, what) for truth, values in targets.items() for target in values for what in _TIMES]
    for truth, target, what in goals:
        # IndexLSH has codes of its own: what is near by ours need not be near by them.
        sides = [name for name in ("buckets", *theirs) if truth == "cosine" or name != "IndexLSH"]
        finalists = [(name, own) for name in sides for own in fastest(engines[name], truth, target, what, FINALISTS)]
        times = by_turns([own for _, own in finalists], len(asked), singles, options.repeats)
        best: dict[str, tuple[float, str]] = {}
        for (name, own), both in zip(finalists, times, strict=True):
            best[name] = min(best.get(name, (math.inf, "")), (both[_TIMES.index(what)], own.name))
        missing = [name for name in sides if name not in best]
        shown = [f"{name} {took:.1f} us ({setting})" for name, (took, setting) in best.items()]
        shown += [f"{name} does not reach it" for name in missing]
        print(f"recall of {truth} {target:.3f}, {what[:-3]}: {'; '.join(shown)}", flush=True)
        if "buckets" in best:
            ratios = {name: took / best["buckets"][0] for name, (took, _) in best.items() if name != "buckets"}
            print("    " + ", ".join(f"{ratio:.2f} times {name}'s speed" for name, ratio in ratios.items()), flush=True)
        took = {name: {"us": time_us, "setting": setting} for name, (time_us, setting) in best.items()}
        rows.append({"truth": truth, "recall": target, "how": what[:-3], "engines": took})
    return {"hamming_recall_of_cosine": flat, "comparisons": rows}


def _plain(name: str, index: Any, queries: np.ndarray) -> Setting:
    rows = [queries[row : row + 1] for row in range(min(SINGLE, len(queries)))]
    return Setting(name, name, lambda: None, lambda: index.search(queries, K), lambda row: index.search(rows[row], K))


def _faiss_hash(index: Any, packed: np.ndarray, queries: np.ndarray, label: str, most: int) -> list[Setting]:
    index.add(packed)
    settings = []
    for flips in range(most + 1):
        setting = _plain(f"{label}, {flips} flips", index, queries)
        setting.group = label
        setting.prepare = lambda flips=flips: setattr(index, "nflip", flips)
        settings.append(setting)
    return settings


# scaling


def scaling(options: Options) -> dict[str, Any]:
    """Measure time and memory over sizes, each in a process of its own, whose peak of memory is then its own."""
    rows = []
    for items in options.sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(_one_size, (items, options.threads, options.repeats))
        print(
            f"{items:9,d} items: {row['single_us']:8.1f} us alone, {row['batch_us']:8.1f} us in a batch, recall "
            f"{row['recall']:.3f}, {row['candidates']:8,.0f} candidates, {row['bytes_per_item']:.1f} bytes an item "
            f"(its vector {row['vector_bytes']}), "
            f"built in {row['build_s']:.2f} s, {row['peak_bytes'] / 2**30:.2f} GiB at most ({row['setting']})",
            flush=True,
        )
        rows.append(row)
    sizes = np.log([row["items"] for row in rows])
    powers = {what: float(np.polyfit(sizes, np.log([row[what] for row in rows]), 1)[0]) for what in _TIMES}
    print("; ".join(f"{what[:-3]}: time grows as N to the power of {power:.2f}" for what, power in powers.items()))
    if options.output:
        _plot_scaling(rows, options.output / "bench_search_scaling.png")
    return {"rows": rows, "powers": powers}


TABLES, SHORTLIST = 32, 100
"""Of the scaling: the same for every size, so that an item takes as many bytes in each."""

PROBES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24]


def _one_size(items: int, threads: int, repeats: int) -> dict[str, Any]:
    set_threads(threads)
    source = SyntheticSource(items=items, queries=1000, dim=128, classes=items // 100, spread=0.5)
    data = source.open(cache_dir(), silent)
    x = data.gallery.read_features(np.arange(items), silent)
    q = data.query.read_features(np.arange(1000), silent)
    method = RandomProjection(bits=128, seed=0)
    method.fit(Features(x[:10_000], np.zeros(10_000, np.int64), np.arange(10_000)), silent)
    gallery = Encoded(x, method.encode(x, "gallery"))
    queries = Encoded(q, method.encode(q, "query", projections=True))
    exact = cosine_neighbors(q, x, K).ids
    our_settings(gallery[:100], queries, "", {"tables": 1, "bits_per_table": 2})  # loads what is compiled
    start = time.perf_counter()
    size = round(np.log2(items)) - 4
    grid = {"tables": TABLES, "bits_per_table": size, "probes": PROBES, "shortlist": SHORTLIST}
    settings = our_settings(gallery, queries, "", grid)
    build_s = time.perf_counter() - start
    targets = {"cosine": [0.9]}
    settings = measured(settings, lambda own: {"cosine": overlap(own.ids, exact, K)}, targets)
    time_all(settings, targets, len(queries), SINGLE)
    best = next(iter(fastest(settings, "cosine", 0.9, "single_us")), None)
    if best is None:
        raise RuntimeError(f"no setting reaches a recall of .9 for {items} items")
    ((single, batch),) = by_turns([best], len(queries), SINGLE, repeats)
    return {
        "items": items,
        "build_s": build_s,
        "bytes_per_item": best.bytes_per_item,
        "vector_bytes": x.shape[1] * x.itemsize,
        "single_us": single,
        "batch_us": batch,
        "recall": best.recall["cosine"],
        "candidates": best.candidates,
        "setting": best.name,
        "peak_bytes": peak_memory_bytes(),
    }


def _plot_scaling(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    from lshbench.plots.style import REFERENCE, RUN, SCREEN, VALIDATION, drawing, dress, head, legend, write_figure

    items = np.array([row["items"] for row in rows])
    figure = drawing(SCREEN, SCREEN.double, SCREEN.height)
    head(figure, "Hash tables at recall@10 of .9", "synthetic clusters of 100 items, 128 dimensions")
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.25})
    for what, label, colour in (("single_us", "alone", RUN), ("batch_us", "in a batch", VALIDATION)):
        left.plot(items, [row[what] for row in rows], "o-", color=colour, label=label)
    root = rows[0]["single_us"] * np.sqrt(items / items[0])
    left.plot(items, root, "--", color=REFERENCE, label="growth as the square root")
    left.set(xscale="log", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_minor_locator(NullLocator())
    legend(left)
    taken = [row["bytes_per_item"] for row in rows]
    right.plot(items, taken, "o-", color=RUN)
    right.set(xscale="log", ylim=(0, 1.25 * max(taken)))
    thousands = FuncFormatter(lambda value, _: f"{value:,.0f}")
    left.yaxis.set_major_formatter(thousands)
    for axes, label in ((left, "microseconds a query"), (right, "bytes an item, beside its vector's")):
        dress(axes, x="gallery items", y=label)
        axes.xaxis.set_major_formatter(thousands)
    with path.open("wb") as file:
        write_figure(figure, file)


# tables, probes, flat


def tables(options: Options) -> dict[str, Any]:
    """Compare the candidates that tables of trained codes and of random ones need for the same recall."""
    methods = {
        "random_projection": ["method=random_projection", "bits=64"],
        "neural": ["method=neural_unsupervised", "bits=64"],
        "fourier": ["method=fourier_unsupervised", "bits=64"],
    }
    found: dict[tuple[int, int], dict[str, list[tuple[float, float]]]] = {}
    for name, keys in methods.items():
        run = opened(options, name if name == "random_projection" else f"{name}_unsupervised", keys)
        gallery, queries = run.encode(run.gallery, "gallery"), run.encode(run.queries, "query", SOME)
        exact = cosine_neighbors(queries.features, gallery.features, K).ids
        auto = max(4, round(np.log2(len(gallery))) - 4)
        for size, count in itertools.product(_sizes(auto, 6, 4, 2), (4, 8, 16)):
            own = found.setdefault((size, count), {})[name] = []
            index = BucketsIndex(tables=count, bits_per_table=size, probes=FURTHER, rescore="hamming")
            index.build(gallery)
            for point in index.points():
                index.set_point(point)
                own.append(union(index, queries, exact))
                if own[-1][0] >= TARGETS[-1]:
                    break
    rows = []
    for (size, count), methods_found in found.items():
        for target in TARGETS:
            needed = {name: _candidates_at(own, target) for name, own in methods_found.items()}
            shown = ", ".join(f"{name} {text}" for name, (_, text) in needed.items())
            print(f"{count} tables of {size} bits, recall {target}: candidates {shown}", flush=True)
            counted = {name: text if number is None else number for name, (number, text) in needed.items()}
            rows.append({"bits": size, "tables": count, "recall": target, "candidates": counted})
    return {"rows": rows}


def _sizes(auto: int, *less: int) -> list[int]:
    """Return bits a table, fewer than those that give some 16 items a bucket, and at least 2."""
    return sorted({max(2, auto - bits) for bits in less})


def _candidates_at(settings: list[tuple[float, float]], target: float) -> tuple[float | None, str]:
    """Return the candidates at a recall, between the neighbouring settings, and how they are shown.

    None where no setting reaches it, or all are beyond it.
    """
    recalls, counts = zip(*settings, strict=True)
    if recalls[0] > target:
        return None, f"below {counts[0]:,.0f}"
    if recalls[-1] < target:
        return None, f"above {counts[-1]:,.0f}"
    number = float(np.interp(target, recalls, counts))
    return number, f"{number:,.0f}"


def probes(options: Options) -> dict[str, Any]:
    """Compare how many tables reach a recall with and without further probes."""
    run = opened(options, "random_projection", ["method=random_projection", "bits=64"])
    gallery, queries = run.encode(run.gallery, "gallery"), run.encode(run.queries, "query", SOME)
    exact = cosine_neighbors(queries.features, gallery.features, K).ids
    auto = max(4, round(np.log2(len(gallery))) - 4)
    counts, values = [*range(1, 9), 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128], [1, 2, 4, 8, 16, 32, 64]
    rows = []
    for size in _sizes(auto, 4, 2, 0):
        index = BucketsIndex(tables=counts, bits_per_table=size, probes=values, rescore="hamming").build(gallery)
        found: dict[int, list[tuple[int, float, float]]] = {}
        for value in values:
            own = found[value] = []
            for count in counts:
                index.set_point({"tables": count, "probes": value})
                own.append((count, *union(index, queries, exact)))
                if own[-1][1] >= TARGETS[-1]:
                    break
        for target, value in itertools.product(TARGETS, values):
            enough = next((setting for setting in found[value] if setting[1] >= target), None)
            row = {"bits": size, "recall": target, "probes": value}
            if enough is None:
                print(f"recall {target}, {size} bits, {value} probes: more than {counts[-1]} tables", flush=True)
            else:
                print(
                    f"recall {target}, {size} bits, {value} probes: {enough[0]} tables, {enough[2]:,.0f} candidates",
                    flush=True,
                )
                row |= {"tables": enough[0], "candidates": enough[2]}
            rows.append(row)
    return {"rows": rows}


def flat(options: Options) -> dict[str, Any]:
    """Compare supervised codes in tables with faiss' exact cosine scan, encoding included."""
    run = opened(options, "fourier", ["method=fourier", "bits=64"])
    gallery, queries = run.encode(run.gallery, "gallery"), run.encode(run.queries, "query")
    units = np.ascontiguousarray(gallery.features / np.linalg.norm(gallery.features, axis=1, keepdims=True))
    exact = faiss.IndexFlatIP(units.shape[1])
    exact.add(units)
    labels, asked = run.gallery.y, run.queries.y

    def precision(ids: np.ndarray) -> float:
        return float(((labels[ids] == asked[:, None]) & (ids >= 0)).mean())

    theirs = precision(exact.search(np.ascontiguousarray(queries.features), K)[1])
    auto = max(4, round(np.log2(len(gallery))) - 4)
    best: tuple[float, BucketsIndex, dict[str, int], float, str] | None = None
    for rescore in ("cosine", "hamming", "embedding"):
        for size in (auto, auto + 4, auto + 8):
            index = BucketsIndex(tables=[1, 2, 4, 8], bits_per_table=size, probes=[1, 2, 4, 8], rescore=rescore)
            index.build(gallery)
            for point in index.points():
                index.set_point(point)
                found = index.search(queries, K)
                ours, share = precision(found.ids), float(found.candidates.mean()) / len(gallery)
                if share <= (0.2 if options.quick else 0.02) and (best is None or ours > best[0]):
                    best = ours, index, point, share, rescore
    if best is None:
        raise RuntimeError("every setting scans too much of the gallery")
    ours, index, point, share, rescore = best
    index.set_point(point)
    scan = Setting("flat", "", lambda: None, lambda: None, lambda row: exact.search(run.queries.x[row : row + 1], K))
    search = Setting(
        "buckets",
        "",
        lambda: None,
        lambda: None,
        lambda row: index.search(run.encode(run.queries, "query", slice(row, row + 1)), K),
    )
    singles = min(len(queries), 50 if options.quick else SINGLE)
    pair = by_turns([search, scan], 1, singles, options.repeats)
    print(
        f"P@10 {ours:.3f} (exact cosine {theirs:.3f}), {share:.2%} scanned, {point}, rescored by {rescore}: "
        f"{pair[0][0]:.0f} us with encoding, faiss' exact scan {pair[1][0]:.0f} us: "
        f"{pair[1][0] / pair[0][0]:.1f} times",
        flush=True,
    )
    figures = {"P@10": ours, "exact_P@10": theirs, "fraction": share, "point": point, "rescore": rescore}
    return figures | {"ours_us": pair[0][0], "theirs_us": pair[1][0]}


def main() -> None:
    """Read options, run what was asked for, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="which comparisons")
    parser.add_argument("--quick", action="store_true", help="the digits' pixels, small sizes, one repeat")
    parser.add_argument("--dataset", help="the runs' data set; cifar100_images by default")
    parser.add_argument("--run", nargs="*", default=[], help="further keys of the runs, such as dataset.path=DIR")
    parser.add_argument("--runs", type=Path, default=Path("outputs/bench_search"), help="where the runs are")
    parser.add_argument("--sizes", type=int, nargs="+", help="items of the scaling; 10,000 to 3 million by default")
    parser.add_argument("--threads", type=int, help="threads of every library; all cores by default")
    parser.add_argument("--repeats", type=int, help="repeats that medians are taken of; 5 by default")
    parser.add_argument("--output", type=Path, help="folder for bench_search.json and plots")
    given = parser.parse_args()
    logging.getLogger("faiss").setLevel(logging.WARNING)
    small = ["backbone=pixels", "backbone.image_size=8"] if given.quick and given.dataset is None else []
    large = ["backbone.image_size=128"] if given.dataset is None and not given.quick else []
    options = Options(
        quick=given.quick,
        repeats=given.repeats or (1 if given.quick else 5),
        threads=set_threads(given.threads),
        runs=given.runs.absolute(),
        dataset=given.dataset or ("digits" if given.quick else "cifar100_images"),
        keys=[*small, *large, *given.run],
        sizes=given.sizes
        or ([10_000, 20_000] if given.quick else [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000]),
        output=given.output,
    )
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    print(f"{options.threads} threads, {options.repeats} repeats")
    result: dict[str, Any] = {
        "threads": options.threads,
        "repeats": options.repeats,
        "machine": platform.processor() or platform.machine(),
    }
    works = {"engines": engines, "scaling": scaling, "tables": tables, "probes": probes, "flat": flat}
    for name in given.only:
        print(f"\n{name}", flush=True)
        result[name] = works[name](options)
    if options.output:
        (options.output / "bench_search.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(f"written to {options.output}")


if __name__ == "__main__":
    main()
