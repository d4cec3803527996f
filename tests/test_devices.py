"""Clients over devices: the same results as on one, one reduction a round, and one line where it cannot be."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.algorithms.frames.gossip import Gossip
from fedjax_lc.cli import main
from fedjax_lc.core import devices
from fedjax_lc.core.digest import digest
from fedjax_lc.core.errors import InputError
from tests import spread

SERVERS = ("locodl", "mcm", "fedavg", "savic")
COUNTS = [f"count/8/even/{label}" for label in (*SERVERS, "batches")]
FAKE = ["run/4/logistic/locodl", "run/4/logistic/cohorts"]
PROCESSES = ["run/2/contract/locodl", "run/2/contract/fedavg"]
SHARES = ["share/2/ragged/locodl"]
WAIT = ["wait/4/data/locodl", "wait/1/data/locodl"]
AGAIN = "again/2/contract/locodl"
EXTEND = "extend/2/contract/locodl"
PAIR, KILLED, DAMAGE = "again/2/pair/locodl", "killed/4/logistic/locodl", "damage/4/data/rows"
OTHERS = [f"run/4/logistic/{case}" for case in spread.CASES]
OTHERS += [f"run/4/{kind}/{case}" for kind in ("sparse", "softmax", "quadratic") for case in ("locodl", "cohorts")]
OTHERS += [
    f"run/4/{kind}/{case}" for kind in ("blocks", "pieces") for case in ("locodl", "batches", "cohorts", "epochs")
]
OTHERS += [f"run/4/network/{case}" for case in ("batches", "diana", "cohorts")] + ["run/4/norms/cohorts"]
GATHERING = {"sidco": "how much each client kept decides its stages, which lie on every device"}
TWICE = {  # methods that talk more than once in a round, and why
    "cser": "the errors are reset, every few rounds",
    "liec_sgd": "the models are averaged, every few rounds",
    "marina": "by the coin, full gradients or differences",
    "pp_marina": "by the coin, full gradients or differences",
    "mime": "the mean gradient at the model comes before the local steps",
    "rand_mcm_1mem": "the server's memory follows the mean of what it sends to each client",
    "savic": "the diagonal is made of gradients before the local steps",
    "two_direction": "the second gradient is taken where the first one leads",
}


GOSSIP = {  # methods without a server, and how many vectors of a node the others get; sums and bits are added besides
    name: 2 if name in ("beer", "diging") else 1
    for name in fl.algorithms.names()
    if issubclass(fl.algorithms.get(name).Hparams, Gossip)
}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """What the programs of this file find, by their number of processes; each is started when it is first asked for."""
    folder = tmp_path_factory.mktemp("spread")
    work = {1: COUNTS + FAKE + WAIT + [PAIR, KILLED, DAMAGE], 2: [*PROCESSES, *SHARES, AGAIN, EXTEND]}

    @functools.cache
    def found(count):
        file = folder / f"{count}.json"
        return spread.finish(spread.start(file, work[count], count), file)

    return found


@pytest.fixture(scope="module")
def fake(started):
    """The same of fake devices."""
    return started(1)


def compare(found):
    """Runs of this process, on one device, against what was found for these tasks."""
    for task, there in found.items():
        _, _, kind, label = task.split("/")
        here = spread.trace_of(fl, label, spread.problem_of(fl, kind), **spread.options_of(kind))
        assert here.keys() == there.keys()
        for name, series in here.items():
            np.testing.assert_allclose(there[name], series, rtol=1e-10, atol=1e-10, err_msg=f"{task}: {name}")


@pytest.mark.slow
def test_clients_over_devices_give_what_one_device_gives(fake):
    compare({task: fake[task] for task in FAKE})


@pytest.mark.slow
def test_two_processes_give_what_one_gives(started):
    found = started(2)
    compare({task: found[task] for task in PROCESSES})


def compare_shares(found):
    """Runs of processes that make their own clients' rows alone, against runs of this process that makes all."""
    for task, there in found.items():
        _, _, kind, label = task.split("/")
        (asked, most, least, leaves), (asked_too, most_too, least_too, _) = there["each"]
        assert (asked, asked_too) == (4, 3)  # of 7 clients
        assert leaves >= 2
        blocks = kind in ("ragged", "softmax", "sparse")  # of which each has as many
        assert {most, least} == {1 / 2 if blocks else 4 / 7}
        assert {most_too, least_too} == {1 / 2 if blocks else 3 / 7}
        problem = spread.data_problem(fl, kind)
        assert there["digest"] == digest(problem)
        assert there["f_star"] == pytest.approx(problem.f_star, rel=1e-12, nan_ok=True)
        here = spread.trace_of(fl, label, problem, **spread.options_of(kind))
        for name, series in here.items():
            np.testing.assert_allclose(there[name], series, rtol=1e-10, atol=1e-10, err_msg=f"{task}: {name}")


