"""Runs over several devices: programs of their own, since JAX fixes its devices and processes when it starts.

    python -m tests.spread OUT TASK ...                         # over fake devices of one process
    python -m tests.spread OUT TASK ... --at ADDRESS 2 0        # over one device of each of several processes

A task is count/DEVICES/PROBLEM/LABEL, the collectives of a compiled loop, run/DEVICES/PROBLEM/LABEL, a run, or
again/..., whether a run that was interrupted goes on with the same bits, killed/..., the same where it died while it
wrote a checkpoint, torn/..., where a file of one is damaged, damage/..., how damaged checkpoints are recognised,
extend/..., whether a run that is done goes on, wait/..., a run on data that wait on the host, or share/..., one on data
of which each process makes its own clients'. Process 0 writes what it finds to OUT, as JSON. A test starts them by
`start` and compares with runs of its own process.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import itertools
import json
import os
import pickle
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.flags import QUICK

COLLECTIVE = r"\b(all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter)(?:-start)?\("
CASES = {  # what a label stands for, besides a method's name: the method and its choices
    "cohorts": ("fedavg", {"cohort_size": 3, "batch_size": 2}),
    "epochs": ("scaffold", {"cohort_size": 5, "batch_size": 2, "local_epochs": 1}),
    "schedule": ("fedavg", {"selection": "schedule", "schedule": np.array([[0, 3, -1], [6, 5, 2]])}),
    "bernoulli": ("fedavg", {"cohort_size": 4, "selection": "bernoulli", "client_weights": "size"}),
    "participation": ("rand_mcm", {"participation": 0.5, "batch_size": 3}),
    "batches": ("fedavg", {"batch_size": 2}),
    "groups": ("rand_mcm_g", {"groups": 3, "participation": 0.5}),
    "median": ("locodl", {"aggregation": "median"}),
    "perm_k": ("diana", {"compressor": "perm_k:7"}),
    "threshold": ("ef21", {"compressor": "threshold:0.01"}),
    "steps": ("fedavg", {"local_steps": np.arange(1, 8)}),
    "power_gossip": ("power_gossip", {"matrix": "vector"}),  # other matrices amplify rounding
}
PARTS = [(0, 2), (2, 3), (5, 1), (6, 0), (6, 2), (8, 2), (10, 1)]  #: start and length of the clients' test rows
ROUNDS = {"steps": 200, "every": 20}


def choices(fl, label, problem):
    """The method and hyperparameters of a case or a method's name."""
    method, fields = CASES.get(label, (label, {}))
    fields = {n: fl.compressors.parse(v) if n == "compressor" else v for n, v in fields.items()}
    return method, dataclasses.replace(fl.algorithms.get(method).theory(problem), **fields)


def trace_of(fl, label, problem, **options):
    """The series of a run, as lists, and its last state: the sum of squares of every array."""
    method, hp = choices(fl, label, problem)
    trace = fl.run(method, problem, hp, 3, progress=False, **(ROUNDS | options))
    state = [float(np.sum(np.square(np.asarray(leaf, np.float64)))) for leaf in _leaves(trace.state)]
    return {name: np.asarray(series).tolist() for name, series in trace.columns().items()} | {"state": state}


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def again(fl, label, problem, devices, folder):
    """Whether a run is interrupted, and goes on to the same records, bit for bit."""
    options = {"devices": devices, "out": folder}
    method, hp = choices(fl, label, problem)
    stopped = fl.run(method, problem, hp, 3, progress=False, on_chunk=lambda trace: True, **ROUNDS, **options)
    by = sorted(part.name for part in folder.glob("*.orbax/ocdbt.process_*"))
    whole, rest = (trace_of(fl, label, problem, **given) for given in ({"devices": devices}, options))
    return {"status": stopped.status, "records": len(stopped), "same": whole == rest, "by": by}


