"""Damage run folders in some way: every command that opens one must give the right answer or one message.

    python scripts/fuzz_runs.py                      2,000 damages, some minutes on two cores
    python scripts/fuzz_runs.py --cases 50 --seed 3  other ones
    python scripts/fuzz_runs.py --only 137           one of them, with all that it printed

Runs with most indexes are made once.  A case takes one, damages one of its files (bits turned, bytes changed, zeroed,
cut off or added; another file, a folder, a pipe, a device or a link in its place; values out of range, other shapes and
types; no file at all), and searches, reports or verifies it.  In half of the cases the manifest is written anew, as
somebody would who means harm: checksums then fit, and what compiled code reads is all that stands between the damage
and the interpreter.

A case passes if its process ends with 0 and the right answer, or with 2 and exactly one message.  Where the manifest
fits, any answer counts as right, as nobody can tell.  It fails if it ends with 1, by a signal, with a traceback, or if
it takes more than 60 s or 2 GiB.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Before the libraries are loaded: with one thread nothing is lost when a process is forked.
    os.environ |= {"NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue", "OMP_NUM_THREADS": "1"}

import numpy as np
from fuzz_inputs import pick
from fuzz_processes import BYTES, Outcome, Trial, Tried, attempt, command, in_processes

LIBRARIES = (
    "faiss",
    "hydra.main",
    "numba",
    "pyarrow.parquet",
    "rich.console",
    "rich.table",
    "safetensors.numpy",
    "torch",
)
MODULES = (
    "lshbench.cli", "lshbench.experiment", "lshbench.commands.report", "lshbench.commands.run",
    "lshbench.commands.search", "lshbench.commands.verify", "lshbench.data.synthetic", "lshbench.report.report",
    "lshbench.report.render", "lshbench.search.answers", "lshbench.search.searcher",
)  # fmt: skip
BARE = (
    "evaluation.definitions=false", "evaluation.plots=false", "reference.time=false", "threads=1", "dataset=synthetic",
    "dataset.items=200", "dataset.queries=12", "dataset.dim=16", "dataset.classes=3", "method=random_projection",
    "bits=20",
)  # fmt: skip
RUNS: dict[str, tuple[str, ...]] = {
    "flat": ("evaluation.plots=true",),
    "flat by cosine": ("ranking=cosine",),
    "flat features": ("method=none",),
    "buckets": ("index=buckets", "index.tables=[2,3]", "index.probes=3"),
    "buckets shortlist": ("index=buckets", "index.tables=2", "index.shortlist=20", "index.bits_per_table=14"),
    "buckets hamming": ("index=buckets", "index.tables=1", "index.rescore=hamming", "bits=70"),
    "buckets embedding": ("index=buckets", "index.tables=2", "index.rescore=embedding", "index.bits_per_table=16"),
    "ivf": ("method=kmeans", "method.clusters=5", "index=ivf", "index.nprobe=2"),
    "ivf features": ("method=none", "index=ivf", "index.clusters=4", "index.nprobe=2"),
    "lsh": ("method=none", "index=lsh", "index.nbits=21", "index.train_thresholds=true"),
    "hnsw": ("method=none", "index=hnsw", "index.m=4", "index.ef_search=30"),
    "binary_hash": ("index=binary_hash", "index.nflip=1"),
    "binary_multi_hash": ("index=binary_multi_hash", "index.nhash=2", "index.nflip=1"),
    "binary_ivf": ("index=binary_ivf", "index.nlist=6", "index.nprobe=2"),
    "trained": ("method=neural", "method.training.epochs=1", "method.head.hidden=[8]", "pca.dim=0.9"),
    "fourier": ("method=fourier", "method.training.epochs=1", "method.head.hidden=[8]", "method.map_dim=4"),
}
COMMANDS = {
    "search": ["search", "run", "queries.npy", "-k", "5", "--format", "json"],
    "report": ["report", "run", "--format", "csv", "--resamples", "100"],
    "page": ["report", "run", "--format", "html", "--resamples", "100"],
    "verify": ["verify", "run"],
}
SHARES = {"search": 0.65, "report": 0.15, "page": 0.1, "verify": 0.1}
RIGHT: dict[tuple[str, str], str] = {}
"""What each command says of each run that nothing is wrong with."""


# Damages: each changes one file, whose content it is given


def flip(generator: np.random.Generator, content: bytearray) -> None:
    content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))


def change(generator: np.random.Generator, content: bytearray) -> None:
    for place in generator.integers(len(content), size=int(generator.integers(1, 20))):
        content[place] = int(generator.integers(256))


def zero(generator: np.random.Generator, content: bytearray) -> None:
    start, stop = sorted(generator.integers(len(content) + 1, size=2).tolist())
    content[start:stop] = bytes(stop - start)


def zero_data(generator: np.random.Generator, content: bytearray) -> None:
    """Zero all but the header of an array."""
    content[128:] = bytes(max(0, len(content) - 128))


def fill(generator: np.random.Generator, content: bytearray) -> None:
    start, stop = sorted(generator.integers(len(content) + 1, size=2).tolist())
    content[start:stop] = b"\xff" * (stop - start)


def cut(generator: np.random.Generator, content: bytearray) -> None:
    del content[int(generator.integers(len(content))) :]


def extend(generator: np.random.Generator, content: bytearray) -> None:
    content += generator.bytes(int(generator.integers(1, 5000)))


def values(generator: np.random.Generator, content: bytearray) -> None:
    """Put values out of range into an array, or change what a JSON or YAML file says."""
    if content[:6] != b"\x93NUMPY":
        numbers = list(re.finditer(rb"\d+", content))
        if numbers:
            found = pick(generator, numbers)
            content[found.start() : found.end()] = pick(generator, ODD_NUMBERS)
        return
    array = np.load(io.BytesIO(content))
    if array.size and array.dtype.kind in "iuf":
        odd = [-np.inf, np.nan, 0, 1] if array.dtype.kind == "f" else odd_integers(array)
        where = generator.random(array.shape) < pick(generator, [0.01, 0.5, 1.0])
        where.ravel()[generator.integers(array.size)] = True
        array[where] = pick(generator, odd)
    write_array(content, array)


def odd_integers(array: np.ndarray) -> list[int]:
    """Return the least and the largest values of an array's type, and some about the array's size."""
    least, most = int(np.iinfo(array.dtype).min), int(np.iinfo(array.dtype).max)
    return [least, most, 0, most // 2, min(array.size, most), min(array.size - 1, most)]


def shape(generator: np.random.Generator, content: bytearray) -> None:
    """Give an array another shape or type; any other file is changed."""
    if content[:6] != b"\x93NUMPY":
        change(generator, content)
        return
    array = np.load(io.BytesIO(content))
    changes: list[Callable[[], np.ndarray]] = [
        lambda: array.T, lambda: array[: len(array) // 2], lambda: array[:0], lambda: np.concatenate([array, array]),
        lambda: array.astype(np.float64), lambda: array.astype(np.int16), lambda: array.astype("U5"),
        lambda: array[..., None], lambda: array.reshape(-1), lambda: array.astype(array.dtype.newbyteorder(">")),
        lambda: np.asfortranarray(array[None] * np.ones((3, *[1] * array.ndim), array.dtype)),
    ]  # fmt: skip
    write_array(content, pick(generator, changes)())


def header(generator: np.random.Generator, content: bytearray) -> None:
    """Let an array's header say something else than its data."""
    found = list(re.finditer(rb"\d+", content[10:128])) if content[:6] == b"\x93NUMPY" else []
    if not found:
        flip(generator, content)
        return
    number = pick(generator, found)
    new = pick(generator, ODD_NUMBERS)
    text = content[10 : 10 + number.start()] + new + content[10 + number.end() : 128]
    content[10:128] = text[: 117 if len(text) > 118 else None].ljust(117) + b"\n"