@pytest.mark.slow
def test_each_process_makes_and_holds_the_rows_of_its_own_clients_alone(started):
    compare_shares({task: started(2)[task] for task in SHARES})


@pytest.mark.slow
def test_methods_on_data_that_processes_share(tmp_path):
    tasks = [f"share/2/{kind}/locodl" for kind in ("dense", "softmax", "sparse")] + ["share/2/softmax/batches"]
    tasks += ["share/2/network/batches"]
    tasks += [f"share/2/{kind}/{label}" for kind in ("ragged", "sparse") for label in ("batches", "cohorts", "epochs")]
    compare_shares(spread.finish(spread.start(tmp_path / "out.json", tasks, 2), tmp_path / "out.json", 1800))


@pytest.mark.slow
def test_data_that_wait_on_the_host_are_never_whole_on_a_device(fake):
    over, alone = (fake[task] for task in WAIT)
    assert over["share"] <= 2 / 7  # of 7 clients, 2 a device
    assert alone["share"] == 1
    assert over["f_star"] == pytest.approx(alone["f_star"], rel=1e-12)
    np.testing.assert_allclose(over["value"], alone["value"], rtol=1e-10)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_from_its_checkpoint(started):
    """Each of which wrote the rows of its own devices."""
    by = ["ocdbt.process_0", "ocdbt.process_1"]
    assert started(2)[AGAIN] == {"status": "interrupted", "records": 1, "same": True, "by": by}


@pytest.mark.slow
def test_a_run_of_two_processes_that_is_done_is_extended(started):
    assert started(2)[EXTEND] == {"same": True, "records": 10}


@pytest.mark.slow
def test_a_run_of_two_clients_over_two_devices_goes_on(fake):
    """Its costs, (2, 4), have as many rows."""
    assert fake[PAIR] == {"status": "interrupted", "records": 1, "same": True, "by": ["ocdbt.process_0"]}


@pytest.mark.slow
def test_a_run_over_devices_that_died_within_a_checkpoint_goes_on_from_the_one_before(fake):
    """The rows of clients are never gathered; the folder that the last checkpoint left is not used, and goes."""
    found = fake[KILLED]
    names = [f"checkpoint-0000000000{step}.{kind}" for step in (20, 40) for kind in ("orbax", "safetensors")]
    assert found["left"] == [*names, "checkpoint-000000000060.orbax", "config.json", "trace.parquet"]
    assert found["spread"]["['state'].x"] == "float64 (7, 5)"
    assert not found["spread"].keys() & set(found["whole"])
    assert found["rest"] == found["once"]
    assert found["right"] == ["config.json", "model.safetensors", "state.safetensors", "trace.parquet"]
    for other in ("two", "alone"):
        for name, series in found["once"].items():
            np.testing.assert_allclose(found[other][name], series, rtol=1e-10, atol=1e-10, err_msg=f"{other}: {name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", spread.DAMAGES)
def test_of_a_damaged_folder_one_line_is_said_and_the_one_before_is_used(fake, name):
    found, step = fake[DAMAGE][name], 2 if name == "none" else 1
    assert (found["step"], found["placed"]) == (step, True)
    np.testing.assert_array_equal(found["rows"], np.arange(21.0).reshape(7, 3) + step)
    if name == "none":
        assert found["said"] == ""
    else:
        assert re.fullmatch(
            r"note: \S+02\.safetensors cannot be used, [^\n]+ checkpoint-0+1\.safetensors\n", found["said"]
        )


