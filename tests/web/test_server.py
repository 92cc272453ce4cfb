import http.client
import json
import os
import socket
import threading
from urllib.request import urlopen

import pytest

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import ONNX_FILES
from todm_sb.web.models import find_models
from todm_sb.web.server import PAGE, PageServer, _Handler


@pytest.fixture
def serve(web_runtime):
    """Serves a folder; returns ``get(path) -> status, headers, body``."""
    servers = []

    def start(folder):
        server = PageServer(find_models(folder), web_runtime, "127.0.0.1", 0)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def get(path, method="GET", **headers):
            # As it stands: a browser would tidy up the path.
            connection = http.client.HTTPConnection(*server.server_address)
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            got = response.status, response.headers, response.read()
            connection.close()
            return got

        return get

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_page_the_runtime_and_the_models_are_served(web_export, serve, web_runtime):
    folder = web_export()
    get = serve(folder)
    for path in PAGE.iterdir():
        assert get(f"/{path.name}")[2] == path.read_bytes()
    assert get("/")[2] == get("/index.html?x=1")[2] == (PAGE / "index.html").read_bytes()
    for path in web_runtime.iterdir():
        assert get(f"/runtime/{path.name}")[2] == path.read_bytes()
    for name in ONNX_FILES:
        status, _, body = get(f"/models/min/int8/{name}")
        assert (status, body) == (200, (folder / "min" / "int8" / name).read_bytes())


def test_an_idle_connection_is_closed_in_silence(tmp_path, monkeypatch, capsys):
    assert 1 < _Handler.timeout <= 60
    monkeypatch.setattr(_Handler, "timeout", 0.1)
    server = PageServer([], tmp_path, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.create_connection(server.server_address, timeout=10) as connection:
        assert connection.recv(1) == b""
    server.shutdown()
    server.server_close()
    assert capsys.readouterr().err == ""


def test_the_list_says_where_the_models_are(web_export, serve):
    web_export("a b/int8", size=20, name="odd")
    get = serve(web_export())
    _, headers, body = get("/models.json")
    assert headers["Content-Type"] == "application/json"
    first, second = json.loads(body)
    assert first["name"] == "min"
    assert first["bytes"] == 10 * len(ONNX_FILES)
    # Relative, for a proxy may serve the page under a prefix.
    assert second["location"] == "models/a%20b/int8/"
    for model in (first, second):
        assert get(f"/{model['location']}tokens.txt")[0] == 200


def test_a_folder_whose_name_is_not_utf_8_is_served(web_export, serve):
    get = serve(web_export("a\udce4/int8"))
    (model,) = json.loads(get("/models.json")[2])
    assert model["location"] == "models/a%E4/int8/"
    assert get("/models/a%E4/int8/tokens.txt")[0] == 200


def test_a_model_alone_is_served(web_export, serve):
    get = serve(web_export() / "min" / "int8")
    (model,) = json.loads(get("/models.json")[2])
    assert get(f"/{model['location']}encoder.onnx")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/models/../../secret",
        "/models/min/int8/../../../../secret",
        "/models/min/int8/..%2f..%2f..%2f..%2fsecret",
        "//etc/passwd",
        "/models/min/int8/",
        "/models/",
        "/models/min/int8/model.json",
        "/models/min/int8/notes.txt",
        "/runtime/",
        "/server.py",
        "/index.html/",
        "/%01",
        "secret",
    ],
)
def test_nothing_else_is_served(web_export, serve, tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    folder = web_export()
    (folder / "min" / "int8" / "notes.txt").write_text("secret")
    status, _, body = serve(folder)(path)
    assert status == 404
    assert b"secret" not in body
    assert b"root:" not in body


def test_an_address_that_is_none_is_a_bad_request(web_export, serve):
    assert serve(web_export())("http://[", Host="localhost")[0] == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LocalHost", 200),
        ("127.0.0.1:9000", 200),  # of ssh -L
        ("[::1]:8000", 200),
        ("example.org:8000", 421),
        ("localhost.example.org", 421),
        ("", 421),
        ("[", 400),
    ],
)
def test_sites_that_lead_their_name_here_get_nothing(web_export, serve, host, status):
    get = serve(web_export())
    for path in ("/", "/models.json", "/models/min/int8/encoder.onnx"):
        got, _, body = get(path, Host=host)
        assert got == status
        assert status == 200 or (b"min" not in body and b"xxx" not in body)


def test_where_other_machines_are_served_any_name_is_good(web_export, web_runtime):
    with PageServer(find_models(web_export()), web_runtime, "0.0.0.0", 0) as server:
        assert not server.names


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(web_export, serve, method):
    assert serve(web_export())("/index.html", method)[0] == 501


def test_headers_isolate_the_page(web_export, serve):
    get = serve(web_export())
    for path in ("/", "/models.json", "/runtime/ort.wasm.min.mjs", "/missing"):
        _, headers, _ = get(path)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/runtime/ort.wasm.min.mjs", "text/javascript; charset=utf-8"),
        ("/runtime/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/models/min/int8/encoder.onnx", "application/octet-stream"),
    ],
)
def test_types_are_those_that_browsers_want(web_export, serve, path, kind):
    assert serve(web_export())(path)[1]["Content-Type"] == kind


def test_what_a_browser_has_is_not_sent_again(web_export, serve):
    get = serve(web_export())
    path = "/runtime/ort-wasm-simd-threaded.wasm"
    tag = get(path)[1]["ETag"]
    status, headers, body = get(path, **{"If-None-Match": tag})
    assert (status, headers["ETag"], body) == (304, tag, b"")


def test_a_browser_does_not_take_what_another_folder_had_at_the_same_place(web_export, serve):
    folder, path = web_export(), "/models/min/int8/encoder.onnx"
    file = folder / "min" / "int8" / "encoder.onnx"
    get = serve(folder)
    headers = get(path)[1]
    # Of the same size, and older.
    file.write_bytes(b"y" * 10)
    os.utime(file, (1e9, 1e9))
    asked = {"If-Modified-Since": headers["Last-Modified"]}
    for extra in ({}, {"If-None-Match": headers["ETag"]}):
        status, _, body = get(path, **asked, **extra)
        assert (status, body) == (200, b"y" * 10)
    file.unlink()
    assert get(path)[0] == 404


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_is_served(web_export, web_runtime, host):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("needs IPv6")
    with PageServer(find_models(web_export()), web_runtime, host, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.url == f"http://[::1]:{server.server_address[1]}/"
        assert urlopen(server.url).status == 200
        server.shutdown()


def test_a_port_in_use_is_one_line(web_export, web_runtime):
    found = find_models(web_export())
    with PageServer(found, web_runtime, "127.0.0.1", 0) as first:
        port = first.server_address[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use"):
            PageServer(found, web_runtime, "127.0.0.1", port)


def test_a_host_that_is_not_here_is_one_line(web_export, web_runtime):
    found = find_models(web_export())
    with pytest.raises(ConfigError, match="--host no such host is not a name or address"):
        PageServer(found, web_runtime, "no such host", 0)
    with pytest.raises(ConfigError, match=r"--host x{99} is not a name or address"):
        PageServer(found, web_runtime, "x" * 99, 0)
    with pytest.raises(ConfigError, match=r"cannot serve at 192\.0\.2\.1"):
        PageServer(found, web_runtime, "192.0.2.1", 0)
