"""Pages of the site that are made of what lies elsewhere: README, CONTRIBUTING, docstrings.

A hook of mkdocs. Modules are parsed, not imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "todm_sb"
# Sections of a docstring: those of a list of names, and those of text.
NAMED = ("Args", "Attributes", "Raises")
SECTIONS = (*NAMED, "Returns", "Yields")
Documented = ast.ClassDef | ast.FunctionDef


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made."""
    packages = sorted({path.parent for path in PACKAGE.rglob("*.py")})
    pages = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "api.md": overview(packages),
        **{page_of(folder): page(folder) for folder in packages},
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def page_of(folder: Path) -> str:
    """The page of a package."""
    return f"api/{dotted(folder)}.md"


def dotted(path: Path) -> str:
    """The name of a module or package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def overview(packages: list[Path]) -> str:
    """All packages, a line each."""
    lines = ["# API", ""]
    for folder in packages:
        doc = ast.get_docstring(parse(folder / "__init__.py")) or ""
        lines.append(f"- [{dotted(folder)}]({page_of(folder)}): {rendered(doc.splitlines()[:1])}")
    return "\n".join(lines) + "\n"


def page(folder: Path) -> str:
    """What a package's modules offer."""
    parts = [f"# {dotted(folder)}", doc_of(parse(folder / "__init__.py"))]
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        module = parse(path)
        parts += [f"## {dotted(path)}", doc_of(module)]
        for node in public(module):
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            parts += [f"### {node.name}", f"```python\n{kind} {signature(node)}\n```", doc_of(node)]
            for method in public(node) if isinstance(node, ast.ClassDef) else ():
                parts += [f"```python\ndef {signature(method)}\n```", doc_of(method)]
    return "\n\n".join(part for part in parts if part) + "\n"


def parse(path: Path) -> ast.Module:
    """A module's tree; an empty one where there is none."""
    return ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")


def public(node: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    """Classes and functions for users, in their order."""
    for child in node.body:
        if isinstance(child, Documented) and not child.name.startswith("_"):
            yield child


def signature(node: Documented) -> str:
    """Name, arguments, and what comes of them."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({arguments(node)}){returns}"
    made = [x for x in node.body if isinstance(x, ast.FunctionDef) and x.name == "__init__"]
    return f"{node.name}({arguments(made[0])})" if made else node.name


def arguments(node: ast.FunctionDef) -> str:
    """The arguments that a caller gives."""
    return re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))


def doc_of(node: Documented | ast.Module) -> str:
    """A docstring as Markdown."""
    return rendered((ast.get_docstring(node) or "").splitlines())


def rendered(lines: list[str]) -> str:
    """Docstring sections as lists, roles and literals as code."""
    found: list[str] = []
    section = ""
    for line in lines:
        if line.endswith(":") and line[:-1] in SECTIONS:
            section = line[:-1]
            found += ["", f"**{section}**", ""]
        elif section and line.startswith("    "):
            named = re.match(r"    (\S.*?): (.*)", line) if section in NAMED else None
            if named:
                found.append(f"- `{named[1]}`: {named[2]}")
            else:
                found.append(f"    {line.strip()}" if section in NAMED else line.strip())
        else:
            section = section if not line else ""
            found.append(line)
    text = re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", "\n".join(found))
    return text.replace("``", "`").replace("::\n", ":\n").strip()