@pytest.mark.slow
def test_where_the_disk_is_full_the_error_is_one_line_and_nothing_is_left(fake):
    error, left = fake[DAMAGE]["full"]
    assert re.fullmatch(r"cannot write \S+1\.orbax: File too large; make room, and repeat the command", error)
    assert left == []


@pytest.mark.slow
def test_a_folder_of_another_tree_is_not_taken(fake):
    said, left = (fake[DAMAGE][name] for name in ("another tree", "removed"))
    assert said.count("it holds another tree: ['x'] must be float64 (7, 4), got float64 (7, 3)") == 2
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("method", [*SERVERS, "batches"])
def test_a_round_has_one_reduction(fake, method):
    """SAVIC talks twice. A record adds F; LoCoDL's point is a mean too, and is also taken at the end."""
    found = fake[f"count/8/even/{method}"]
    kinds = {where: [each.split()[0] for each in those] for where, those in found.items()}
    assert kinds["step"] == ["all-reduce"] * (2 if method == "savic" else 1)
    assert kinds["local"] == []
    assert kinds["record"] == ["all-reduce"] * (2 if method == "locodl" else 1)
    assert kinds["chunk"] in ([], ["all-reduce"])


@pytest.mark.slow
def test_every_method_has_one_reduction_a_round_or_says_why(tmp_path):
    tasks = [f"count/4/even/{label}" for label in (*fl.algorithms.names(), "participation", "groups", "batches")]
    tasks += [f"count/4/{kind}/locodl" for kind in ("sparse", "softmax", "quadratic", "blocks", "pieces")]
    tasks += ["count/4/blocks/batches", "count/4/pieces/batches", "count/4/network/batches"]
    found = spread.finish(spread.start(tmp_path / "out.json", tasks), tmp_path / "out.json", 1800)
    for task, there in found.items():
        label = task.split("/")[-1]
        kinds = [each.split()[0] for each in there["step"]]
        if label in GOSSIP:
            assert kinds.count("all-gather") == GOSSIP[label], task
            assert set(kinds) <= {"all-gather", "all-reduce"}
            assert len(kinds) <= 3, task
        elif label != "pp_marina":  # whose rounds move the data of a cohort to the devices that compute it
            wanted = ["all-gather"] * (label in GATHERING) + ["all-reduce"] * (2 if label in TWICE else 1)
            assert kinds == wanted, task
        assert there["local"] == [], task


@pytest.mark.slow
def test_everything_else_over_devices_gives_what_one_device_gives(tmp_path):
    compare(spread.finish(spread.start(tmp_path / "out.json", OTHERS), tmp_path / "out.json", 1800))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_every_method_in_several_processes_gives_what_one_gives(tmp_path, processes):
    tasks = [f"run/{processes}/contract/{method}" for method in fl.algorithms.names()]
    compare(spread.finish(spread.start(tmp_path / "out.json", tasks, processes), tmp_path / "out.json", 1800))


def two_commands(*options, program=None):
    """The exit codes and outputs of one command in two processes; options are those of both, or a pair."""
    address = f"127.0.0.1:{spread.free_port()}"
    words = ["-m", "fedjax_lc.cli"] if program is None else [str(program)]
    words += ["run", "locodl", "--steps", "200", "--every", "20", "--quiet", "--distributed"]
    words += ["--coordinator", address, "--processes", "2"]
    each = [[option[i] if isinstance(option, tuple) else option for option in options] for i in range(2)]
    begun = [spread.python([*words, "--process", str(i), *map(str, each[i])]) for i in range(2)]
    said = [process.communicate(timeout=300)[0] for process in begun]
    return [process.returncode for process in begun], said