def extended(fl, label, problem, devices, folder):
    """A run over devices that is done goes on there: whether it has the records of the longer one."""
    method, hp = choices(fl, label, problem)
    half = {"every": ROUNDS["every"], "steps": ROUNDS["steps"] // 2, "progress": False}
    fl.run(method, problem, hp, 3, devices=devices, out=folder, **half)
    given = {"problem": problem, "hp": hp, "progress": False, "devices": devices}
    longer = fl.extend(folder, ROUNDS["steps"] // 2, **given)
    whole = fl.run(method, problem, hp, 3, devices=devices, progress=False, **ROUNDS)
    return {"same": longer.digest() == whole.digest(), "records": len(longer)}


def torn(fl, label, problem, devices, folder):
    """Whether a run of several processes goes on with the same bits, where one of them reads a damaged file."""
    import jax
    from jax.experimental import multihost_utils

    options, count = {"devices": devices, "out": folder, "checkpoint_every": "steps:20"}, itertools.count(1)
    trace_of(fl, label, problem, on_chunk=lambda trace: next(count) == 4, **options)
    if jax.process_index() == 0:
        last = sorted(folder.glob("*.orbax"))[-1]
        flip(files(last)[1])  # process 1 reads every second one
    multihost_utils.sync_global_devices("damaged")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        rest = trace_of(fl, label, problem, **options)
    return {"same": trace_of(fl, label, problem, devices=devices) == rest, "said": said.getvalue()}


class Died(BaseException):
    pass


def killed(fl, label, problem, devices, folder):
    """A run that dies after the folder of its third checkpoint was written, and before the file: what goes on from it,
    over the same devices, over two and on one."""
    from fedjax_lc.core import tensors

    options, write, count = {"out": folder, "checkpoint_every": "steps:20"}, tensors.write, itertools.count(1)

    def dying(path, tree, facts):
        if next(count) == 3:
            raise Died
        write(path, tree, facts)

    tensors.write = dying
    with contextlib.suppress(Died):
        trace_of(fl, label, problem, devices=devices, **options)
    tensors.write = write
    left, held = visible(folder), tensors.read(folder / "checkpoint-000000000040.safetensors")
    found = {"left": left, "spread": held.facts["spread"]["shapes"], "whole": list(held.leaves)}
    for name, mesh in {"two": fl.devices(clients=2), "alone": None}.items():
        shutil.copytree(folder, folder.with_name(name))
        found[name] = trace_of(fl, label, problem, devices=mesh, out=folder.with_name(name))
    found["rest"] = trace_of(fl, label, problem, devices=devices, **options)
    found["once"] = trace_of(fl, label, problem, devices=devices)
    return found | {"right": visible(folder)}


class Trap:
    def __reduce__(self):
        return os._exit, (3,)


DAMAGES = {  # of a checkpoint's folder, whose files are given
    "none": lambda folder, files: None,
    "a torn file": lambda folder, files: os.truncate(max(files, key=os.path.getsize), 100),
    "a flipped bit": lambda folder, files: flip(max(files, key=os.path.getsize)),
    "a file less": lambda folder, files: files[-1].unlink(),
    "a file more": lambda folder, files: (folder / "d" / "more").touch(),
    "a pickle": lambda folder, files: (folder / "_METADATA").write_bytes(pickle.dumps(Trap())),
    "a pipe": lambda folder, files: (files[0].unlink(), os.mkfifo(files[0])),
    "no folder": lambda folder, files: shutil.rmtree(folder),
    "a file in its place": lambda folder, files: (shutil.rmtree(folder), folder.touch()),
    "another's folder": lambda folder, files: (
        shutil.rmtree(folder),
        shutil.copytree(folder.with_name("checkpoint-000000000001.orbax"), folder),
    ),
}


def damage(devices, folder):
    """Of two checkpoints, of which the later one is damaged: the step and the array that is used, and what is said."""
    import jax

    from fedjax_lc.core.devices import place
    from fedjax_lc.core.errors import InputError
    from fedjax_lc.running import checkpoints

    found = {}
    for name, do in DAMAGES.items():
        there = folder / name.replace(" ", "-")
        for step in (1, 2):
            tree = {"x": np.arange(21.0).reshape(7, 3) + step, "y": np.float32(step)}
            placed = place(tree, 7, devices)
            checkpoints.save(there, placed, {}, step=step, identity=name, mesh=devices)
        last = there / "checkpoint-000000000002.orbax"
        do(last, files(last))
        with contextlib.redirect_stderr(io.StringIO()) as said:
            used = checkpoints.latest(there, placed, name, mesh=devices)
        same = used.tree["x"].array.sharding == placed["x"].array.sharding
        rows = np.asarray(used.tree["x"].array)[:7].tolist()
        found[name] = {"step": used.step, "rows": rows, "placed": same, "said": said.getvalue()}
    with contextlib.redirect_stderr(io.StringIO()) as said:
        other = {"x": jax.ShapeDtypeStruct((7, 4), np.float64), "y": np.float32(0)}
        assert checkpoints.latest(folder / "none", other, "none") is None
    checkpoints.remove(folder / "none")
    found |= {"another tree": said.getvalue(), "removed": visible(folder / "none")}
    large = place({"x": np.random.default_rng(0).normal(size=(7, 3000))}, 7, devices)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    with contextlib.redirect_stderr(io.StringIO()):  # tensorstore's threads
        try:
            checkpoints.save(folder / "full", large, {}, step=1, identity=0, mesh=devices)
        except InputError as error:
            found["full"] = str(error), visible(folder / "full")
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return found


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def wait(fl, label, devices):
    """A run on data that wait on the host: its series, and the largest share of them that a device ever held."""
    import jax

    rng = np.random.default_rng(0)
    data, held = (rng.normal(size=(700, 40)), rng.choice([-1.0, 1.0], size=700)), []

    def look(trace):
        held.extend(shard.data.nbytes for array in jax.live_arrays() for shard in array.addressable_shards)

    problem = fl.problem(data, clients=7, kappa=30, devices=devices)
    assert not any(isinstance(leaf, jax.Array) for leaf in (problem.features.array, problem.targets, problem.rows))
    found = trace_of(fl, label, problem, on_chunk=look)
    return {"share": max(held) / problem.features.array.nbytes, "f_star": problem.f_star, "value": found["value"]}


def share(fl, kind, label, devices):
    """A run on data of which each process makes its own clients' rows: its series, the rows that each process asked
    for and holds, and the digest of the problem."""
    import jax
    from jax.experimental import multihost_utils

    from fedjax_lc.core import shares
    from fedjax_lc.core.digest import digest
    from fedjax_lc.data import splitting

    asked, copied = [], splitting.Clients.__getitem__
    with mock(splitting.Clients, "__getitem__", lambda self, i: asked.append(i) or copied(self, i)):
        problem = data_problem(fl, kind, devices)
    found = trace_of(fl, label, problem, devices=devices, **options_of(kind))
    leaves = [leaf for leaf in jax.tree.leaves(problem) if isinstance(leaf, shares.Share)]
    held = {len(leaf.rows) / len(leaf) for leaf in leaves}
    each = multihost_utils.process_allgather(np.array([len(set(asked)), max(held), min(held), len(leaves)]))
    return found | {"each": each.tolist(), "digest": digest(problem), "f_star": problem.f_star}


@contextlib.contextmanager
def mock(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


def data_problem(fl, kind, devices=None):
    """A problem by `fl.problem` of seven clients."""
    from scipy import sparse

    from fedjax_lc.data.dataset import from_arrays
    from fedjax_lc.problems import layouts

    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(70, 9)), rng.integers(0, 3, size=70)
    if kind == "sparse":
        X = sparse.csr_array(X * (rng.random(X.shape) < 0.3))
    partition = "iid" if kind == "dense" else "power_law:1.5"
    data = from_arrays(X, labels if kind == "softmax" else np.where(labels > 0, 1.0, -1.0))
    given = {"features": "sparse"} if kind == "sparse" else {"weights": "size"} if kind == "ragged" else {}
    if kind == "network":
        import jax

        model = fl.models.get("mlp:hidden=4", classes=3)
        shapes = jax.eval_shape(model.init, jax.random.key(0), X[:1])["params"]
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)  # not by float32, as compiled
        given = {"model": model, "params": params, "dtype": "float64", "measured_rows": 30, "smooth": 10.0}
        return fl.problem(from_arrays(X, labels), clients=7, partition=partition, devices=devices, **given)
    with mock(layouts, "SMALL", 0 if kind != "dense" else layouts.SMALL), mock(layouts, "BLOCKS", (8, 2, 1)):
        return fl.problem(data, clients=7, partition=partition, kappa=30, devices=devices, **given)


def problem_of(fl, kind):
    """The problem of a label such as sparse/locodl: seven ragged clients, or those of the contract tests."""
    from tests.conftest import make_clients

    sizes = (6, 9, 4, 7, 8, 5, 9)
    rng = np.random.default_rng(0)
    classes = [(rng.normal(size=(m, 5)), rng.integers(0, 3, size=m)) for m in sizes]
    test = (rng.normal(size=(11, 5)), rng.integers(0, 3, size=11))
    makers = {
        "contract": lambda: fl.problems.logistic_regression(make_clients(), kappa=30),
        "logistic": lambda: fl.problems.logistic_regression(make_clients(sizes), kappa=30),
        "sparse": lambda: fl.problems.logistic_regression(make_clients(sizes), kappa=30, features="sparse"),
        "softmax": lambda: fl.problems.softmax_regression(classes, kappa=30, weights="size"),
        "quadratic": lambda: fl.problems.quadratic(rng.uniform(0.5, 2, (7, 5)), rng.normal(size=(7, 5)), noise=0.1),
        "pair": lambda: fl.problems.logistic_regression(make_clients(sizes[:2]), kappa=30),
        "network": lambda: fl.problems.neural("mlp:hidden=4", classes, test, classes=3, dtype="float64"),
        "norms": lambda: normalised(fl, classes, [(test[0][i : i + k], test[1][i : i + k]) for i, k in PARTS]),
        "blocks": lambda: data_problem(fl, "ragged"),
        "pieces": lambda: data_problem(fl, "sparse"),
        "even": lambda: fl.problems.logistic_regression(make_clients((4,) * 16), kappa=30),
    }
    return makers[kind]()


def normalised(fl, clients, test):
    """A network with batch normalisation whose statistics are each client's, tested on parts that may be empty."""
    import flax.linen as nn
    import jax.numpy as jnp

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(4, param_dtype=jnp.float64)(x)
            x = nn.BatchNorm(use_running_average=not train, param_dtype=jnp.float64)(x)
            return nn.Dense(3, param_dtype=jnp.float64)(nn.relu(x))

    options = {"norm_statistics": "local", "measured_rows": 30, "smooth": 1e3}  # short steps: rounding does not grow
    return fl.problems.neural(Net(), clients, test, dtype="float64", **options)


def options_of(kind):
    names = {
        "network": ("client_train_loss", "grad_norm"),
        "norms": ("client_test_accuracy", "client_test_loss", "train_accuracy"),
    }
    return {"steps": 20, "measure": names[kind]} if kind in names else {}


def collectives(text):
    """The shapes that each kind of collective of a compiled program moves, by the number of loops around it."""
    loops, lines, where = {}, [], ""
    for line in text.splitlines():
        if opened := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            where = opened[2]
            if opened[1]:
                loops[where] = 0
        lines.append((where, line))
    refers = [(where, line) for where, line in lines if re.search(r"(=|\{|, )%[\w.\-]+", line)]
    for _ in range(20):  # computations within computations, to any depth that there is
        for where, line in refers:
            for role, name in re.findall(r"(?:(\w+)=\{?|, )%([\w.\-]+)", line):
                if where in loops:
                    loops.setdefault(name, loops[where] + (role == "body"))
    found = collections.defaultdict(list)
    for where, line in lines:
        if each := re.search("= (.*?) " + COLLECTIVE, line):
            found[loops[where]].append(f"{each[2]} {re.sub(r'{[^}]*}', '', each[1])}")
    return found


def count(fl, label, problem, devices):
    """The collectives of the compiled loop: those of a chunk, of a record, of a step, and of loops within a step."""
    import jax

    from fedjax_lc.core import pytree
    from fedjax_lc.running import loop
    from fedjax_lc.running.placing import Places

    method, hp = choices(fl, label, problem)
    algorithm, places = fl.algorithms.get(method), Places(devices)
    metrics = loop.choose_metrics(algorithm, problem, ())
    placed, hp, key = places.problem(problem), places.put(pytree.cast(hp, problem.dtype)), places.put(jax.random.key(0))
    at = jax.eval_shape(places.start(algorithm, metrics), placed, hp, key)[0]
    number, limits = places.put(np.uint32(1)), places.put(loop.make_limits(problem, 1.0))
    chunk = places.chunk(algorithm, 3, 4, metrics)
    found = collectives(jax.jit(chunk).lower(placed, hp, at, key, number, number, limits).compile().as_text())
    return dict(zip(("chunk", "record", "step", "local"), (found[depth] for depth in range(4)), strict=True))


# --- from a test ---


def start(out, tasks, processes=1):
    """Start it in so many processes; returns them."""
    address = f"127.0.0.1:{free_port()}"
    places = [["--at", address, str(processes), str(i)] for i in range(processes)] if processes > 1 else [[]]
    return [python(["-m", "tests.spread", str(out), *tasks, *place], 8 if processes == 1 else 1) for place in places]


def python(words, devices=1):
    """Start Python with these arguments, on so many fake devices."""
    names = ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR", "FEDJAX_LC_DATA")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    flags = f"--xla_force_host_platform_device_count={devices} {QUICK}"
    environment |= {"XLA_FLAGS": flags, "FEDJAX_LC_CACHE": "off", "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}
    return subprocess.Popen(
        [sys.executable, *words], env=environment, cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def finish(started, out, timeout=600):
    """What they found, once all have ended well."""
    said = [process.communicate(timeout=timeout)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(said)
    return json.loads(Path(out).read_text())


# --- the program ---


def main(out, *tasks):
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_disable_most_optimizations", True)  # compiled soon, into slower code
    if "--at" in tasks:
        *tasks, _, address, processes, process = tasks
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, int(processes), int(process))
    import fedjax_lc as fl

    found = {}
    for task in tasks:
        what, over, kind, label = task.split("/")
        mesh = fl.devices(clients=int(over))
        problem = None if what in ("wait", "damage", "share") else problem_of(fl, kind)
        folder = Path(out).parent / task.replace("/", "-")
        if what == "count":
            found[task] = count(fl, label, problem, mesh)
        elif what == "run":
            found[task] = trace_of(fl, label, problem, devices=mesh, **options_of(kind))
        elif what == "wait":
            found[task] = wait(fl, label, mesh)
        elif what == "share":
            found[task] = share(fl, kind, label, mesh)
        elif what == "damage":
            found[task] = damage(mesh, folder)
        else:
            found[task] = {"again": again, "torn": torn, "killed": killed, "extend": extended}[what](
                fl, label, problem, mesh, folder
            )
    if jax.process_index() == 0:
        Path(out).write_text(json.dumps(found))
    if jax.process_count() > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
