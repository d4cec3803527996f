"""Parts on many workers, gathered in any order and begun anew after deaths: the table is that of one process."""

import random
import re
import sys
from pathlib import Path

import pytest

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from fedjax_lc.sweeping.farm import Lost, farm
from fedjax_lc.sweeping.store import UnderWay
from tests.test_sweep_resume import same

OPTIONS = {"seeds": 4, "steps": 60, "every": 3, "rel_gap": 0.5, "block_size": 1, "progress": False}


class Crew:
    """Workers of this process that end their parts in a random order, and die at random."""

    def __init__(self, work, deaths=0, retries=3, seed=0):
        self.work, self.deaths, self.retries = work, deaths, retries
        self.random, self.hired, self.busy, self.begun, self.stopped = random.Random(seed), 0, {}, [], False

    def hire(self):
        self.hired += 1
        return self.hired

    def begin(self, worker, part):
        assert worker not in self.busy
        self.busy[worker] = part
        self.begun.append(tuple(part.lanes))

    def wait(self):
        worker = self.random.choice(list(self.busy))
        part = self.busy.pop(worker)
        if self.deaths:
            self.deaths -= 1
            return [(worker, Lost("it was killed"))]
        part = part._replace(under_way=UnderWay(None, part.lanes, {}, None))
        return [(worker, self.work.run(part, lambda records, ended: None, lambda: self.stopped))]

    def progress(self):
        return 0, 0

    def stop(self):
        self.stopped = True


class Engine:
    """An engine of three such workers; `crew` is the last one's."""

    size = 3

    def __init__(self, **options):
        self.options = options

    def __call__(self, work, parts, eyes):
        self.crew = Crew(work, **self.options)
        return farm(work, parts, eyes, self.crew, self.size)


@pytest.fixture(scope="module")
def grid(problem):
    theory = fl.algorithms.get("diana").theory(problem, compressor="rand_k:1")
    return fl.grid(theory, gamma=fl.times([0.3, 1, 1e4]), compressor=["rand_k:2", "natural"])


@pytest.fixture(scope="module")
def expected(problem, grid):
    return fl.sweep("diana", problem, grid, **OPTIONS)


@pytest.mark.parametrize("deaths", [0, 3])
def test_the_table_is_that_of_one_process(problem, grid, expected, tmp_path, deaths):
    engine = Engine(deaths=deaths)
    table = fl.sweep("diana", problem, grid, out=tmp_path, engine=engine, **OPTIONS)
    same(table, expected)
    same(fl.Table.load(tmp_path), expected)
    for name in table.records.columns.drop("seconds"):
        assert table.records[name].to_numpy().tobytes() == expected.records[name].to_numpy().tobytes()
    assert engine.crew.hired == 3 + deaths
    assert len(engine.crew.begun) == len(set(engine.crew.begun)) + deaths
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "lanes.parquet", "records.parquet"]


def test_a_part_that_kills_its_workers_is_one_line(problem, grid, expected, tmp_path):
    options = {"out": tmp_path, "engine": Engine(deaths=99, retries=2)} | OPTIONS | {"seeds": 1}
    with pytest.raises(InputError) as caught:
        fl.sweep("diana", problem, grid.hparams[0], **options)
    assert str(caught.value) == (
        "part 1 of 1 lost 3 workers (it was killed): give a worker more memory, or let fewer lanes run side by side "
        "(block_size)"
    )


def test_stopped_and_gone_on_in_one_process(problem, grid, expected, tmp_path):
    """The parts that are done are kept whoever ran them."""
    from tests.test_sweep_parts import interrupt_after

    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 40)
        table = fl.sweep("diana", problem, grid, out=tmp_path, engine=Engine(), **OPTIONS)
    assert set(table.lanes["status"]) > {"interrupted"}
    done = len(list(tmp_path.glob("part-*.parquet")))
    assert done
    same(fl.sweep("diana", problem, grid, out=tmp_path, **OPTIONS), expected)


def test_ray_is_imported_by_its_engine_only_and_when_it_runs():
    for path in Path(fl.__file__).parent.rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if re.match(r"\s*(import|from) ray\b", line)]
        assert not lines or (path.name == "ray.py" and all(line.startswith(" ") for line in lines))


def test_without_ray_it_is_one_line(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused("sweep", "gd", "--steps", "10", "--quiet", "--engine", "ray").startswith(
        "the engine ray needs Ray: pip install 'fedjax_lc[ray]' ("
    )


@pytest.mark.parametrize(("option", "value"), [("workers", 0), ("cpus", -1), ("gpus", float("nan")), ("retries", -1)])
def test_options_of_ray_that_cannot_be(option, value):
    from fedjax_lc.sweeping.ray import Ray

    with pytest.raises(InputError, match=f"^{option} of the engine ray must be . or more, got "):
        Ray(**{option: value})
