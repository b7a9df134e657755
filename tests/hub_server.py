"""A stand-in for the Hugging Face Hub on the loopback interface, for data sets in a folder
``OWNER/NAME/...``.

It speaks as much of the Hub's protocol as `huggingface_hub` and `datasets` need to list and download files, and to read
parts of them, counts what was downloaded, and fails as often as it is told to: with status 503, or by hanging up half
way, in turn.  It may ask for a token, as a private or a gated data set does.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = hashlib.sha1(b"the only commit").hexdigest()


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, failures: int = 0, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder, self.commit = folder, COMMIT
        self.failures = failures
        self.token: str | None = None
        self.gated = False
        self.downloads: list[str] = []
        self.sent = 0
        self.silent_after: int | None = None
        """Bytes sent after which nothing is answered any more, and :attr:`silenced` is set."""
        self.silenced, self.stopped = threading.Event(), threading.Event()
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator[HubServer]:
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            self.shutdown()
            self.server_close()
            for connection in self.connections:  # whose threads would go on answering
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def next_failure(self) -> int:
        """Return 0 (answer well), 1 (status 503) or 2 (hang up half way)."""
        with self.lock:
            if self.failures == 0:
                return 0
            self.failures -= 1
            return 1 + self.failures % 2


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _answer(self, body: str = "") -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.server.token is not None and given != self.server.token:
            code, said = ("", "Invalid credentials in Authorization header") if given else ("RepoNotFound", "no token")
            self._reply(401, b"{}", {"X-Error-Code": code, "X-Error-Message": said})
            return
        if self.server.gated:
            self._reply(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "not on the list"})
            return
        match unquote(urlsplit(self.path).path).strip("/").split("/"):
            case ["api", "datasets", owner, name] | ["api", "datasets", owner, name, "revision", _]:
                self._describe(owner, name)
            case ["api", "datasets", owner, name, "tree", _, *below]:
                self._list(self.server.folder / owner / name, "/".join(below))
            case ["api", "datasets", owner, name, "paths-info", _]:
                root = self.server.folder / owner / name
                wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
                self._json([_entry(root, root / path) for path in wanted if (root / path).exists()])
            case ["datasets", owner, name, "resolve", _, *path]:
                self._send(self.server.folder / owner / name / "/".join(path))
            case [owner, name, "resolve", _, *path]:  # of a model
                self._send(self.server.folder / owner / name / "/".join(path))
            case _:
                self._missing("EntryNotFound")

    def _describe(self, owner: str, name: str) -> None:
        root = self.server.folder / owner / name
        if not root.is_dir():
            self._missing("RepoNotFound")
            return
        names = [{"rfilename": str(path.relative_to(root))} for path in sorted(root.rglob("*")) if path.is_file()]
        self._json(
            {"id": f"{owner}/{name}", "sha": self.server.commit, "siblings": names, "private": False, "tags": [],
             "downloads": 0, "likes": 0, "gated": False, "disabled": False}
        )  # fmt: skip

    def _list(self, root: Path, below: str) -> None:
        if not (root / below).is_dir():
            self._missing("EntryNotFound")
            return
        paths = (root / below).rglob("*") if "recursive=true" in self.path.lower() else (root / below).iterdir()
        self._json([_entry(root, path) for path in sorted(paths)])

    def _send(self, path: Path) -> None:
        if not path.is_file():
            self._missing("EntryNotFound")
            return
        content = path.read_bytes()
        start, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(start) : int(last or len(content)) + 1]
        if self.server.silent_after is not None and self.server.sent > self.server.silent_after:
            self.server.silenced.set()
            self.server.stopped.wait(60)
            self.close_connection = True
            return
        failure = self.server.next_failure() if self.command == "GET" else 0
        if failure == 1:
            self._reply(503, b"try again")
            return
        if self.command == "GET" and failure == 0:
            self.server.downloads.append(path.name)
            self.server.sent += len(part)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.server.commit}
        ranged = "Range" in self.headers
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
        self._reply(206 if ranged else 200, part, headers, hang_up=failure == 2)

    def _json(self, value: object) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._reply(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, hang_up: bool = False) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if hang_up else body)
        self.close_connection = self.close_connection or hang_up


def _entry(root: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(root))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    lfs = {"oid": digest, "size": len(content), "pointerSize": 134}
    return {"type": "file", "path": name, "oid": digest[:40], "size": len(content), "lfs": lfs}
