"""Files that data is read from in parts, wherever they lie: on a disk, or on the Hub, of which nothing is kept."""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from lshbench.data.hub_client import STREAM_ATTEMPTS, endpoint, first_line, refusal, retried
from lshbench.errors import UsageError

PART = 8 << 20
"""Bytes of one request at most: what is lost where it is cut off."""
PATIENCE = 30.0
SLOWEST = 20_000
"""Bytes a second below which an answer counts as stuck, once :data:`PATIENCE` seconds are over."""


@dataclass(frozen=True)
class StoredFile(ABC):
    """A file of known content.

    Attributes:
        name: as shown in messages.
        size: bytes.
        sha256: of the content, as hexadecimal digits.
        remote: whether reading it takes a network.
    """

    name: str
    size: int
    sha256: str
    remote = False

    @abstractmethod
    def open(self) -> BinaryIO:
        """Return the file for reading, with seeks."""


@dataclass(frozen=True)
class DiskFile(StoredFile):
    """A file on a disk."""

    path: Path

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise UsageError(f"{self.path} can't be read: {error.strerror}") from error


@dataclass(frozen=True)
class HubFile(StoredFile):
    """A file of one commit of a repository on the Hub; a part is asked for so many times where answers are bad."""

    repository: str
    commit: str
    attempts: int = STREAM_ATTEMPTS
    remote = True

    def open(self) -> BinaryIO:
        return cast(BinaryIO, _Parts(self.size, self.fetch))

    def fetch(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` to ``stop``; a bad answer is asked for again, after growing pauses.

        Raises:
            UsageError: the Hub refuses, or goes on failing.
        """
        doing = f"reading {self.name} of {self.repository}"
        content = bytearray()

        def ask() -> None:
            # What came before an answer was cut off is kept.
            self._receive(start + len(content), stop, content)

        try:
            retried(ask, self.attempts, doing)
        except UsageError:
            raise
        except Exception as error:
            if (refused := refusal(error, self.repository)) is not None:
                raise refused from error
            raise UsageError(
                f"{doing} from {endpoint()} failed {self.attempts} times: {first_line(error)}. What is done is kept: "
                "the same command goes on from there"
            ) from error
        return bytes(content)

    def _receive(self, start: int, stop: int, content: bytearray) -> None:
        """Append what the Hub sends of a range to what there is.

        Raises:
            OSError: the answer is short or too slow.
            UsageError: the Hub sends another part than was asked for.
        """
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self.repository, self.name, repo_type="dataset", revision=self.commit)
        headers = build_hf_headers(headers={"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"})
        began, wanted, silence = time.monotonic(), stop - start, constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=silence) as answer:
            if answer.status_code >= 400:
                answer.read()
            hf_raise_for_status(answer)
            sent = answer.headers.get("Content-Range", "")
            if answer.status_code != 206 or not sent.startswith(f"bytes {start}-"):
                raise UsageError(
                    f"{endpoint()} sends {self.name} of {self.repository} whole, or another part, where bytes "
                    f"{start:,} to {stop:,} were asked for; dataset.stream=false downloads the files first"
                )
            if sent.rpartition("/")[2] not in ("*", str(self.size)):
                raise UsageError(f"{self.name} of {self.repository} has another size than its commit {self.commit}")
            received = 0
            for chunk in answer.iter_bytes():
                part = chunk[: wanted - received]
                content += part
                received += len(part)
                seconds = time.monotonic() - began
                if received == wanted:
                    return
                if seconds > PATIENCE and received < SLOWEST * seconds:
                    raise TimeoutError(f"{received:,} bytes in {seconds:.0f} s")
        if received < wanted:
            raise ConnectionError(f"cut off after {received:,} of {wanted:,} bytes")


class _Parts(io.RawIOBase):
    """A file of which each read is a request."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size, self._fetch, self._place = size, fetch, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._place + size, self._size)
        parts = []
        while self._place < stop:
            parts.append(self._fetch(self._place, min(self._place + PART, stop)))
            self._place += len(parts[-1])
        return b"".join(parts)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
