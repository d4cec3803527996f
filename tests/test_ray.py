"""A Ray cluster of two workers, one of them killed at random three times, gives the table of one process."""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from importlib.util import find_spec

import pytest

import fedjax_lc as fl
from tests.test_farm import OPTIONS, grid  # noqa: F401
from tests.test_sweep_resume import same

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of Ray
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'fedjax_lc[ray]'"),
]

METHOD = """
from fedjax_lc.algorithms import gd
from fedjax_lc.algorithms.frames.base import register
register("mine", paper="none", Hparams=gd.Hparams, init=gd.init, step=gd.step, point=gd.point, theory=gd.theory)
"""


@pytest.fixture(scope="module")
def engine():
    """Two workers of a cluster of this machine."""
    import ray

    from fedjax_lc.sweeping.ray import Ray

    yield Ray("local", workers=2, cpus=0.5)
    ray.shutdown()


@pytest.fixture
def busy(monkeypatch):
    """The actors of a sweep that run a part."""
    from fedjax_lc.sweeping.ray import _Crew

    crews, make = [], _Crew.__init__
    monkeypatch.setattr(_Crew, "__init__", lambda crew, *given: crews.append(crew) or make(crew, *given))
    return lambda: [worker for crew in crews for worker, _ in list(crew.calls.values())]


def test_killed_at_random_it_is_the_same_table(problem, grid, engine, busy, tmp_path):  # noqa: F811
    import ray

    options = OPTIONS | {"steps": 6000, "rel_gap": None, "seeds": 8}
    expected = fl.sweep("diana", problem, grid, **options)
    killed, done, chance = [], threading.Event(), random.Random(0)

    def kill():
        while len(killed) < 3 and not done.is_set():
            time.sleep(chance.uniform(0.1, 2))
            for worker in busy()[:1]:
                with contextlib.suppress(ray.exceptions.RayError):  # it has just ended
                    pid = ray.get(worker.__ray_call__.remote(lambda worker: os.getpid()))
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        table = fl.sweep("diana", problem, grid, out=tmp_path, engine=engine, **options)
    finally:
        done.set()
        killer.join()
    assert len(set(killed)) == 3
    same(table, expected)
    for name in table.records.columns.drop("seconds"):
        assert table.records[name].to_numpy().tobytes() == expected.records[name].to_numpy().tobytes()


def test_a_method_of_the_users_goes_along(problem, engine, tmp_path, monkeypatch):
    """Its file is sent to the workers; what they know of it is checked against what is known here."""
    from fedjax_lc.algorithms.frames import base

    (tmp_path / "mine.py").write_text(METHOD)
    base.load(tmp_path / "mine.py")
    hp = fl.grid(fl.algorithms.get("mine").theory(problem), gamma=fl.times([0.5, 1]))
    options = {"steps": 40, "block_size": 1, "progress": False}
    try:
        same(fl.sweep("mine", problem, hp, engine=engine, **options), fl.sweep("mine", problem, hp, **options))
    finally:
        del base._REGISTRY["mine"]


def test_lanes_under_way_are_kept_here_and_go_on_there(problem, grid, engine, tmp_path):  # noqa: F811
    """Ctrl-C while two parts run; they go on on the cluster, and in one process."""
    options = OPTIONS | {"steps": 120_000, "every": 60, "rel_gap": None, "seeds": 2}
    expected = fl.sweep("diana", problem, grid, **options)

    def press():
        while not any(tmp_path.glob("part-*.safetensors")) and not done.is_set():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    done = threading.Event()
    thread = threading.Thread(target=press)
    thread.start()
    table = fl.sweep("diana", problem, grid, out=tmp_path, engine=engine, checkpoint_every="steps:3000", **options)
    done.set()
    thread.join()
    assert (table.lanes["status"] == "interrupted").any()
    assert any(tmp_path.glob("part-*.safetensors"))
    shutil.copytree(tmp_path, tmp_path / "copy")
    for out, where in ((tmp_path, {"engine": engine}), (tmp_path / "copy", {})):
        same(fl.sweep("diana", problem, grid, out=out, **where, **options), expected)
