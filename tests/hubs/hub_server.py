"""A hub in a thread that speaks both APIs as the real ones were seen to, with the faults that a test asks for.

It listens at 127.0.0.1 and sends large files on to `localhost`, which is another host to a client that minds its token.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import random
import socket
import ssl
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

NAME = "owner/name"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that no other seed gives."""
    return random.Random(seed).randbytes(size_bytes)


FILES = {
    "README.md": "# 数据\n".encode(),
    ".gitattributes": b"*.bin filter=lfs\n",
    "data/第一.jsonl": '{"text": "天下大势"}\n'.encode() * 50,
    "data/large.parquet": noise(300_000),
    "data/empty.txt": b"",
    "train.txt": noise(5_000, 1),
    "pytorch_model.bin": b"pickle",
    "load.py": b"import os\n",
}


@dataclass
class Fault:
    """What one request for a file or a listing meets instead of an answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    cut_bytes: int | None = None
    """Send so much of the body, then close the connection."""
    content: bytes | None = None
    """Send this instead, as long as it is."""
    no_length: bool = False
    """Do not say how long it is: it ends with the connection."""


@dataclass
class Request:
    """What was asked."""

    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def start_bytes(self) -> int:
        """Offset of its Range; 0 without one."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])


class HubServer:
    """`with HubServer(files) as hub:`; `hub.address` is its endpoint."""

    def __init__(self, files: dict[str, bytes], kind: str = "dataset", tls: ssl.SSLContext | None = None) -> None:
        self.files, self.kind, self.commit = dict(files), kind, COMMIT
        self._tls = tls
        self.large: set[str] = set()
        """In LFS: with a sha256, and sent on to another host."""
        self.store_host = "localhost"
        self.page_files = 1000
        self.listing_limit = 3000
        self.revisions = {"main", "master", COMMIT}
        self.knows_ranges = True
        self.tells_checksums = True
        """ModelScope's listing has the sha256 of each file."""
        self.token: str | None = None
        """Needed for every file."""
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        """Path of a file, or "listing" -> faults of the next requests, in turn."""
        self.before_body: Any = None
        """Called with handler, status and body; gives what is sent."""
        self.answer_after_seconds = 0.0
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[Request]:
        """Requests for the content of a file that the store or the hub itself was to answer."""
        return [r for r in self.requests if r.path.startswith("/store/") or self.file_of(r) not in (None, *self.large)]

    def file_of(self, request: Request) -> str | None:
        """The file that a request means."""
        if request.path.startswith("/store/"):
            return request.path.removeprefix("/store/")
        if request.path == f"/api/v1/{self.kind}s/{NAME}/repo":
            return request.query.get("FilePath")
        prefix = "/datasets" if self.kind == "dataset" else ""
        begin = f"{prefix}/{NAME}/resolve/{self.commit}/"
        return request.path.removeprefix(begin) if request.path.startswith(begin) else None

    def next_fault(self, name: str) -> Fault | None:
        with self.lock:
            return self.faults[name].pop(0) if self.faults[name] else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.hub.answer_after_seconds:
            time.sleep(self.hub.answer_after_seconds)
        parsed = urlsplit(self.path)
        query = dict(parse_qsl(parsed.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(headers.get("host", ""), unquote(parsed.path), query, headers)
        with self.hub.lock:
            self.hub.requests.append(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            file = self.hub.file_of(request)
            if file is not None:
                self._file(request, file)
            elif request.path.startswith("/api/v1/"):
                self._modelscope(request)
            else:
                self._huggingface(request)

    # Files

    def _file(self, request: Request, path: str) -> None:
        hub = self.hub
        stored = request.path.startswith("/store/")
        if not stored and hub.token and request.headers.get("authorization") != f"Bearer {hub.token}":
            code = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this repository is restricted."}
            return self._send(401, b"", code)
        if path not in hub.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = hub.files[path]
        if path in hub.large and not stored:
            where = f"{hub.address.replace('127.0.0.1', hub.store_host)}/store/{quote(path)}"
            return self._send(302, b"", {"Location": where, **self._told(content, large=True)})
        fault = hub.next_fault(path) if self.command == "GET" else None
        if fault is not None and fault.status:
            return self._send(fault.status, json.dumps(fault.body or {}).encode(), fault.headers)
        if fault is not None and fault.content is not None:
            content = fault.content
        cut = fault.cut_bytes if fault else None
        if fault is not None and fault.no_length:
            cut = len(content)
        length = fault is None or not fault.no_length
        start = request.start_bytes if hub.knows_ranges else 0
        told = self._told(content, large=path in hub.large)
        if not start:
            return self._send(200, content, told, cut, length=length)
        if start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        told["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206, content[start:], told, cut)

    def _told(self, content: bytes, *, large: bool) -> dict[str, str]:
        told = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{git_sha1(content)}"'}
        if large:
            told |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return told

    # Hugging Face

    def _huggingface(self, request: Request) -> None:
        hub = self.hub
        base = f"/api/{hub.kind}s/{NAME}"
        if request.path == base or request.path.startswith(f"{base}/revision/"):
            if (fault := hub.next_fault("listing")) is not None:
                return self._send(fault.status, json.dumps(fault.body or {}).encode(), fault.headers)
            if request.path != base and request.path.removeprefix(f"{base}/revision/") not in hub.revisions:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": path} for path in hub.files]
            return self._json({"id": NAME, "sha": hub.commit, "siblings": siblings, "private": False})
        if request.path == f"{base}/tree/{hub.commit}":
            return self._tree(request)
        return self._send(401, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def _tree(self, request: Request) -> None:
        hub = self.hub
        if (fault := hub.next_fault("tree")) is not None:
            return self._send(fault.status, b"{}", fault.headers)
        cursor = request.query.get("cursor")
        begin = int(base64.b64decode(cursor)) if cursor else 0
        entries: list[dict[str, Any]] = [
            {"type": "directory", "oid": "f" * 40, "size": 0, "path": folder}
            for folder in sorted({path.rpartition("/")[0] for path in hub.files} - {""})
        ]
        for path, content in hub.files.items():
            entry = {"type": "file", "oid": git_sha1(content), "size": len(content), "path": path}
            if path in hub.large:
                entry |= {"oid": "e" * 40, "lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 132}}
            entries.append(entry)
        headers = {}
        if begin + hub.page_files < len(entries):
            # As hf-mirror.com passes it on: the address of huggingface.co itself.
            after = quote(base64.b64encode(str(begin + hub.page_files).encode()))
            here = f"https://huggingface.co{request.path}?recursive=true&limit=1000&cursor={after}"
            headers["Link"] = f'<{here}>; rel="next"'
        return self._json(entries[begin : begin + hub.page_files], headers)

    # ModelScope

    def _modelscope(self, request: Request) -> None:
        hub = self.hub
        base = f"/api/v1/{hub.kind}s/{NAME}"
        if not request.path.startswith(base):
            body = {"Code": 10010205001, "Message": "record not found", "Success": False, "Data": None}
            return self._send(404, json.dumps(body).encode())
        what = request.path.removeprefix(base)
        if what == "/revisions":
            branches = [{"Revision": name} for name in sorted(hub.revisions)]
            return self._envelope({"RevisionMap": {"Branches": branches, "Tags": []}})
        if what not in ("/repo/files", "/repo/tree"):
            return self._envelope({"Name": NAME})
        if (fault := hub.next_fault("listing")) is not None:
            return self._send(fault.status, json.dumps(fault.body or {}).encode(), fault.headers)
        if request.query.get("Revision", "master") not in hub.revisions:
            return self._envelope({"Files": None, "LatestCommitter": None})
        entries = self._entries(request.query.get("Root", ""), request.query.get("Recursive") == "True")
        if what == "/repo/tree":
            size, page = int(request.query["PageSize"]), int(request.query["PageNumber"])
            entries = entries[size * (page - 1) : size * page]
        else:
            entries = entries[: hub.listing_limit]
        return self._envelope({"Files": entries, "LatestCommitter": {"Id": "", "ShortId": hub.commit[:8]}})

    def _entries(self, root: str, recursive: bool) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        prefix = f"{root}/" if root else ""
        for path, content in self.hub.files.items():
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:depth])
                found[folder] = {"Path": folder, "Type": "tree", "Size": 0, "Sha256": "", "Revision": "b" * 40}
            if recursive or len(parts) == 1:
                entry = {
                    "Path": path,
                    "Name": parts[-1],
                    "Type": "blob",
                    "Size": len(content),
                    "Revision": self.hub.commit,
                }
                found[path] = entry | {
                    "Sha256": sha256(content) if self.hub.tells_checksums else "",
                    "IsLFS": path in self.hub.large,
                }
        return list(found.values())

    def _envelope(self, data: Any) -> None:
        self._json({"Code": 200, "Data": data, "Message": "success", "RequestId": "r", "Success": True})

    # Answers

    def _json(self, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
        length: bool = True,
    ) -> None:
        self.send_response(status)
        self.send_header(*(("Content-Length", str(len(body))) if length else ("Connection", "close")))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.before_body is not None:
            body = self.hub.before_body(self, status, body)
        self.wfile.write(body if cut is None else body[:cut])
        self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
