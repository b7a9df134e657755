"""``lshbench search RUN IMAGE...``: the nearest gallery items to pictures, by a finished run's own model and index."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lshbench.commands.arguments import Parser, exits
from lshbench.errors import UsageError, wrong_value

if TYPE_CHECKING:
    import numpy as np

    from lshbench.run_folder import Run
    from lshbench.search.answers import Seconds
    from lshbench.search.searcher import Answer, Searcher

VECTORS = ".npy"
HITS = 10


def main(arguments: list[str]) -> None:
    """Search and exit: 0 done, 1 a defect, 2 wrong use."""
    given = parser().parse_intermixed_args(arguments)
    with exits(given.verbose):
        _search(given)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="lshbench search",
        description="The nearest gallery items to pictures, by a finished run's own encoder, method and index.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder, or its metrics.json")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        type=Path,
        nargs="*",
        help="an image file, a folder of them, or a .npy file of feature vectors, (d,) or (n, d)",
    )
    parser.add_argument("-k", type=int, help=f"hits of each query ({HITS})")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what is printed (table)")
    parser.add_argument("--picture", metavar="FILE.png", type=Path, help="also draw the queries and their hits")
    parser.add_argument("--device", help="where networks run: cpu, cuda, ... (as the run did)")
    parser.add_argument(
        "--config-dir", metavar="DIR", type=Path, help="where the classes of a run with options of your own lie"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="use the data, weights, cache and classes that a run names which was not made here",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        help="the file or folder of the run's data set, used in place of what the run names (dataset.path)",
    )
    parser.add_argument("--serve", action="store_true", help="open a page on this machine on which to drop images")
    parser.add_argument("--port", type=int, default=7860, help="of the page (7860)")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="another name under which the page answers, such as that of a proxy before it (may be repeated)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show where an error came from")
    return parser


def _search(given: argparse.Namespace) -> None:
    start = time.perf_counter()
    if given.serve == bool(given.images):
        raise UsageError(
            "--serve takes no IMAGE: images are dropped on the page"
            if given.serve
            else "no IMAGE: expected one or more image files, or --serve"
        )
    from lshbench.config import use_modules_beside
    from lshbench.run_folder import Run

    run = Run.open(given.run)
    if given.config_dir is not None:
        if not given.config_dir.is_dir():
            raise wrong_value("--config-dir", str(given.config_dir), "the folder of options that the run was made with")
        use_modules_beside(given.config_dir)
    files = query_files(given.images)
    k = min(HITS, run.metrics.dataset.gallery) if given.k is None else given.k
    _check(given, run, files, k)

    # Imports stand here because they take seconds, and a wrong argument should not.
    from lshbench.runtime.logs import ConsoleHandler, console
    from lshbench.runtime.progress import progress_for
    from lshbench.runtime.threads import set_threads
    from lshbench.search.searcher import Searcher

    logging.basicConfig(level=logging.WARNING, handlers=[ConsoleHandler()], format="%(message)s")
    logging.getLogger("lshbench").setLevel(logging.INFO)
    searcher = Searcher.open(
        run,
        device=given.device,
        progress=progress_for(console()),
        trust=given.trust,
        data=given.data,
        config_dir=given.config_dir,
    )
    if given.picture:
        _ = searcher.dataset  # refused now if it isn't there, not after the search
    set_threads(searcher.threads)
    searcher.prepare(images=given.serve or any(path.suffix != VECTORS for path in files))
    loaded = time.perf_counter()
    if given.serve:
        from lshbench.search.page import serve

        serve(searcher, given.port, k, given.allow_host)
        return
    from lshbench.search.answers import Seconds

    answers = _answers(searcher, files, k)
    _show(given, searcher, files, answers, k, Seconds(loaded - start, time.perf_counter() - loaded))


def query_files(arguments: Sequence[Path]) -> list[Path]:
    """Return the files that arguments name: themselves, or the images directly in a folder, sorted.

    Raises:
        UsageError: something isn't there, or a folder has no images.
    """
    files: list[Path] = []
    for path in arguments:
        if path.is_dir():
            from lshbench.data.images import known_extensions

            known = known_extensions()
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in known and file.is_file())
            if not inside:
                raise wrong_value("IMAGE", str(path), "a folder with image files directly in it; it has none")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise wrong_value("IMAGE", str(path), "an image file or a folder of images; it is not there")
    return files


def read_vectors(path: Path) -> np.ndarray:
    """Return the feature vectors in a .npy file, ``(n, d)``; one alone may be ``(d,)``.

    Raises:
        UsageError: it is no such file, or holds Python objects, which are never read.
    """
    import numpy as np

    try:
        x = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise wrong_value("IMAGE", str(path), f"a .npy file of numbers ({error})") from error
    return x[None] if x.ndim == 1 else x


def _check(given: argparse.Namespace, run: Run, files: Sequence[Path], k: int) -> None:
    """Refuse what can't be answered before seconds of loading."""
    from lshbench.data.images import decode
    from lshbench.search.searcher import check_encoder, check_k

    check_k(k, run.metrics.dataset.gallery)
    images = [path for path in files if path.suffix != VECTORS]
    if images or given.serve:
        check_encoder(run)
    for path in images:
        decode(_content(path), str(path))
    if given.serve:
        from lshbench.search.page import check_gradio

        check_gradio()
    if given.picture:
        from lshbench.search.answers import check_picture

        if len(images) < len(files):
            raise wrong_value("--picture", str(given.picture), "image files as queries: .npy files have no picture")
        check_picture(given.picture, k, len(images))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error


def _answers(searcher: Searcher, files: Sequence[Path], k: int) -> list[Answer]:
    """Return the answers in the order of the files: those of images that follow each other are encoded together."""
    answers: list[Answer] = []
    for vectors, group in itertools.groupby(files, lambda path: path.suffix == VECTORS):
        if not vectors:
            answers += searcher.search(list(group), k)
            continue
        for path in group:
            x = read_vectors(path)
            names = [str(path)] if len(x) == 1 else [f"{path}, row {row}" for row in range(len(x))]
            answers += searcher.search_vectors(x, k, names)
    return answers


def _show(
    given: argparse.Namespace,
    searcher: Searcher,
    files: Sequence[Path],
    answers: Sequence[Answer],
    k: int,
    seconds: Seconds,
) -> None:
    from lshbench.data.images import decode
    from lshbench.runtime.logs import console
    from lshbench.search.answers import as_json, draw_picture, print_tables

    if given.format == "json":
        print(json.dumps(as_json(searcher, answers, k, seconds), indent=1))
    else:
        from rich.console import Console

        print_tables(searcher, answers, k, seconds, Console())
    if given.picture:
        draw_picture(given.picture, searcher, [decode(_content(path), str(path)) for path in files], answers)
        console().print(f"picture: {given.picture}", soft_wrap=True, highlight=False, markup=False)
