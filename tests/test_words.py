"""The words of the package: the glossary's are in use, and nouns that could stand for anything are rare."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fedjax_lc"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
ENTRIES = re.findall(r"^- \*\*([a-z]+)\*\* \(\[([^]]+)\]\(\.\./fedjax_lc/([^)]+)\)\): ", GLOSSARY, flags=re.M)
EXPECTED = [
    "block",
    "checkpoint",
    "chunk",
    "cohort",
    "configuration",
    "consensus",
    "downlink",
    "lane",
    "memory",
    "message",
    "node",
    "part",
    "phase",
    "record",
    "round",
    "rung",
    "setting",
    "shift",
    "slot",
    "step",
    "theory",
    "turn",
    "uplink",
]
VAGUE = re.compile(r"\b(found|own|told)\b")
MOST_VAGUE = 30  #: lines of the package that may hold one of them


def test_the_glossary_explains_each_word_once_in_order():
    assert [word for word, *_ in ENTRIES] == EXPECTED
    assert len(re.findall(r"^- ", GLOSSARY, flags=re.M)) == len(EXPECTED)


@pytest.mark.parametrize(("word", "shown", "path"), ENTRIES)
def test_the_file_of_a_glossary_entry_uses_its_word(word, shown, path):
    assert shown == path
    plural = word[:-1] + "ies" if word.endswith("y") else word + "s"
    words = re.findall(r"[A-Z]?[a-z]+", (PACKAGE / path).read_text())  # of names such as `part_size` and `Turn` too
    assert {word, plural} & {each.lower() for each in words}


def test_vague_words_are_rare():
    lines = [line for file in PACKAGE.rglob("*.py") for line in file.read_text().splitlines()]
    assert sum(bool(VAGUE.search(line)) for line in lines) <= MOST_VAGUE
