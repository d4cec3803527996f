"""Pages of the site that are made when it is built: of methods, compressors, figures, commands, sources.

`write` puts them beside the pages written by hand; none of them is kept in the repository.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from docs.pages import commands, compressors, links, methods, mirrored

MADE = ("methods", "compressors", "figures", "notebooks", "source", "commands.md", "changelog.md")


def write(folder: Path) -> None:
    """Make all pages anew below the folder of the site's sources."""
    for name in MADE:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    pages = methods.pages() | compressors.pages(folder / "compressors") | commands.pages()
    pages |= mirrored.pages(mirrored.texts(folder) | pages)
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def relink(app: object, name: str, source: list[str]) -> None:
    """Links of a page into the repository become links within the site, when Sphinx reads it."""
    source[0] = links.within_site(source[0], links.ROOT / "docs" / f"{name}.md", name)
