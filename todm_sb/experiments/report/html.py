"""Markdown as a page that needs nothing but itself."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from urllib.parse import unquote

import markdown

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: left;
         font-variant-numeric: tabular-nums }
img { max-width: 100% }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; white-space: pre-wrap }
h1, h2, h3 { line-height: 1.2; margin-top: 2rem }
"""


def to_html(text: str, folder: Path) -> str:
    """A page with its images in it.

    Args:
        text: Markdown with tables, fenced code, and PNG images.
        folder: that the images' paths start from.
    """
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    title = html.escape(text.partition("\n")[0].lstrip("# "))

    def inlined(match: re.Match[str]) -> str:
        png = (folder / unquote(html.unescape(match[1]))).read_bytes()
        return f'src="data:image/png;base64,{base64.b64encode(png).decode()}"'

    body = re.sub(r'src="([^"]+\.png)"', inlined, body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
