"""Requests to the Hub, with retries and our own progress in place of its libraries' bars."""

from __future__ import annotations

import errno
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lshbench.errors import UsageError

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Tries of a download; waits of 1, 2, 4 and 8 seconds lie between them."""
STREAM_ATTEMPTS = 10
"""Tries of a part of a file that is streamed, for four minutes: a job of hours outlives a short failure of the Hub."""
LONGEST_PAUSE = 60.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

Result = TypeVar("Result")


def retried(work: Callable[[], Result], attempts: int, doing: str) -> Result:
    """Call a function, again after a growing pause where it fails for a passing reason, and return its result."""
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except Exception as error:
            if attempt == attempts or not may_pass(error):
                raise
            pause = min(2.0 ** (attempt - 1), LONGEST_PAUSE)
            log.warning(
                "%s failed (%s); try %d of %d in %.0f s", doing, first_line(error), attempt + 1, attempts, pause
            )
            time.sleep(pause)
    raise AssertionError("attempts is at least 1")


def may_pass(error: BaseException) -> bool:
    """Whether trying again may help: the error is no refusal, no defect of the data and no full disk."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    if isinstance(error, OSError) and error.errno in (*FULL_DISK, errno.EACCES, errno.EROFS):
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {
        "OfflineModeIsEnabled",
        "HFValidationError",
        "DatasetNotFoundError",
        "EmptyDatasetError",
        "DataFilesNotFoundError",
    }:
        return False
    # The libraries' HTTP client has changed over time; its errors are known by name.
    return isinstance(error, OSError) or bool(names & {"TransportError", "RequestException", "HTTPError"})


def refusal(error: BaseException, repository: str) -> UsageError | None:
    """Return what a user can do about the Hub's refusal to show a data set, or None for an error of another kind."""
    from huggingface_hub import errors, get_token

    given, token = f"dataset.repository={repository!r}", get_token()
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        how = "whose account has no access to it yet" if token else "and HF_TOKEN is not set"
        return UsageError(f"{given}: access has to be granted on its page at {endpoint()} first, {how}")
    if isinstance(error, errors.DisabledRepoError):
        return UsageError(f"{given}: {endpoint()} has disabled this data set")
    if isinstance(error, errors.RepositoryNotFoundError):
        how = "HF_TOKEN's account can't see it" if token else "it is private and HF_TOKEN is not set"
        return UsageError(f"{given}: {endpoint()} has no such data set (or {how})")
    if status == 401:
        fault = "the token in HF_TOKEN, or the one that `hf auth login` keeps, is refused" if token else "no HF_TOKEN"
        return UsageError(f"{given}: {endpoint()} asks for a valid token: {fault}")
    if status == 403:
        how = "the token in HF_TOKEN lacks the permission to read it" if token else "HF_TOKEN is not set"
        return UsageError(f"{given}: {endpoint()} refuses access: {how}")
    return None


class ByteCounter:
    """Count the bytes of a download through the progress bars of `huggingface_hub`."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance
        self.lock = threading.Lock()

    def bar_class(self) -> type:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        counter = self

        class Bar(tqdm):
            """Shows nothing.  Of the two bars over bytes, received and written, the second is counted."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                name = str(kwargs.pop("name", ""))
                self.counts = kwargs.get("unit") == "B" and "Downloading" not in str(kwargs.get("desc", "")) + name
                kwargs["disable"] = True
                super().__init__(*args, **kwargs)

            def update(self, n: float | None = 1) -> None:
                if self.counts and n:
                    with counter.lock:
                        counter.advance(int(n))

        return Bar


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and request logs of the Hub's libraries within a ``with`` block."""
    import datasets

    for name in ("httpx", "httpx2", "urllib3"):
        if (logger := logging.getLogger(name)).level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def literal(path: str) -> str:
    """Return a glob pattern that matches exactly one path."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
