"""``todm-sb serve``: a page that runs exported subnets in the browser.

todm-sb export results/mini/1234 exported/web --format web
todm-sb serve exported/web --open

Everything runs in the browser; audio does not leave it. The first start fetches onnxruntime-web
with npm; no later one needs a network. Ctrl-C ends.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from contextlib import suppress

from todm_sb.cli.main import OK
from todm_sb.utils.arguments import path
from todm_sb.web.models import find_models
from todm_sb.web.runtime import VERSION, default_cache, get_runtime, is_whole
from todm_sb.web.server import PageServer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``serve``."""
    parser.add_argument("folder", type=path, help="written by todm-sb export --format web")
    parser.add_argument("--port", type=port_number, default=8000, help="0 for any free one (8000)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at; 0.0.0.0 lets other machines in (127.0.0.1, this one only)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C.

    Returns:
        The exit code.

    Raises:
        ConfigError: if there is nothing to serve, onnxruntime-web cannot be had, or the port is
            taken.
    """
    found = find_models(arguments.folder)
    cache = default_cache()
    if not is_whole(cache):
        print(f"fetching onnxruntime-web {VERSION} into {cache}, once", file=sys.stderr)
    folder = get_runtime(cache)
    with (
        PageServer(found, folder, arguments.host, arguments.port) as server,
        suppress(KeyboardInterrupt),
    ):
        choice = f"{arguments.folder}: {len(found)} to choose from"
        print(f"{choice} at {server.url} (Ctrl-C ends)", flush=True)
        if arguments.open:
            webbrowser.open(server.url)
        server.serve_forever()
    return OK


def port_number(text: str) -> int:
    port = int(text)
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..65535")
    return port
