"""Memory that is free, by host and control group; memory that is needed, told in one line before it is taken."""

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core import memory
from fedjax_lc.core.errors import InputError
from fedjax_lc.running import programs

GB = 10**9


def machine(root, files):
    for name, text in {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {64 * GB // 1024} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return memory.free_on_host(root)


def limits(folder, most, used, cached, version):
    names = ("memory.max", "memory.current", "inactive_file")
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, use, files = names if version == 2 else old
    return {
        f"{folder}/{limit}": f"{most}\n",
        f"{folder}/{use}": f"{used}\n",
        f"{folder}/memory.stat": f"anon 5\n{files} {cached}\n",
    }


def test_without_a_group_it_is_what_the_host_has(tmp_path):
    assert machine(tmp_path, {}) == 64 * GB // 1024 * 1024


@pytest.mark.parametrize(
    ("version", "line", "mount"),
    [(2, "0::/job/step", "sys/fs/cgroup"), (1, "4:memory,cpu:/job/step", "sys/fs/cgroup/memory")],
)
@pytest.mark.parametrize("group", ["", "/job", "/job/step"])
def test_the_limit_of_a_group_counts_wherever_it_is_set(tmp_path, version, line, mount, group):
    files = {"proc/self/cgroup": f"9:name=systemd:/\n{line}\n"} | limits(mount + group, 8 * GB, 6 * GB, GB, version)
    assert machine(tmp_path, files) == 3 * GB


@pytest.mark.parametrize("most", ["max", 2**63 - 4096])
def test_a_group_without_limit(tmp_path, most):
    version = 2 if most == "max" else 1
    mount = "sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory"
    files = {"proc/self/cgroup": "0::/\n4:memory:/\n"} | limits(mount, most, GB, 0, version)
    assert machine(tmp_path, files) == 64 * GB // 1024 * 1024


def test_nothing_known(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.os, "sysconf", lambda name: int("unknown"))
    assert memory.free_on_host(tmp_path) is None
    monkeypatch.setattr(memory, "free_on_host", lambda: None)
    memory.check(10**30, "this", "that")  # nothing is refused


def test_data_that_do_not_fit_are_refused_before_they_are_stacked(monkeypatch):
    monkeypatch.setattr(memory, "free_on_host", lambda: 10**6)
    client = (np.zeros((1000, 100)), np.ones(1000))
    with pytest.raises(InputError) as caught:
        fl.problems.logistic_regression([client], l2=0.1)
    assert str(caught.value) == (
        "making this problem needs 1.6 MB and 1 MB are free: use fewer rows or columns, or features='sparse'"
    )


PROGRAM = """HloModule jit_f

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %c = f32[] add(%a, %b)
}

%mean (p: f32[20,64,20], q: f32[20,20,500]) -> f32[64,500] {
  %p = f32[20,64,20]{2,1,0} parameter(0)
  %q = f32[20,20,500]{2,1,0} parameter(1)
  %wide = f32[9,20,64,500]{3,2,1,0} broadcast(%z), dimensions={1}
  %dot.0 = f32[20,64,500]{2,1,0} dot(%p, %q), lhs_batch_dims={0}
  %twice = f32[9,20,64,500]{3,2,1,0} multiply(%wide, %wide)
  ROOT %r = f32[64,500]{1,0} reduce(%dot.0, %zero), dimensions={0}, to_apply=%sum
}

ENTRY %main (S: f32[20,64,20], A: f32[20,20,500]) -> f32[64,500] {
  ROOT %f = f32[64,500]{1,0} fusion(%S, %A), kind=kCustom, calls=%mean, backend_config={"kind":"__ynn_fusion"}
}
"""


def test_sums_that_the_plan_of_xla_leaves_out_are_counted():
    """A mean of gradients: the products within it, twice; what is computed entry by entry is never stored."""
    assert programs.unplanned_bytes(PROGRAM) == 2 * 4 * 20 * 64 * 500
    assert programs.unplanned_bytes(PROGRAM.replace("__ynn_fusion", "__other")) == 0
