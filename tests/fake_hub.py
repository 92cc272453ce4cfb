"""A server on this machine that speaks what is needed of the Hub's protocol."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory.

    Args:
        token: that private repositories want to see.
    """

    daemon_threads = True

    def __init__(self, token="hf_secret"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.files = {}  # contents by commit and name
        self.commits = {}  # by repository and revision
        self.private, self.gated = set(), set()
        self.requests = []  # method, path, Authorization
        self.url = f"http://127.0.0.1:{self.server_port}"

    def push(self, name, folder, revision="main"):
        """Takes the files of a folder as the newest commit of a revision; returns it."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
        names = json.dumps({k: _oid(v) for k, v in files.items()}, sort_keys=True)
        commit = hashlib.sha1(f"{name} {names}".encode()).hexdigest()
        self.files[commit] = files
        known = self.commits.setdefault(name, {})
        known |= {revision: commit, commit: commit}
        return commit

    def fetched(self):
        """Names of the files whose contents were asked for."""
        paths = [path for method, path, _ in self.requests if method == "GET"]
        return [path.rpartition("/")[2] for path in paths if "/resolve/" in path]


@contextmanager
def serving(hub):
    """Runs it in a thread."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def _oid(data):
    return hashlib.sha1(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.requests.append((self.command, path, self.headers.get("Authorization")))
        api, path = path.startswith("api/models/"), path.removeprefix("api/models/")
        owner, model, kind, revision, *rest = [*path.split("/"), "", ""]
        name = f"{owner}/{model}"
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if name not in self.server.commits or (name in self.server.private and not allowed):
            self.refuse(401, "RepoNotFound")
        elif name in self.server.gated and not allowed:
            self.refuse(403, "GatedRepo")
        elif revision not in self.server.commits[name]:
            self.refuse(404, "RevisionNotFound")
        else:
            commit = self.server.commits[name][revision]
            self.serve(api, name, kind, commit, "/".join(filter(None, rest)))

    def serve(self, api, name, kind, commit, file):
        files = self.server.files[commit]
        if api and kind == "revision":
            self.answer(json.dumps({"id": name, "sha": commit}).encode())
        elif api and kind == "tree":
            tree = [
                {"type": "file", "path": k, "size": len(v), "oid": _oid(v)}
                for k, v in files.items()
            ]
            self.answer(json.dumps(tree).encode())
        elif kind == "resolve" and file in files:
            oid = _oid(files[file])
            self.answer(files[file], {"ETag": f'"{oid}"', "X-Repo-Commit": commit})
        else:
            self.refuse(404, "EntryNotFound")

    def answer(self, data, headers=None, status=200):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status, code):
        self.answer(b"", {"X-Error-Code": code, "X-Error-Message": code}, status)

    def log_message(self, *args):
        """Tests are quiet."""
