"""The server of the page: a fixed list of files, and nothing else."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import sys
from collections.abc import Sequence
from functools import cached_property
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import sha256_of
from todm_sb.utils.hub import ONNX_FILES
from todm_sb.web import runtime
from todm_sb.web.models import WebModel

PAGE = Path(__file__).parent / "page"
MODELS_JSON = "/models.json"
HEADERS = {
    # Isolated from other origins, a page may have threads and measure its memory.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The page reaches nothing but this server.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "img-src 'self' data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, and asked for whether it is still the same, by its ETag.
    "Cache-Control": "no-cache",
}


class PageServer(ThreadingHTTPServer):
    """Serves the page with some models.

    Args:
        found: the models.
        runtime_folder: of :func:`todm_sb.web.runtime.get_runtime`.
        host: name or address to bind.
        port: to bind; 0 for any free one.

    Raises:
        ConfigError: if it cannot bind.
    """

    daemon_threads = True
    allow_reuse_port = False

    def __init__(
        self, found: Sequence[WebModel], runtime_folder: Path, host: str, port: int
    ) -> None:
        self.files = routes(found, runtime_folder)
        self.catalogue = json.dumps(catalogue(found)).encode()
        self.host = host
        try:
            self.address_family, address = _address_of(host, port)
            super().__init__(address, _Handler)
        except (OSError, UnicodeError) as error:
            raise ConfigError(_why_not_bound(error, host, port)) from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @cached_property
    def names(self) -> set[str]:
        """By which a browser may call a server of this machine only: a site that let its own name
        lead here could read what is served (DNS rebinding). Empty where others are served, too."""
        bound = str(self.server_address[0])
        if not ip_address(bound).is_loopback:
            return set()
        return {"localhost", "127.0.0.1", "::1", bound, self.host.lower()}

    @property
    def url(self) -> str:
        """Of the page."""
        host, port = self.server_address[:2]
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def routes(found: Sequence[WebModel], runtime_folder: Path) -> dict[str, Path]:
    """Each file that is served, by its path in a URL."""
    served = {f"/{path.name}": path for path in PAGE.iterdir() if path.is_file()}
    served["/"] = PAGE / "index.html"
    served |= {f"/runtime/{name}": runtime_folder / name for name in runtime.FILES}
    for model in found:
        served |= {f"/{_location(model)}{name}": model.folder / name for name in ONNX_FILES}
    return served


def catalogue(found: Sequence[WebModel]) -> list[dict[str, Any]]:
    """What the page is told of the models: their cards, size in bytes, and where they are, as seen
    from the page."""
    return [{**m.card, "bytes": m.size, "location": _location(m)} for m in found]


def _location(model: WebModel) -> str:
    # A name need not be UTF-8.
    return quote(os.fsencode("models/" if model.path == "." else f"models/{model.path}/"))


class _Handler(SimpleHTTPRequestHandler):
    server: PageServer
    timeout = 30  # seconds that a connection on which nothing moves keeps its thread
    tag: str | None = None  # of the file that is sent
    extensions_map = {  # noqa: RUF012
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".wasm": "application/wasm",
        ".txt": "text/plain; charset=utf-8",
        "": "application/octet-stream",
    }

    def send_head(self) -> BinaryIO | None:
        try:
            path = urlsplit(self.path).path
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return None
        if self.server.names and name not in self.server.names:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain=f"Ask for {self.server.url}")
            return None
        if path == MODELS_JSON:
            return self._send_catalogue()
        if path not in self.server.files:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        try:
            self.tag = f'"{sha256_of(self.server.files[path])}"'
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        if self.headers.get("If-None-Match") == self.tag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.end_headers()
            return None
        # What a browser has from another folder, served here before, may well be newer.
        del self.headers["If-Modified-Since"]
        return super().send_head()

    def translate_path(self, path: str) -> str:
        return str(self.server.files[urlsplit(path).path])

    def _send_catalogue(self) -> BinaryIO:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.catalogue)))
        self.end_headers()
        return io.BytesIO(self.server.catalogue)

    def end_headers(self) -> None:
        if self.tag is not None:
            self.send_header("ETag", self.tag)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_error(self, format: str, *args: Any) -> None:
        """Says nothing of connections that browsers open in advance and do not use."""
        if not any(isinstance(arg, TimeoutError) for arg in args):
            super().log_error(format, *args)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Says nothing of what went well."""


def _address_of(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """What to bind: of a name that has addresses of both families, the IPv4 one."""
    flags = socket.AI_PASSIVE  # no name at all is any address
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    family, *_, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, address


def _why_not_bound(error: OSError | UnicodeError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"--host {host} is not a name or address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: choose another by --port, or any by --port 0"
    return f"cannot serve at {host}, port {port}: {error.strerror}"
