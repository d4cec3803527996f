"""The command line's cache of compiled programs: a second process compiles nothing, and nothing of it stays behind."""

import os
import re
import subprocess
import sys
import warnings

import jax
import pytest

from fedjax_lc.cli import main
from fedjax_lc.data.download import cache_folder
from fedjax_lc.running import cache
from fedjax_lc.running.cache import Tally

RUN = ("run", "gd", "--data", "iris", "--clients", "3", "--steps", "20", "--quiet")
SWEEP = ("sweep", "gd", "--data", "iris", "--clients", "3", "--steps", "20", "--quiet")
SETTINGS = ("jax_compilation_cache_dir", "jax_enable_compilation_cache", *cache.SETTINGS)


def settings():
    return [getattr(jax.config, name) for name in SETTINGS]


pytestmark = pytest.mark.usefixtures("jax_cache")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path))
    return tmp_path / "xla"


def started(arguments, **environment):
    """The command in a process of its own: what it printed."""
    command = [sys.executable, "-m", "fedjax_lc.cli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300, env=os.environ | environment
    )
    return done.stdout, done.stderr


def compile_something(number):
    """A program that no other call compiles."""
    jax.jit(lambda x: x * number + 0.25)(1.0).block_until_ready()


# --- processes ---


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [RUN, SWEEP], ids=["run", "sweep"])
def test_a_second_process_compiles_nothing(arguments, tmp_path):
    there = {"FEDJAX_LC_CACHE": str(tmp_path)}
    (first, _), (second, err) = (started(arguments, **there) for _ in range(2))
    assert re.search(rf"^compiled \d+ programs in [\d.]+ s, kept in {tmp_path}/xla", first, re.MULTILINE)
    assert re.search(r"^compiled nothing: all \d+ programs came from the cache in [\d.]+ s$", second, re.MULTILINE)
    assert [line for line in first.splitlines() if "compiled" not in line] == [
        line for line in second.splitlines() if "compiled" not in line
    ]
    assert err == ""


def test_importing_the_package_leaves_the_cache_alone(tmp_path):
    code = "import fedjax_lc, jax; fedjax_lc.running.cache; print(jax.config.jax_compilation_cache_dir)"
    command = [sys.executable, "-c", code.replace("fedjax_lc.running.cache", "import fedjax_lc.cli")]
    environment = os.environ | {"FEDJAX_LC_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "None\n"
    assert not list(tmp_path.iterdir())


# --- within one process ---


def test_the_command_line_leaves_jax_as_it_was(folder, capsys):
    before = settings()
    assert main([*RUN]) == 0
    assert f"kept in {folder}" in capsys.readouterr().out
    assert settings() == before
    entries, held = cache.size(folder)
    assert entries > 3
    assert held > 1000
    compile_something(3.0)
    assert cache.size(folder) == (entries, held)


@pytest.mark.parametrize("arguments", [["--no-cache"], []], ids=["option", "variable"])
def test_without_the_cache_nothing_is_kept(arguments, folder, capsys, monkeypatch):
    if not arguments:
        monkeypatch.setenv("FEDJAX_LC_CACHE", "off")
    assert main([*RUN, *arguments]) == 0
    assert not folder.exists()
    assert "kept" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path / "file"))
    assert main([*RUN]) == 0
    assert capsys.readouterr().err == (
        f"note: compiled programs are not kept: cannot write {tmp_path}/file/xla/entry: Not a directory\n"
    )


def test_files_do_not_say_whether_to_use_the_cache(tmp_path, refused):
    (tmp_path / "sweep.toml").write_text('methods = ["gd"]\nno-cache = true\n')
    assert "no-cache" in refused("sweep", tmp_path / "sweep.toml")


def test_an_entry_that_was_cut_short_is_removed_and_told(folder, capsys):
    with cache.kept():
        compile_something(5.0)
    (entry,) = folder.glob("jit__lambda*-cache")
    entry.write_bytes(entry.read_bytes()[:40])
    jax.clear_caches()
    with cache.kept():
        compile_something(5.0)
    assert (
        capsys.readouterr().err
        == f"note: 1 program in {folder} could not be read, and will be kept anew the next time\n"
    )
    assert not entry.exists()


def test_other_warnings_are_shown_as_ever(folder):
    with pytest.warns(UserWarning, match="^something else$"), cache.kept():
        warnings.warn("something else", stacklevel=1)


def test_jax_s_own_folder_is_used_and_never_pruned(tmp_path, folder, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    (own / "jit_old-1-cache").write_bytes(b"x" * 100)
    monkeypatch.setattr(cache, "MOST_BYTES", 10)
    before = settings()
    jax.config.update("jax_compilation_cache_dir", str(own))
    try:
        with cache.kept():
            compile_something(7.0)
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
    assert cache.size(own)[0] >= 2
    assert not folder.exists()


def test_what_was_not_used_for_longest_goes_first(folder):
    folder.mkdir(parents=True)
    for age, name in enumerate("abcdef"):
        path = folder / f"jit_{name}-1-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    cache._prune(folder, 600)
    assert cache.size(folder) == (6, 600)
    cache._prune(folder, 500)
    assert sorted(path.name[4] for path in folder.iterdir()) == ["a", "b", "c", "d"]


def test_the_folder_is_told_whether_it_is_in_use_or_not(folder):
    assert cache.folder() == cache_folder() / "xla" == folder
    with cache.kept(on=False):
        assert cache.folder() == folder


@pytest.mark.parametrize(
    ("tally", "told"),
    [
        (Tally(0, 0, 0.0, 0.0), "compiled nothing: no program was needed"),
        (Tally(1, 0, 0.26, 0.0), "compiled 1 program in 0.3 s, kept in {}"),
        (Tally(14, 2, 6.3, 0.1), "compiled 12 programs in 6.2 s, kept in {}; 2 programs came from there"),
        (Tally(14, 14, 0.4, 0.3), "compiled nothing: all 14 programs came from the cache in 0.3 s"),
    ],
)
def test_words(tally, told, tmp_path):
    assert tally.tell(tmp_path) == told.format(tmp_path)
