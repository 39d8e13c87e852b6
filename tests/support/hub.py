"""A hub on the loopback that serves a folder <models|datasets>/<owner>/<repository>/... at one revision."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit


@contextmanager
def hub(root: Path, revisions: dict[str, str]) -> Iterator[str]:
    """Yield the endpoint that serves `root`; `revisions` has each repository's only commit."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            print(self.command, self.path, file=sys.stderr)

        def answer(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
            api = parts[0] == "api"
            parts = parts[1:] if api else parts
            kind = parts.pop(0) if parts and parts[0] in ("models", "datasets") else "models"
            if len(parts) < 4:
                return self.send(404, {})
            owner, name, verb, revision, *rest = parts
            repository, path = f"{owner}/{name}", "/".join(rest)
            folder = root / kind / repository
            if revisions.get(repository) != revision:
                return self.send(404, {}, {"X-Error-Code": "RevisionNotFound"})
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            names = [str(file.relative_to(folder)) for file in files]
            if verb == "revision":
                return self.send(
                    200,
                    {"id": repository, "sha": revision, "siblings": [{"rfilename": name} for name in names]},
                )
            entries = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": digest(file)}
                for name, file in zip(names, files, strict=True)
            ]
            entries += [
                {"type": "directory", "path": str(sub.relative_to(folder)), "oid": "0" * 40}
                for sub in folder.rglob("*")
                if sub.is_dir()
            ]
            if verb == "tree":
                return self.send(
                    200, [entry for entry in entries if entry["path"].rpartition("/")[0] == path]
                )
            if verb == "paths-info":
                return self.send(200, [entry for entry in entries if entry["path"] in form.get("paths", [])])
            if path not in names:
                return self.send(404, {}, {"X-Error-Code": "EntryNotFound"})
            return self.send(
                200,
                (folder / path).read_bytes(),
                {"ETag": f'"{digest(folder / path)}"', "X-Repo-Commit": revision},
            )

        do_GET = do_HEAD = do_POST = answer

        def send(self, code: int, content: object, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            for key, value in ((headers or {}) | {"Content-Length": str(len(data))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
