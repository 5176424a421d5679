"""A stand-in for Hugging Face's hub on the loopback address: repositories in memory, the part of its HTTP API that
``snapshot_download`` and ``upload_folder`` speak."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "c0ffee" + "0" * 34


class Hub:
    """Repositories by name, each a mapping of paths to bytes."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.address = ""


@contextlib.contextmanager
def hub() -> Iterator[Hub]:
    """Serve a hub for as long as the block lasts."""
    served = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": served}))
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, content: bytes | dict[str, Any], status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            self._send({"type": "user", "name": "me", "auth": {"type": "access_token"}})
        elif path.startswith("/api/models/"):
            repo = "/".join(path.split("/")[3:5])
            if repo not in self.hub.repos:
                self._send({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                return
            files = [
                {"type": "file", "rfilename": name, "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in self.hub.repos[repo].items()
            ]
            if "/tree/" in path:
                self._send(json.dumps(files).encode())
            else:
                self._send(
                    {
                        "id": repo,
                        "sha": SHA,
                        "siblings": files,
                        "private": False,
                        "tags": [],
                        "downloads": 0,
                        "likes": 0,
                    }
                )
        else:
            org, name, _, _, *file = path.strip("/").split("/")
            data = self.hub.repos.get(f"{org}/{name}", {}).get("/".join(file))
            if data is None:
                self._send({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            else:
                self._send(data, ETag=f'"{_oid(data)}"', X_Repo_Commit=SHA)

    def do_POST(self) -> None:
        self.hub.asked.append(f"POST {self.path.partition('?')[0]}")
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if self.headers.get("Authorization") != "Bearer hf_stand_in":
            self._send({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.repos.setdefault(repo, {})
            self._send({"url": f"{self.hub.address}/{repo}", "name": repo, "id": repo})
        elif path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._send({"files": files})
        elif "/commit/" in path:
            repo = "/".join(path.split("/")[3:5])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.hub.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.hub.address}/{repo}/commit/{SHA}"
            self._send({"success": True, "commitUrl": url, "commitOid": SHA, "hookOutput": ""})
        else:
            self._send({"error": f"not here: {path}"}, 404)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