def write_array(content: bytearray, array: np.ndarray) -> None:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    content[:] = written.getvalue()


ODD_NUMBERS = (b"0", b"-1", b"1", b"2", b"99999999", b"4294967296", b"9223372036854775807", b"1e30", b"[]", b"null")
CONTENT = {
    flip: 5, change: 3, zero: 2, zero_data: 2, fill: 2, cut: 3, extend: 2, values: 8, shape: 4, header: 2,
}  # fmt: skip


# Damages that put something else in a file's place


def folder(path: Path, other: Path) -> None:
    path.mkdir()


def pipe(path: Path, other: Path) -> None:
    os.mkfifo(path)


def device(path: Path, other: Path) -> None:
    path.symlink_to("/dev/zero")


def outside(path: Path, other: Path) -> None:
    path.symlink_to("/etc/passwd")


def loop(path: Path, other: Path) -> None:
    path.symlink_to(path.name)


def exchange(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def missing(path: Path, other: Path) -> None:
    pass


PLACES = (folder, pipe, device, outside, loop, exchange, missing)


def damage(generator: np.random.Generator, run: Path) -> str:
    """Damage one file of a run; return which, and how."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name not in (".run.lock", "run.log"))
    files = [path for path in files if ".hydra" not in path.parts]
    # What compiled code reads counts twice.
    path = pick(generator, files + [file for file in files if file.parent.name in ("index", "model")])
    name = path.relative_to(run).as_posix()
    if generator.random() < 0.2:
        put = pick(generator, PLACES)
        other = pick(generator, [file for file in files if file != path])
        kept = path.with_name(".kept")
        path.rename(kept)
        put(path, other)
        kept.unlink()
        return f"{put.__name__} at {name}"
    weights = np.array(list(CONTENT.values()), float)
    how = list(CONTENT)[generator.choice(len(CONTENT), p=weights / weights.sum())]
    content = bytearray(path.read_bytes())
    if content:
        how(generator, content)
        path.unlink()
        path.write_bytes(content)
    return f"{how.__name__} {name}"


def refit(run: Path) -> bool:
    """Write the manifest anew, sealed as the user's own: whatever the run names is used; return whether it can be."""
    from lshbench.files import read_small
    from lshbench.run_folder.contents import METRICS, finished_files
    from lshbench.run_folder.manifest import Manifest
    from lshbench.runtime.own import own_key

    try:
        names = [name for name in finished_files(run) if not (run / name).is_symlink()]
        Manifest.of(run, names, read_small(run / METRICS), own_key()).write(run)
    except (OSError, ValueError):
        return False
    return True


# Attempts


def make_runs(place: Path, names: Sequence[str]) -> None:
    """Make the runs, and note what each command says of them.

    All in this process, so that those forked from it have the compiled kernels in memory.
    """
    queries = np.random.default_rng(5).normal(size=(3, 16)).astype(np.float32)
    for name in names:
        home = place / name.replace(" ", "-")
        home.mkdir(parents=True)
        np.save(home / "queries.npy", queries)
        keys = (*BARE, *RUNS[name], "hydra.run.dir=run")
        for asked, arguments in {"run": ["run", *keys], **COMMANDS}.items():
            outcome = attempt(Trial(f"{name}, {asked}", home, partial(command, arguments), unjudged), 1000)
            if outcome.code:
                sys.exit(f"{name}, {asked}, with nothing wrong: {outcome.code}\n{outcome.output}")
            RIGHT[name, asked] = answer(asked, outcome.output)
    gc.freeze()


def unjudged(outcome: Outcome) -> str:
    return ""


def answer(asked: str, output: str) -> str:
    """Return what is right or wrong in what a command says: not times."""
    if asked == "search":
        start = output.find("{")
        return json.dumps(json.loads(output[start:])["queries"]) if start >= 0 else output
    # What verify says depends on the place, and the page's identifiers on chance.
    return output if asked == "report" else ""


def judge(name: str, asked: str, fits: bool, outcome: Outcome) -> str:
    """Return what is wrong with an outcome; empty if nothing is."""
    if "Traceback" in outcome.output:
        return "a traceback"
    if outcome.code < 0:
        return f"signal {-outcome.code}"
    if outcome.bytes > BYTES:
        return f"{outcome.bytes >> 20} MiB"
    if outcome.code == 2:
        lines = outcome.output.splitlines()
        messages = [line for line in lines if line.startswith("lshbench: ") or " is damaged: " in line]
        return "" if len(messages) == 1 or (asked == "verify" and messages) else f"{len(messages)} messages"
    if outcome.code:
        return f"exit {outcome.code}"
    if fits or answer(asked, outcome.output) == RIGHT[name, asked]:
        return ""
    return "another answer"


def made(seed: int, place: Path, number: int) -> Trial:
    """Copy a run below a folder and damage it."""
    generator = np.random.default_rng([seed, number])
    name = pick(generator, sorted({name for name, _ in RIGHT}))
    asked = str(generator.choice(list(SHARES), p=list(SHARES.values())))
    fits = bool(generator.random() < 0.5)
    home = place / f"case-{number}"
    # Files are shared with the run that nothing is wrong with: a damaged one is written anew.
    shutil.copytree(place / name.replace(" ", "-"), home, copy_function=os.link)
    what = damage(generator, home / "run")
    fits = fits and refit(home / "run")
    title = f"{asked} {name}: {what}{', manifest fits' if fits else ''}"
    return Trial(title, home, partial(command, COMMANDS[asked]), partial(judge, name, asked, fits))


def kind_of(outcome: Outcome) -> str:
    return (outcome.fault and f"FAULT: {outcome.fault}") or {0: "right answer", 2: "one message"}[outcome.code]


def run(seed: int, numbers: Sequence[int], jobs: int, names: Sequence[str]) -> list[Tried]:
    """Return the numbers, names and outcomes of some cases."""
    for module in (*MODULES, *LIBRARIES):
        importlib.import_module(module)
    from lshbench.runtime.cache import cache_path

    # Every case has another home folder: without this, it would have another key, which seals its runs, too.
    os.environ["LSHBENCH_CACHE"] = str(cache_path())
    with tempfile.TemporaryDirectory(prefix="lshbench-fuzz-") as temporary:
        place = Path(temporary)
        make_runs(place, names)
        return in_processes(numbers, partial(made, seed, place), place, jobs)


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="these cases, with all that they print")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="of these runs alone")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    numbers = given.only if given.only else range(given.cases)
    done = run(given.seed, numbers, 1 if given.only else given.jobs, given.runs)
    for number, name, outcome in done:
        if given.only or outcome.fault:
            print(f"{number}  {name}: {kind_of(outcome)} ({outcome.seconds:.1f} s)")
            print("".join(f"    {line}\n" for line in outcome.output.splitlines()[-40 if given.only else -4 :]), end="")
    for kind, count in Counter(kind_of(outcome) for *_, outcome in done).most_common():
        print(f"{count:5}  {kind}")
    longest, largest = max(done, key=lambda one: one[2].seconds), max(done, key=lambda one: one[2].bytes)
    print(f"longest {longest[2].seconds:.1f} s ({longest[0]}), largest {largest[2].bytes >> 20} MiB ({largest[0]})")
    sys.exit(any(outcome.fault for *_, outcome in done))


if __name__ == "__main__":
    main()
