"""Links between files of the repository, as links between pages of the site."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs"
LINK = re.compile(r"(?<!!)(\[[^\]\n]*(?:\n[^\]\n]*)?\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r"(!\[[^\]]*\]\()(?!\w+:|/)([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```\s*?$)", re.M | re.S)


def page_of(path: str) -> str:
    """The page of a repository's file, by its path from the root; pages have no ending.

    Markdown keeps its text; any other text file is shown as it is, below source/.
    """
    if path.startswith("docs/") and path.endswith(".md"):
        return path[len("docs/") :].removesuffix(".md")
    if path == "README.md":
        return "index"
    if path == "CHANGELOG.md":
        return "changelog"
    if path.endswith(".md"):
        folder, name = os.path.split(path.removesuffix(".md"))
        parts = [part for part in folder.split("/") if part != "figures"]
        top = ["figures", *parts[1:]] if parts[0] == "experiments" else parts
        return "/".join([*top, "index" if name == "README" else name])
    return f"source/{path}"


def targets(text: str, file: Path) -> set[str]:
    """The files outside docs/ that the text of a repository's file links to, by their paths from the root."""
    found: set[str] = set()

    def note(match: re.Match[str]) -> str:
        if (path := _outside(match[2], file)) is not None:
            found.add(path)
        return match[0]

    _outside_code(text, lambda piece: LINK.sub(note, piece))
    return found


def within_site(text: str, file: Path, name: str) -> str:
    """The text of a repository's file as the page of that name: links to files become links to their pages."""
    folder = os.path.dirname(name)

    def link(match: re.Match[str]) -> str:
        path = _outside(match[2], file)
        if path is None and file.is_relative_to(SITE):
            return match[0]
        page = page_of(path or os.path.relpath(file.parent / match[2], ROOT))
        return f"{match[1]}{os.path.relpath(page, folder or '.')}.md{match[3] or ''})"

    def image(match: re.Match[str]) -> str:
        path = os.path.normpath(file.parent / match[2])
        return f"{match[1]}{os.path.relpath(path, SITE / folder)})"

    return _outside_code(text, lambda piece: IMAGE.sub(image, LINK.sub(link, piece)))


def hidden(names: Iterable[str]) -> str:
    """The entries of these pages in the site's menu."""
    entries = "\n".join(names)
    return f"```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def _outside(target: str, file: Path) -> str | None:
    """The path from the root of a link's target; None if it lies in docs/. A folder stands for its README."""
    path = Path(os.path.normpath(file.parent / target))
    path = path / "README.md" if path.is_dir() else path
    return None if path.is_relative_to(SITE) else str(path.relative_to(ROOT))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    return "".join(piece if piece.startswith("```") else change(piece) for piece in FENCE.split(text))
