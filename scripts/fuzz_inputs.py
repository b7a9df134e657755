"""Try overrides, options and data files that are wrong in some way: each must give the right answer or one message.

    python scripts/fuzz_inputs.py                      1,000 cases, some minutes on two cores
    python scripts/fuzz_inputs.py --cases 50 --seed 3  other ones
    python scripts/fuzz_inputs.py --only 137           one of them, with all that it printed

A case passes if its process ends with 0 and the right answer, or with 2 and exactly one message.  It fails if it ends
with 1, by a signal, with a traceback, or in silence; if it takes more than 60 s or 2 GiB.  An answer is right if the
figures are those of the data (where the case changes nothing about them), and the value given is in effect.

Overrides go through the command; data files through the function behind it, which is what makes 1,000 of them bearable.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Before the libraries are loaded: with one thread nothing is lost when a process is forked.
    os.environ |= {"NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue", "OMP_NUM_THREADS": "1"}

import numpy as np
from fuzz_processes import BYTES, Outcome, Trial, Tried, attempt, command, in_processes

LIBRARIES = (
    "PIL.Image", "PIL.ImageOps", "PIL.features", "datasets", "h5py", "hydra.main", "hydra.utils", "numba", "pandas",
    "pyarrow.dataset", "pyarrow.parquet", "rich.console", "rich.table", "safetensors.torch", "scipy.io", "torch",
)  # fmt: skip
QUIET = (
    "evaluation.definitions=false", "evaluation.plots=false", "reference.cosine=false", "reference.time=false",
    "output=out", "cache=cache", "threads=1",
)  # fmt: skip
OVERRIDDEN = (
    *QUIET, "dataset=synthetic", "dataset.items=60", "dataset.queries=12", "dataset.dim=8", "dataset.classes=3",
    "backbone=pixels", "method=random_projection", "bits=16",
)  # fmt: skip
BY_COSINE = (*QUIET, "method=none", "backbone=pixels", "backbone.image_size=8")
RIGHT = (48, 12, 3, 1.0)
"""Gallery, queries, classes and mAP of the data that every file holds in the beginning."""

VALUES = (
    "nan", "inf", "-inf", "-1", "0", "1", "2", "7", "1e3", "1e400", "0.5", "1.5", "-0.0", "''", '""', "[]", "[1]",
    "[1,2]", "[a,b]", "{}", "{a:1}", "null", "NULL", "true", "True", "no", "x", "auto", "none", "café", "日本", "a b",
    "a=b", "=", "~", "~/x", "[", "]", "{", "(", "'", '"', "\\", "$", "${", "${}", "${nope}", "${bits}",
    "${oc.env:NOPE}", "${oc.env:NOPE,1}", "${nope:1}", "..", "/", "/dev/null", "1,2", "a,b", "range(3)",
    "choice(1,2)", "glob(*)", "x" * 5000, "9" * 40, "0x10", "0o7", "1_000", "01", ".5", "5.", "1e-3", "2024-01-01",
    "<", "|", ">", "&", "*", "!!python/object:a", "- a", "#x", "a#b", "%", "@", "`", "\t", " ", "\n", "a\nb",
    "\x1b[31m", "\udce9", "\ufeff1", "１６", "𝟙", "+1", "--", "???",
)  # fmt: skip
NAMES = (
    "epoch=9", "a[1]", "{b}", "~x", "a,b", "it's", 'say "x"', "back\\slash", "a b", "$HOME", "${x}", "(a)", "a:b",
    "a;b", "a&b", "#1", "100%", "@a", "!a", "*", "?", "café", "cafe\u0301", "日本語", "🙂", "\u202eabc", "-dash",
    "--flag", "a" * 200, "caf\udce9", "tab\there", "=", "a=b=c", "'", "null", "true", "1e3", "nan", "a.b.c", "...",
    " a", "a ", "x+y", "<a>", "a|b", "^", "`a`",
)  # fmt: skip
KEPT_INSIDE = ("output", "cache", "hydra", "dataset.root", "tracker", "device")
"""Keys that lead out of the case's folder, or to a server, are not given just any value."""


@dataclass
class Case:
    """What is tried.

    Attributes:
        name: says what it is.
        arguments: of ``lshbench``, or None where ``data`` is run without the command.
        data: a file or folder.
        source: the option of ``dataset=`` that reads it.
        keys: further ones of the encoder.
        figures: what the answer must be, or None where the case changes the data or the question.
        refused: whether only a refusal is right.
        alone: whether it is tried in a process of its own.
    """

    name: str
    arguments: list[str] | None = None
    data: Path | None = None
    source: str = "features"
    keys: dict[str, Any] = field(default_factory=dict)
    figures: tuple[float, ...] | None = None
    refused: bool = False
    alone: bool = False


