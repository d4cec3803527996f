"""Strict settings for every test: 64-bit mode on, silent rank promotion is an error, few threads."""

import collections
import gc
import os
import signal
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
os.environ["FEDJAX_LC_CACHE"] = "off"  # nothing of the user's own is read or written
os.environ.pop("COLUMNS", None)  # which xdist sets: tables are as wide as they are
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # here and in processes that tests start, see `optimisations`

from tests.flags import QUICK

if QUICK:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.running import programs

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_enable_compilation_cache", False)  # nor is a program looked up, which costs as much as a trace
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell that runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.freeze()  # what was imported stays
gc.set_threshold(50_000, 20, 20)  # tracing makes many small objects, few of them in cycles


APART = [Path(__file__).parent / folder for folder in ("experiments", "reference")]  #: tests of no part of the package


def pytest_collection_modifyitems(items):
    """Mark as slow the tests of recipes, benches and references, and the cases of a test that its sample leaves out."""
    seen = collections.Counter()
    for item in items:
        case = 0
        if sampled := item.get_closest_marker("sampled"):
            test = (item.path, item.originalname)
            case = seen[test] % sampled.args[0]
            seen[test] += 1
        if case or any(item.path.is_relative_to(folder) for folder in APART):
            item.add_marker(pytest.mark.slow)


MOST_MAPS = 15_000  #: memory maps of a process; Linux allows 65,530 of them, and compiled programs take several each


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Forget compiled programs before a file where their memory maps would come to an end: the compiler would crash."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        forget_programs()


def forget_programs():
    programs._COMPILED.clear()
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def optimisations(request):
    """Compile soon into slow code, but in files that are marked `optimised`: there as users have it."""
    if request.node.get_closest_marker("optimised") is None:
        yield
        return
    forget_programs()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    forget_programs()


@pytest.fixture(scope="module")
def jax_cache():
    """JAX looks programs up, as it does for users."""
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    jax.config.update("jax_enable_compilation_cache", False)


def make_clients(sizes=(3, 6, 4, 5), dim=5, seed=0, labels=(-1.0, 1.0)):
    """Ragged heterogeneous clients: list of (features (m_i, dim), labels (m_i,))."""
    rng = np.random.default_rng(seed)
    shifts = rng.normal(size=(len(sizes), dim)) / 2
    return [(rng.normal(size=(m, dim)) + shifts[i], rng.choice(labels, size=m)) for i, m in enumerate(sizes)]


@pytest.fixture(scope="session")
def clients():
    return make_clients()


@pytest.fixture(scope="session")
def problem(clients):
    """The one tiny shape that the contract suites share: 4 ragged clients, d = 5, float64, kappa about 30."""
    return fl.problems.logistic_regression(clients, kappa=30)


@pytest.fixture
def refused(capsys):
    """Call the command line with arguments: they must end with code 2 and one line on stderr, besides notes, which is
    returned."""

    from fedjax_lc.cli import main

    def call(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]  # what was read before
        return line.removeprefix("fedjax-lc: ")

    return call
