"""A stand-in for the hub: one model, answered to the real client over loopback.

It speaks the part of the hub's HTTP interface that fetching a model takes: what the model holds
(``/api/models/ID``, its tree) and its files (``/ID/resolve/REVISION/PATH``) with ``ETag``,
``X-Repo-Commit`` and ``Range``.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A folder served as ``org/name``; ``hold_at`` stops every large file after so many bytes."""

    def __init__(self, folder: Path, name: str = "org/name") -> None:
        self.name = name
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.hold_at: int | None = None
        self.held = threading.Event()
        """Set when a file was stopped."""
        self.ending = threading.Event()
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and range of every request."""
        self.portal = False
        """Whether every request gets a page, as from a network that wants a login."""
        self.altered: dict[str, bytes] = {}
        """What is sent instead of a file, under its own checksum."""

    def fetched(self, suffix: str) -> list[tuple[str, str]]:
        """Return path and range of every file that was sent."""
        return [(p, r) for method, p, r in self.requests if method == "GET" and p.endswith(suffix)]

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Answer within this; gives the endpoint."""
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.ending.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def row(self, path: str) -> dict[str, Any]:
        """Describe a file as the hub does: weights are in Git LFS, named by their SHA-256."""
        data = self.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        row: dict[str, Any] = {"type": "file", "path": path, "oid": blob, "size": len(data)}
        if path.endswith(".safetensors"):
            digest = hashlib.sha256(data).hexdigest()
            row["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 134}
        return row


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _answer(self, *, body: bool) -> None:
        hub = self.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if hub.portal:
            return self._json({"please": "log in"})
        if path.startswith(f"/api/models/{hub.name}/tree/"):
            return self._json([hub.row(name) for name in hub.files])
        if path.startswith(f"/api/models/{hub.name}"):
            blobs = "blobs" in parse_qs(urlsplit(self.path).query)
            rows = [hub.row(name) for name in hub.files]
            siblings = [
                {"rfilename": row["path"]}
                | ({"size": row["size"], "lfs": row.get("lfs")} if blobs else {})
                for row in rows
            ]
            return self._json(
                {"_id": "1", "id": hub.name, "modelId": hub.name, "sha": COMMIT, "tags": []}
                | {"siblings": siblings, "private": False, "downloads": 0, "likes": 0}
            )
        parts = path.removeprefix(f"/{hub.name}/resolve/").partition("/")
        if path.startswith(f"/{hub.name}/resolve/") and parts[2] in hub.files:
            return self._file(parts[2], body=body)
        code = "RepoNotFound" if hub.name not in path else "EntryNotFound"
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, name: str, *, body: bool) -> None:
        hub, row = self.hub, self.hub.row(name)
        data = hub.altered.get(name, hub.files[name])
        first, wanted = 0, self.headers.get("Range", "")
        if wanted:
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{row.get("lfs", {}).get("sha256") or row["oid"]}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if not body:
            return
        rest = data[first:]
        if hub.hold_at is not None and len(rest) > hub.hold_at:
            self.wfile.write(rest[: hub.hold_at])
            self.wfile.flush()
            hub.held.set()
            hub.ending.wait()
            self.close_connection = True
            return
        self.wfile.write(rest)
