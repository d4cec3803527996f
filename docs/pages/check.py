"""`python -m docs.pages.check FOLDER`: every link within a built site leads to a page, and to a place in it."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The links of a page and the places in it that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.links += [value for name in ("href", "src") if (value := given.get(name))]
        self.places |= {value for name in ("id", "name") if (value := given.get(name))}


def broken(folder: Path) -> list[str]:
    """A line for each link to nowhere; addresses of other sites are not asked for."""
    pages = {path.resolve(): _Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    lines = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                lines.append(f"{path.relative_to(folder.resolve())}: {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                lines.append(f"{path.relative_to(folder.resolve())}: {link}: no such place in the page")
    return lines


def main(folder: str) -> int:
    """Print what is broken; 1 if anything is."""
    lines = broken(Path(folder))
    print("\n".join(lines) if lines else f"links within {folder} lead somewhere")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
