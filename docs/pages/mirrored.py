"""Pages that show files of the repository: the recipes of figures, notebooks, the changelog, sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from docs.pages import links
from docs.pages.links import ROOT

_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json"}
_HEADER = re.compile(r"\A---\n.*?\n---\n", re.S)  #: a notebook's header


def texts(folder: Path) -> dict[str, str]:
    """The pages written by hand, by name."""
    return {str(path.relative_to(folder).with_suffix("")): path.read_text() for path in sorted(folder.rglob("*.md"))}


def pages(known: Mapping[str, str]) -> dict[str, str]:
    """Figures, notebooks, the changelog, and each file that one of these or a known page links to."""
    made, recipes = {"figures/index": _figures()}, _recipes()
    for path in [*recipes, *sorted((ROOT / "notebooks").glob("*.md")), ROOT / "CHANGELOG.md"]:
        name = links.page_of(str(path.relative_to(ROOT)))
        header = "---\norphan: true\n---\n\n" if path in recipes and not _listed(path) else ""
        made[name] = header + links.within_site(_HEADER.sub("", path.read_text()) + _shown(path), path, name)
    linked = {path for name, text in known.items() for path in links.targets(text, links.SITE / f"{name}.md")}
    for path in recipes:
        linked |= links.targets(path.read_text(), path)
    shown = {links.page_of(path): path for path in linked}
    shown |= {name: name.removeprefix("source/") for name in _sources(known)}
    return made | {name: source(path) for name, path in shown.items() if name.startswith("source/")}


def source(path: str) -> str:
    """The page of a text file of the repository."""
    up = "../" * (path.count("/") + 2)
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"---\norphan: true\n---\n\n# {path}\n\n```{{literalinclude}} {up}{path}\n:language: {language}\n```\n"


def pictures(path: Path) -> list[str]:
    """The pictures of a figure's page, its main one first: NAME.png and NAME-*.png, but those of a longer name."""
    names = sorted((each.stem for each in path.parent.glob("*.md")), key=len, reverse=True)
    own = [
        picture.name
        for picture in path.parent.glob("*.png")
        if next((name for name in names if f"{picture.stem}-".startswith(f"{name}-")), None) == path.stem
    ]
    return sorted(own, key=lambda name: (len(name), name))


def _shown(path: Path) -> str:
    """Pictures, where the text does not have them."""
    if path.parent.name != "figures":
        return ""
    return "".join(f"\n![{Path(name).stem}]({name})\n" for name in pictures(path))


def _recipes() -> list[Path]:
    """README files of experiments/, and the pages of their figures."""
    folder = ROOT / "experiments"
    return sorted([*folder.rglob("README.md"), *folder.rglob("figures/*.md")])


def _sources(known: Mapping[str, str]) -> set[str]:
    """Pages of sources that made pages link to by their place in the site."""
    return {name for text in known.values() for name in re.findall(r"\]\(\.\./(source/[^)\s#]+)\.md\)", text)}


def _figures() -> str:
    names = [links.page_of(str(path.relative_to(ROOT))) for path in _recipes() if _listed(path)]
    entries = "\n".join(name.removeprefix("figures/") for name in sorted(names))
    return (
        "# Figures of papers\n\nWhat was measured, which claims of each paper held, and the command that makes it anew."
        f"\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    )


def _listed(path: Path) -> bool:
    """Whether a page stands in the list of figures: a paper's folder, or a figure of none; others hang below these."""
    folder = ROOT / "experiments"
    return path == folder / path.parent.name / "README.md" or path.parent == folder / "figures"
