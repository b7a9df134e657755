"""Local web page for searching with dropped images.  Needs gradio, of the extra ``serve``.

It answers this machine alone, and only under the names of this machine or those that the user allows: a page elsewhere
that has its own name lead here (DNS rebinding) gets no answer.
"""

from __future__ import annotations

import ctypes
import gc
import html
import importlib.util
import logging
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from lshbench.errors import UsageError, wrong_value
from lshbench.search.answers import distance_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from lshbench.search.searcher import Hit, Searcher

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
"""This machine only: a page that takes files has no business on a network."""

NAMES = ("127.0.0.1", "localhost")
"""Names in the Host header of requests that are answered."""

MOST_BYTES = "20mb"
MOST_PIXELS = 50_000_000
"""Pixels of a dropped image at most: 150 MB as RGB."""

UNUSED_SECONDS = 600
"""Dropped images are removed after this time, and with the page at the latest."""

PREFIX, LOCK = "lshbench-serve-", "page.lock"
"""Names of the folder that dropped images lie in, and of the file in it that its page holds."""

KILLED_SECONDS = 60
"""A folder that no page holds is of one that was killed, unless it is newer: its page may be about to hold it."""

MOST_HITS = 50
COLUMNS = ["rank", "distance", "tied", "label", "row", "item", "name"]


def _tied(hit: Hit) -> str:
    """Return how many items share a hit's distance, where there are others."""
    return f", {hit.tied:,} tied" if hit.tied is not None and hit.tied > 1 else ""


def check_gradio() -> None:
    """Refuse to serve without gradio.

    Raises:
        UsageError: it isn't installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError('--serve needs gradio, which is not installed: pip install -e ".[serve]"')


def serve(searcher: Searcher, port: int, k: int, names: Sequence[str] = ()) -> None:
    """Serve the page until the program is interrupted.

    Args:
        searcher: an opened run with an image encoder.
        port: of the page, on this machine alone.
        k: hits that the page asks for at first.
        names: under which it answers too, besides this machine's own.

    Raises:
        UsageError: gradio isn't installed, or the port is taken.
    """
    check_gradio()
    if not 1 <= port <= 65535:
        raise wrong_value("--port", port, "a number from 1 to 65535")
    remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, FileLock(Path(folder) / LOCK):
        # Read when gradio is imported.  Dropped images lie in the folder, and go with it.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": folder}
        import gradio
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        page = build_page(searcher, k)
        named = Middleware(TrustedHostMiddleware, allowed_hosts=[*NAMES, *names], www_redirect=False)
        try:
            page.launch(
                server_name=ADDRESS,
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                enable_monitoring=False,
                max_file_size=MOST_BYTES,
                app_kwargs={"middleware": [named]},
                footer_links=[],
                # Fonts of the machine: the default theme asks a server of Google's for its own.
                theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            )
        except OSError as error:
            raise wrong_value("--port", port, f"a free port ({error})") from error
        # On stdout, and at once: whoever started the program in the background waits for it.
        print(f"http://{ADDRESS}:{port}  (Ctrl+C ends it)", flush=True)
        # Ended from outside, it tidies up too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.close()


def remove_leftovers() -> None:
    """Remove the images that were dropped on this user's pages which were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            found = folder.lstat()  # links are left alone, as is what other users have there
            own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if own and time.time() - (folder / LOCK).stat().st_mtime > KILLED_SECONDS:
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder)


def build_page(searcher: Searcher, k: int) -> Any:
    """Return the page, a ``gradio.Blocks``: an image to drop, hits as pictures and as a table."""
    import gradio
    import numpy as np

    from lshbench.data.images import decode
    from lshbench.plots.style import searched_name

    run = searcher.run
    dataset = run.metrics.dataset
    without_pictures = _missing_pictures(searcher)
    unit = " bits" if searcher.ranking == "hamming" else ""

    def answer(path: str | None, count: float) -> tuple[Any, Any, str]:
        if path is None:
            return [], [], ""
        start = time.perf_counter()
        try:
            content = Path(path).read_bytes()
            (found,) = searcher.search([np.asarray(decode(content, path, MOST_PIXELS))], int(count))
        except UsageError as error:
            # The file lies under a name of gradio's.
            raise gradio.Error(html.escape(str(error).replace(path, Path(path).name), quote=False)) from error
        finally:
            give_back()
        seconds = time.perf_counter() - start
        rows = [
            [hit.rank, distance_text(hit, searcher.ranking), hit.tied or "", hit.caption, hit.row, hit.item, hit.name]
            for hit in found.hits
        ]
        shown = found.hits if without_pictures is None else []
        pictures = [
            (
                _enlarged(searcher.image(hit)),
                f"{hit.caption} · {distance_text(hit, searcher.ranking)}{unit}{_tied(hit)}",
            )
            for hit in shown
        ]
        compared = f"compared with {found.candidates:,} of {len(searcher):,} items"
        return pictures, rows, f"{len(found.hits)} hits in {seconds:.3f} s, {compared}"

    with gradio.Blocks(
        title=f"lshbench search · {dataset.name}", analytics_enabled=False, delete_cache=(60, UNUSED_SECONDS)
    ) as page:
        gradio.Markdown(
            f"# {dataset.name}\n{searched_name(run)}, {dataset.backbone}, "
            f"{searcher.ranking} distance · {len(searcher):,} gallery items"
        )
        if without_pictures is not None:
            gradio.Markdown(f"Hits have no pictures: {without_pictures}")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=260):
                dropped = gradio.Image(
                    sources=["upload", "clipboard"],
                    label="Drop an image",
                    buttons=["fullscreen"],
                    height=320,
                    elem_id="query",
                )
                # The file as it was dropped: decoding it, and saying why it can't be, is the run's, not gradio's.
                # Not in a subclass, for which gradio would write a .pyi file beside this one.
                dropped.preprocess = lambda payload: None if payload is None else payload.path
                most = min(MOST_HITS, len(searcher))
                count = gradio.Slider(1, most, value=min(k, most), step=1, label="Hits", elem_id="count")
                took = gradio.Markdown(elem_id="took")
            with gradio.Column(scale=3):
                gradio.Markdown("Nearest first, with label and distance")
                pictures = gradio.Gallery(
                    show_label=False,
                    columns=5,
                    height="auto",
                    # Without gradio's button that posts the pictures to the Hugging Face Hub.
                    buttons=["fullscreen"],
                    object_fit="contain",
                    format="png",
                    interactive=False,
                    visible=without_pictures is None,
                    elem_id="hits",
                )
                table = gradio.Dataframe(headers=COLUMNS, interactive=False, elem_id="table")
        for changed in (dropped, count):
            changed.change(
                answer, [dropped, count], [pictures, table, took], api_visibility="private", show_progress="minimal"
            )
    return page


def give_back() -> None:
    """Give memory that is free back to the system: the C library would keep what large images took."""
    gc.collect()
    with suppress(OSError, AttributeError):  # of other systems than Linux with glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _enlarged(image: Image) -> Image:
    """Return a picture for the page: small ones are enlarged here, as browsers smooth what is in them."""
    from lshbench.plots.retrieval import TILE, letterboxed

    return image if max(image.size) > TILE else letterboxed(image)


def _missing_pictures(searcher: Searcher) -> str | None:
    """Return why hits can't be shown as pictures, or None if they can."""
    try:
        _ = searcher.dataset
    except UsageError as error:
        log.warning("the page shows no pictures: %s", error)
        return str(error)
    return None
