"""Every block of code of the documentation's pages works, at a small size."""

import re

import pytest

import fedjax_lc as fl
from fedjax_lc import cli
from fedjax_lc.algorithms.frames import base
from fedjax_lc.compressors.parse import REGISTRY
from tests.pages import DOCS, GAP, LONG, PAGES, README, ROOT, blocks, shortened, smaller

STEPS = 4
COMMANDS = [
    pytest.param(page, block, id=f"{page.relative_to(ROOT).with_suffix('')}-{number}")
    for page in [README, *PAGES]
    for number, block in enumerate(blocks(page))
    if block.kind == "bash" and block.commands()
]
RUN = [page for page in PAGES if any(block.how == "run" and block.kind in ("python", "bash") for block in blocks(page))]
MESSAGES = [block for block in blocks(DOCS / "errors.md") if block.kind == "console"]


@pytest.fixture
def as_it_was():
    """What a page registers is forgotten after it."""
    methods, compressors = dict(base._REGISTRY), dict(REGISTRY)
    yield
    for registry, before in ((base._REGISTRY, methods), (REGISTRY, compressors)):
        registry.clear()
        registry.update(before)


def cut(call):
    """`fl.run`, `fl.sweep`, `fl.tune` or `fl.extend` with few steps."""

    def short(*args, steps=STEPS, **options):
        every = {"every": min(options.pop("every", 2), 2)} if call.__name__ != "extend" else options
        options |= {"rel_gap": GAP} if "rel_gap" in options else {}
        options |= {"seeds": 2} if isinstance(options.get("seeds"), int) else {}
        options |= {"num": 3} if "num" in options else {}
        return call(*args, steps=STEPS, **(options | every))

    return short


def test_pages_say_how_their_code_is_treated():
    """Kinds are known, and only what another library or machine runs is left out."""
    kinds = {block.kind for page in PAGES for block in blocks(page)}
    assert kinds <= {"python", "bash", "console", "text", "{toctree}", "", "eval"}
    left_out = [(page.name, block.kind) for page in PAGES for block in blocks(page) if block.how == "not run"]
    assert {name for name, _ in left_out} == {"coming_from.md"}
    assert len(left_out) == 5
    assert len(COMMANDS) > 20
    assert len(RUN) >= 10


@pytest.mark.parametrize(("page", "block"), COMMANDS)
def test_commands_parse(page, block):
    for arguments in block.commands():
        options = cli._parser(arguments).parse_args(arguments)
        assert callable(options.command), arguments


def run_page(page):
    names = {"__name__": "__page__"}
    for number, block in enumerate(blocks(page)):
        if block.how != "run":
            continue
        if block.kind == "python":
            exec(compile(block.code, f"{page.name}[{number}]", "exec"), names)
        elif block.kind == "bash":
            for arguments in block.commands():
                if arguments[0] not in LONG:
                    assert cli.main(shortened(arguments)) == 0, arguments


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[] if page.stem == "new_compressor" else pytest.mark.slow) for page in RUN],
    ids=lambda page: str(page.relative_to(DOCS).with_suffix("")),
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, as_it_was):
    for name in ("run", "sweep", "tune", "extend"):
        monkeypatch.setattr(fl, name, cut(getattr(fl, name)))
    usual = fl.problem
    monkeypatch.setattr(fl, "problem", lambda *args, model=None, **more: usual(*args, model=smaller(model), **more))
    monkeypatch.chdir(tmp_path)
    run_page(page)


def says(expected, said):
    """Whether a message is as written, where `...` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), said) is not None


@pytest.mark.parametrize("block", MESSAGES, ids=lambda block: block.code.splitlines()[0].removeprefix("$ fedjax-lc "))
def test_a_message_is_produced_by_its_command(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    *commands, message = block.code.splitlines()
    *before, last = (line.removeprefix("$ fedjax-lc ") for line in commands)
    for command in before:
        assert cli.main([*command.split(), "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(last.split()) == 2
    assert says(message, capsys.readouterr().err.splitlines()[-1])


def test_messages_are_compared_as_written():
    assert says("a (...) b", "a (67 are known) b")
    assert not says("a (...) b", "a (67 are known) c")
    assert not says("a b", "a b c")