@pytest.mark.slow
def test_a_command_in_two_processes_writes_what_one_writes(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    assert main(["run", "locodl", "--steps", "200", "--every", "20", "--quiet", "--out", str(one)]) == 0
    codes, said = two_commands("--out", two)
    assert codes == [0, 0]
    assert "wrote" in said[0]
    assert "LoCoDL" not in said[1]
    here, there = fl.Trace.load(one), fl.Trace.load(two)
    np.testing.assert_allclose(there.value, here.value, rtol=1e-10)
    np.testing.assert_array_equal(there.bits_up, here.bits_up)
    assert two_commands("--out", two)[0] == [0, 0]  # it is there already


FAILS = """
import sys
import os
from fedjax_lc.problems.linear import LinearModel
from fedjax_lc.cli import main
if sys.argv[sys.argv.index("--process") + 1] == "1":
    def fails(*given):
        {how}
    LinearModel.own_grads = fails
sys.argv[0] = "fedjax-lc"
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "codes", "said"),
    [
        ("raise RuntimeError('broken here')", [1, 1], "process 1 ended: RuntimeError: broken here"),
        ("os.kill(os.getpid(), 9)", [1, -9], "another process has gone"),
    ],
)
def test_where_one_process_fails_the_other_ends_with_a_line(tmp_path, how, codes, said):
    """It waits in a reduction for the other one, and would do so for minutes."""
    program = tmp_path / "fails.py"
    program.write_text(FAILS.format(how=how))
    ended, lines = two_commands("--kappa", "100", program=program)
    assert ended == codes
    assert lines[0].splitlines()[-1].startswith(f"fedjax-lc: {said}")
    assert "Traceback" not in lines[0]
    assert codes[1] < 0 or "\nRuntimeError: broken here" in lines[1]


@pytest.mark.slow
def test_two_processes_use_the_same_checkpoint_where_one_reads_a_damaged_file(tmp_path):
    task = "torn/2/contract/locodl"
    found = spread.finish(spread.start(tmp_path / "out.json", [task], 2), tmp_path / "out.json")[task]
    assert found["same"]
    assert "process 1 cannot go on, and says why: going on from checkpoint-" in found["said"]


@pytest.mark.slow
def test_where_one_process_cannot_start_none_does():
    codes, said = two_commands("--x", ("rounds", "nonsense"))
    assert codes == [2, 2]
    assert "process 1 cannot go on, and says why" in said[0]
    assert "nonsense" in said[1]


# --- on one device ---


def test_one_device_is_a_mesh_too(problem):
    alone, meshed = (fl.run("locodl", problem, steps=40, progress=False, devices=mesh) for mesh in (None, fl.devices()))
    np.testing.assert_allclose(meshed.value, alone.value, rtol=1e-12)
    np.testing.assert_array_equal(meshed.bits_up, alone.bits_up)
    assert meshed.state.x.shape == (problem.n, problem.dim)


def test_rows_are_placed_and_come_back(problem):
    mesh = fl.devices(clients=1)
    placed = devices.place(problem, problem.n, mesh)
    assert devices.is_rows(placed.targets)
    assert not devices.is_rows(placed.x0)
    back = jax.jit(devices.whole)(placed)
    assert jax.tree.all(jax.tree.map(np.array_equal, problem, back))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("clients=0", "whole numbers >= 1"),
        ("clients=9999", "there are 1 (cpu)"),
        ("client=4", "unknown axis of devices 'client': did you mean 'clients'?"),
        ("clients=four", "given as clients=4"),
        ("clients=-1", "given as clients=4"),
    ],
)
def test_devices_that_cannot_be_are_refused_in_one_line(words, said, refused):
    assert said in refused("run", "gd", "--devices", words)


def test_more_devices_than_clients_are_refused(problem):
    with pytest.raises(InputError, match="4 clients cannot share 5 devices"):
        devices.place(problem, problem.n, jax.sharding.AbstractMesh((1, 5), ("lanes", "clients")))


@pytest.mark.parametrize("mesh", [4, "clients=4", jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))])
def test_a_run_wants_a_mesh_with_clients(problem, mesh):
    with pytest.raises(InputError, match=r"devices=fl\.devices\(clients=4\)"):
        fl.run("gd", problem, steps=10, devices=mesh)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--process", "1"), "add --distributed"),
        (("--distributed", "--process", "1"), "is missing: give --coordinator, --processes and --process together"),
        (
            ("--distributed", "--coordinator", "x:1", "--processes", "2", "--process", "2"),
            "--process must be 0..1, got 2",
        ),
        (("--distributed",), "--distributed finds no other processes"),
    ],
)
def test_processes_that_cannot_be_are_refused_in_one_line(options, said, refused):
    assert said in refused("run", "gd", *options)