Make = Callable[[np.random.Generator, Path], Case]


# Overrides and options


def changed_text(generator: np.random.Generator, text: str) -> str:
    """Return a text with a letter left out, doubled, exchanged or replaced."""
    at = int(generator.integers(len(text)))
    letter = chr(int(generator.integers(97, 123)))
    return [
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :],
        text[:at] + letter + text[at + 1 :],
        text.upper(),
        text + letter,
    ][generator.integers(6)]


def keys_of(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


def pick(generator: np.random.Generator, values: Sequence[Any]) -> Any:
    return values[int(generator.integers(len(values)))]


def a_value(generator: np.random.Generator, folder: Path) -> Case:
    """Any value for a key that there is."""
    key = pick(generator, [key for key in KEYS if not key.startswith(KEPT_INSIDE)])
    value = pick(generator, VALUES)
    return Case(f"{key}={value[:40]!r}", ["run", *OVERRIDDEN, f"{key}={value}"])


def a_key(generator: np.random.Generator, folder: Path) -> Case:
    """A key that there is not, or a prefix that it can't have."""
    key = pick(generator, [key for key in KEYS if not key.startswith(KEPT_INSIDE)])
    before = pick(generator, ("+", "++", "~", "", "", "", ".", "-", "--", "@", "/", " "))
    after = pick(generator, ("=1", "=1", "=x", "", "=", ".x=1", "@x=1", "[0]=1", "=[1,2]"))
    argument = f"{before}{changed_text(generator, key)}{after}"
    return Case(argument, ["run", *OVERRIDDEN, argument])


def an_option(generator: np.random.Generator, folder: Path) -> Case:
    """A name in a group that there is not."""
    group, option = pick(generator, OPTIONS)
    name = changed_text(generator, option) if generator.random() < 0.7 else pick(generator, VALUES)
    prefix = pick(generator, ("", "", "", "+", "~", "++"))
    return Case(f"{prefix}{group}={name[:40]!r}", ["run", *OVERRIDDEN, f"{prefix}{group}={name}"])


def a_flag(generator: np.random.Generator, folder: Path) -> Case:
    """A word for a subcommand or a flag that there is not."""
    words = ("run", "search", "report", "ls", "--help", "--version", "-sc")
    flags = ("--out-dir", "--multirun", "--config-dir", "--cfg", "--info", "--package", "--resolve", "--output", "-o")
    word = changed_text(generator, pick(generator, words))
    flag = changed_text(generator, pick(generator, flags))
    value = pick(generator, ("x", "", "job", "no/such/folder", "/dev/null"))
    choices = (
        [word],
        ["run", *OVERRIDDEN, flag, value],
        ["ls", word],
        ["report", flag, value],
        ["search", flag, value],
    )
    arguments = [part for part in pick(generator, choices) if part]
    # It may start a sweep, which is for good.
    return Case(" ".join(part for part in arguments if part not in OVERRIDDEN), arguments, alone=True)


def a_place(generator: np.random.Generator, folder: Path) -> Case:
    """Data in a folder and a file of odd names, written without quotes."""
    name = pick(generator, NAMES)
    outer = folder / pick(generator, NAMES) if generator.random() < 0.5 else folder
    outer.mkdir(exist_ok=True)
    np.savez(outer / f"{name}.npz", **arrays())
    path = outer / f"{name}.npz"
    relative = str(path) if generator.random() < 0.7 else str(path.relative_to(folder))
    where = str(path.relative_to(folder)).encode("utf-8", "backslashreplace").decode()
    arguments = ["run", *BY_COSINE, "dataset=features", f"dataset.path={relative}"]
    # Such a path is a reference to a key, and is said to be.
    return Case(f"data in {where[:60]}", arguments, figures=None if "${" in where else RIGHT)


def a_yaml(generator: np.random.Generator, folder: Path) -> Case:
    """An option of the user's own whose YAML is damaged."""
    from lshbench.config import conf_folder

    content = bytearray((conf_folder() / "method" / "random_projection.yaml").read_bytes())
    inserted = (
        b"\t",
        b"[",
        b"{",
        b"'",
        b'"',
        b"\xff\xfe",
        b"\x00",
        b"\n",
        b":",
        b"bits: 3\n",
        b"&a [*a]",
        b"!!python/name:os.system",
        b"---\n",
        b"\xef\xbb\xbf",
        b"- ",
        b"? ",
        b"%",
        b"@",
        b"${nope}",
        b"<<: 1\n",
    )
    for _ in range(int(generator.integers(1, 4))):
        at = int(generator.integers(len(content)))
        match generator.integers(4):
            case 0:
                content[at : at + int(generator.integers(1, 9))] = b""
            case 1:
                content[at] ^= 1 << int(generator.integers(8))
            case 2:
                content[at:at] = pick(generator, inserted)
            case 3:
                line = content.rfind(b"\n", 0, at) + 1
                content[line:line] = pick(generator, inserted)
    place = folder / "mine" / "method"
    place.mkdir(parents=True)
    (place / "mine.yaml").write_bytes(content)
    arguments = ["run", "--config-dir", "mine", *OVERRIDDEN, "method=mine"]
    return Case("a YAML: " + repr(bytes(content))[-80:], arguments, alone=True)  # it may import modules of that folder


# Data files


def arrays() -> dict[str, np.ndarray]:
    """Return clusters far apart: exact cosine finds every item of a query's class first."""
    x = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    y = np.arange(60) % 3
    x[np.arange(60), y] += 50
    return {"train_x": x[:48], "train_y": y[:48], "test_x": x[48:], "test_y": y[48:]}


def save(folder: Path, form: str, content: dict[str, np.ndarray]) -> Path:
    """Write arrays in a form that lshbench reads; return the file, or the folder of files."""
    path = folder / f"a.{form}"
    match form:
        case "npz":
            np.savez(path, **content)
        case "packed.npz":
            np.savez_compressed(path, **content)
        case "npy":
            path = folder / "a"
            path.mkdir()
            for name, array in content.items():
                np.save(path / f"{name}.npy", array)
        case "fvecs":
            path = folder / "a"
            path.mkdir()
            for name, array in content.items():
                if name.endswith("x"):
                    rows = [np.int32(len(row)).tobytes() + row.astype("<f4").tobytes() for row in np.atleast_2d(array)]
                    (path / f"{name[:-2]}.fvecs").write_bytes(b"".join(rows))
                else:
                    np.save(path / f"{name[:-2]}_labels.npy", array)
        case "h5":
            import h5py

            with h5py.File(path, "w") as file:
                for name, array in content.items():
                    file[name] = array.astype("S") if array.dtype.kind == "U" else array
        case "mat":
            import scipy.io

            scipy.io.savemat(path, content)
        case "pt" | "safetensors":
            import torch
            from safetensors.torch import save_file

            tensors = {name: torch.tensor(array) for name, array in content.items()}
            (torch.save if form == "pt" else save_file)(tensors, path)
        case "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            x, y = (np.concatenate([content[f"{side}_{part}"] for side in ("train", "test")]) for part in "xy")
            pq.write_table(pa.table({"emb": pa.array(list(x)), "label": y}), path, row_group_size=17)
    return path


FORMS = ("npz", "packed.npz", "npy", "fvecs", "h5", "mat", "pt", "safetensors", "parquet")


def damaged_file(generator: np.random.Generator, folder: Path) -> Case:
    """A file of features of which bytes are gone, changed or too many."""
    form = pick(generator, FORMS)
    path = save(folder, form, arrays())
    file = path if path.is_file() else pick(generator, sorted(path.iterdir()))
    content = bytearray(file.read_bytes())
    at, how = int(generator.integers(len(content))), int(generator.integers(8))
    # Headers decide how the rest is read.
    at = at if generator.random() < 0.5 else at % 256
    figures = None
    match how:
        case 0:
            what, content = "cut", content[:at]
        case 1:
            what, content = "empty", bytearray()
        case 2:
            what = "flipped"
            for place in generator.integers(0, len(content), 4):
                content[place] ^= 1 << int(generator.integers(8))
        case 3:
            what = "a bit of the header"
            content[at] ^= 1 << int(generator.integers(8))
        case 4:
            what = "zeroed"
            content[at : at + 64] = bytes(len(content[at : at + 64]))
        case 5:
            what = "extended"
            content += generator.bytes(int(generator.integers(1, 300)))
        case 6:
            what = "noise"
            content[at : at + 32] = generator.bytes(len(content[at : at + 32]))
        case 7:
            what, figures = "as it was", None if form == "parquet" else RIGHT
    file.write_bytes(content)
    if generator.random() < 0.1:
        what, figures = f"{what}, of another name", None
        path = path.rename(path.with_suffix(pick(generator, (".npz", ".npy", ".h5", ".pt", ".txt", ".mat", ""))))
    return Case(f"{form} {what} at {at}", data=path, figures=figures)


def odd_arrays(generator: np.random.Generator, folder: Path) -> Case:
    """A sound file whose arrays are not as they should be."""
    content = arrays()
    name = pick(generator, list(content))
    array, right = content[name], None
    labels = name.endswith("y")
    changes: dict[str, Callable[[], Any]] = {
        "one shorter": lambda: array[:-1],
        "empty": lambda: array[:0],
        "another dimension": lambda: array[..., None],
        "two more dimensions": lambda: array[None, ..., None],
        "scalar": lambda: np.float32(1),
        "infinite": lambda: np.where(np.arange(len(array)) == 3, np.inf, array.T.astype(float)).T,
        "not a number": lambda: array * np.nan,
        "complex": lambda: array.astype(complex),
        "dates": lambda: array.astype("M8[s]"),
        "structured": lambda: np.zeros(len(array), [("a", int), ("b", float)]),
        "negative": lambda: -1 - np.abs(array),
        "huge": lambda: np.abs(array).astype(np.float64) * 1e300,
        "fractions": lambda: array + 0.5,
        "constant": lambda: array * 0,
        "unsigned": lambda: np.full(array.shape, 2**64 - 1, np.uint64),
        "text": lambda: array.astype(str),
        "bytes": lambda: np.char.add(array.astype("S8"), b"\xe9"),
        "objects": lambda: array.astype(object),
        "longdouble": lambda: array.astype(np.longdouble),
        "other names": lambda: array,
        "big-endian": lambda: array.astype(array.dtype.newbyteorder(">")),
        "column order": lambda: np.asfortranarray(array),
        "half": lambda: array.astype(np.float16),
        "double": lambda: array.astype(np.float64),
        "small integers": lambda: array.astype(np.int8) if labels else array,
    }
    change = pick(generator, list(changes))
    content[name] = changes[change]()
    if change in ("big-endian", "column order", "half", "double", "small integers"):
        right = RIGHT
    if change == "text" and labels:
        other = "test_y" if name == "train_y" else "train_y"
        content[other], right = content[other].astype(str), RIGHT
    if change == "other names":
        content = {
            pick(generator, ("x", "y", "train", "Test_x", "val_y", "a/b", "é", "label", "gallery", "q"))
            + str(place): value
            for place, value in enumerate(content.values())
        }
    form = pick(generator, ("npz", "packed.npz", "npy", "h5", "mat", "pt"))
    try:
        path = save(folder, form, content)
    except (TypeError, ValueError, OSError):  # the form can't hold it
        shutil.rmtree(folder / "a", ignore_errors=True)
        (folder / f"a.{form}").unlink(missing_ok=True)
        form, path = "npz", save(folder, "npz", content)
    return Case(f"{form}: {name} is {change}", data=path, figures=right)


def odd_header(generator: np.random.Generator, folder: Path) -> Case:
    """An .npy file whose header says what is not so."""
    (folder / "a").mkdir()
    for name, array in arrays().items():
        np.save(folder / "a" / f"{name}.npy", array)
    shape = pick(
        generator,
        (
            "(9999999999999, 8)",
            "(48, 999999999999)",
            "(-1, 8)",
            "(48,)",
            "()",
            "(48, 8, 1)",
            "48",
            "('a', 8)",
            "(1e3, 8)",
            "(True, 8)",
            "(2**40, 2**40)",
        ),
    )
    kind = pick(
        generator,
        ("'<f4'", "'|O'", "'<f999'", "'<U99999999'", "[('a', '<f4')]", "'<M8[s]'", "''", "'V8'", "__import__('os')"),
    )
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    magic = b"\x93NUMPY" + pick(generator, (b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = len(header).to_bytes(2 if magic[6] == 1 else 4, "little")
    (folder / "a" / "train_x.npy").write_bytes(magic + length + header + bytes(100))
    return Case(f"a header with {shape} of {kind}", data=folder / "a", refused=True)


# Folders of images


def image_folder(generator: np.random.Generator, folder: Path) -> Case:
    """Images in folders, some of them damaged, among other things."""
    from PIL import Image

    data = folder / "a"
    for side, count in (("train", 16), ("test", 4)):
        for place, name in enumerate("abc"):
            (data / side / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng([place, count, i]).integers(0, 60, (6, 6, 3))
                pixels[:, :, place] += 180
                Image.fromarray(pixels.astype(np.uint8)).save(data / side / name / f"{i}.png")
    figures: tuple[float, ...] | None = RIGHT
    what = pick(
        generator,
        (
            "cut",
            "empty",
            "text",
            "bomb",
            "flipped",
            "nested",
            "named",
            "folder",
            "loop",
            "fifo",
            "postscript",
            "beside",
            "hidden",
            "dangling",
            "other",
            "many",
        ),
    )
    victim = data / "train" / "b" / "3.png"
    content = bytearray(victim.read_bytes())
    match what:
        case "cut":
            victim.write_bytes(content[: int(generator.integers(1, len(content) - 12))])
        case "empty":
            victim.write_bytes(b"")
        case "text":
            victim.write_text("no image")
        case "bomb":
            content[16:24] = (60_000).to_bytes(4, "big") * 2
            victim.write_bytes(content)
        case "flipped":
            content[int(generator.integers(8, len(content)))] ^= 16
            victim.write_bytes(content)
        case "postscript":
            victim.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) show\n")
        case "nested":
            (data / "train" / "b" / "deep").mkdir()
            victim.rename(data / "train" / "b" / "deep" / "3.png")
        case "named":
            victim.rename(victim.with_name(f"{pick(generator, NAMES)}.png"))
        case "folder":
            (data / "train" / "b" / "x.png").mkdir()
        case "loop":
            (data / "train" / "b" / "loop").symlink_to(pick(generator, ("..", ".", "loop", "../../train")))
        case "fifo":
            os.mkfifo(data / "train" / "b" / "x.png")
        case "dangling":
            (data / "train" / "b" / "x.png").symlink_to("nothing")
        case "beside" | "hidden":
            (data / (f".{pick(generator, NAMES)}"[:200] if what == "hidden" else "notes")).mkdir()
        case "other":
            (data / "train" / "b" / "notes.txt").write_text("x")
        case "many":
            name = pick(generator, NAMES).lstrip(".") or "a class"  # hidden folders are passed over
            for side in ("train", "test"):
                (data / side / "b").rename(data / side / name)
    if what in ("cut", "empty", "text", "bomb", "flipped", "postscript"):
        figures = None
    keys = {"unreadable": "skip"} if figures is None and generator.random() < 0.3 else {}
    return Case(f"images: {what} {keys or ''}", data=data, source="folder", keys=keys, figures=figures)


MAKERS: tuple[tuple[Make, float], ...] = (
    (a_value, 0.2), (a_key, 0.1), (an_option, 0.05), (a_flag, 0.05), (a_place, 0.05), (a_yaml, 0.05),
    (damaged_file, 0.25), (odd_arrays, 0.12), (odd_header, 0.05), (image_folder, 0.08),
)  # fmt: skip
KEYS: list[str] = []
OPTIONS: list[tuple[str, str]] = []
COMPOSED: dict[str, dict[str, Any]] = {}
"""The configuration of a run over data, by the option of ``dataset=``."""


def prepare() -> None:
    """Import what the cases need, and compose what they share, once for all."""
    from hydra.core.global_hydra import GlobalHydra
    from numba.core.registry import cpu_target

    from lshbench.commands.compose import compose
    from lshbench.config import GROUPS, options

    for module in ("lshbench.cli", "lshbench.commands.run", "lshbench.experiment", "lshbench.data.arrays", *LIBRARIES):
        importlib.import_module(module)
    cpu_target.target_context.refresh()
    KEYS[:] = keys_of(compose(OVERRIDDEN)[0])
    OPTIONS[:] = [(group, name) for group in GROUPS for name, _ in options(group)]
    for source in ("features", "folder"):
        COMPOSED[source] = compose((*BY_COSINE, f"dataset={source}"))[0]
    GlobalHydra.instance().clear()
    gc.freeze()


def run_data(case: Case) -> None:
    """Run over a case's data as the command would, without composing its configuration anew."""
    from lshbench.errors import UsageError
    from lshbench.experiment import run_config

    config = copy.deepcopy(COMPOSED[case.source])
    config["dataset"]["path"] = str(case.data)
    config["backbone"] |= case.keys
    try:
        run_config(config, Path("out", "run"), ["lshbench"])
    except UsageError as error:
        sys.stderr.write(f"lshbench: {error}\n")
        sys.exit(2)


def make(seed: int, number: int, folder: Path) -> Case:
    """Return a case, whose files are written below a folder."""
    generator = np.random.default_rng([seed, number])
    makers, shares = zip(*MAKERS, strict=True)
    return makers[generator.choice(len(makers), p=shares)](generator, folder)


def judge(case: Case, folder: Path, outcome: Outcome) -> str:
    """Return what is wrong with an outcome; empty if nothing is."""
    messages = [
        line
        for line in outcome.output.splitlines()
        if line.startswith("lshbench") or re.search(r"^[\d :,-]+ERROR ", line)
    ]
    if "Traceback" in outcome.output:
        return "a traceback"
    if outcome.code < 0:
        return f"signal {-outcome.code}"
    if outcome.bytes > BYTES:
        return f"{outcome.bytes >> 20} MiB"
    if outcome.code == 2:
        usage = [line for line in outcome.output.splitlines() if re.match(r"lshbench \w+: error: ", line)]
        # A sweep says what became of each job.
        if len(usage or messages) != 1 and not re.search(r"^\d+ jobs: ", outcome.output, re.MULTILINE):
            return f"{len(messages)} messages"
        return "refused" if case.figures else ""
    if outcome.code != 0:
        return f"exit {outcome.code}"
    if case.refused:
        return "taken"
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("out/**/metrics.json")]
    if case.figures is not None:
        if len(found) != 1:
            return f"{len(found)} results"
        metrics = found[0]
        size = tuple(metrics["dataset"][key] for key in ("gallery", "queries", "classes"))
        if (*size, round(metrics["metrics"]["mAP"], 6)) != case.figures:
            return f"{size}, mAP {metrics['metrics']['mAP']}"
    return "" if found or len(outcome.output) > 1 else "silence"


def warm(folder: Path) -> None:
    """Do in this process what nothing is wrong with, so that forked ones have the compiled kernels in memory."""
    folder.mkdir()
    sound = [
        Case("data", data=save(folder, "npz", arrays()), figures=RIGHT),
        Case("the command", arguments=["run", *OVERRIDDEN]),
    ]
    for case in sound:
        outcome = attempt(trial(case, folder), seconds=1000)
        if outcome.code or outcome.fault:
            sys.exit(f"{case.name}, with nothing wrong: {outcome.fault or outcome.code}\n{outcome.output}")
        shutil.rmtree(folder / "out")
    gc.freeze()


def trial(case: Case, folder: Path) -> Trial:
    """Return a case whose files lie in a folder, to be tried."""
    do = partial(run_data, case) if case.arguments is None else partial(command, case.arguments)
    return Trial(case.name, folder, do, partial(judge, case, folder), alone=case.alone)


def made(seed: int, place: Path, number: int) -> Trial:
    """Make a case below a folder."""
    folder = place / f"case-{number}"
    folder.mkdir()
    return trial(make(seed, number, folder), folder)


def kind_of(outcome: Outcome) -> str:
    return (outcome.fault and f"FAULT: {outcome.fault}") or {0: "right answer", 2: "one message"}[outcome.code]


def run(seed: int, numbers: Sequence[int], jobs: int = 1) -> list[Tried]:
    """Return the numbers, names and outcomes of some cases."""
    with tempfile.TemporaryDirectory(prefix="lshbench-fuzz-") as place:
        os.environ["HF_HOME"] = str(Path(place) / "hub")  # read at import, before cases have their own home
        prepare()
        warm(Path(place) / "sound")
        return in_processes(numbers, partial(made, seed, Path(place)), Path(place), jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="these cases, with all that they print")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    numbers = given.only if given.only else range(given.cases)
    done = run(given.seed, numbers, 1 if given.only else given.jobs)
    for number, name, outcome in done:
        if given.only or outcome.fault:
            print(f"{number}  {name!r}: {kind_of(outcome)} ({outcome.seconds:.1f} s)")
            print("".join(f"    {line}\n" for line in outcome.output.splitlines()[-40 if given.only else -4 :]), end="")
    for kind, count in Counter(kind_of(outcome) for *_, outcome in done).most_common():
        print(f"{count:5}  {kind}")
    longest, largest = max(done, key=lambda one: one[2].seconds), max(done, key=lambda one: one[2].bytes)
    print(f"longest {longest[2].seconds:.1f} s ({longest[0]}), largest {largest[2].bytes >> 20} MiB ({largest[0]})")
    sys.exit(any(outcome.fault for *_, outcome in done))


if __name__ == "__main__":
    main()
