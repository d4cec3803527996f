"""`fedjax-lc doctor`: what it prints, and that it finds a machine that computes something else."""

import json

import jax
import numpy as np
import pytest

from fedjax_lc.cli import machine, main, selfcheck
from fedjax_lc.cli.selfcheck import Check
from tests.quickly import compile_quickly


@pytest.fixture
def one_method(monkeypatch):
    """Only gradient descent is checked, and nothing else compiled."""
    monkeypatch.setattr(selfcheck, "METHODS", ("gd",))
    planned = selfcheck._planned
    monkeypatch.setattr(selfcheck, "_planned", lambda: [check for check in planned() if check[0] == "gd"])


def with_tf32(features):
    """Rounded to 10 bits after the first, as NVIDIA's GPUs round the inputs of float32 products."""
    bits = np.asarray(features, np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


# --- what it says ---


def test_text(one_method, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for said in ("jaxlib", "default matmul precision", "free host memory", "FEDJAX_LC_DATA", "compiled programs"):
        assert said in out
    assert "The default device is the CPU itself: its models are compared with recorded ones" in out
    assert [line.split()[:4] for line in out.splitlines() if line.endswith(" ok")] == [
        ["gd", "float64", "CPU", "recorded"],
        ["gd", "float32", "CPU", "recorded"],
    ]
    assert "all 2 checks are ok" in out


def test_json(one_method, capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["jax"] == jax.__version__
    assert found["devices"]["platform"] == "cpu"
    assert found["check"]["ok"] is True
    assert [check["verdict"] for check in found["check"]["checks"]] == ["ok", "ok"]


def test_quick_leaves_the_check_out(capsys, monkeypatch):
    monkeypatch.setattr(selfcheck, "checks", None)
    assert main(["doctor", "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"] is None


@pytest.mark.usefixtures("jax_cache")
def test_settings_folders_and_variables(monkeypatch, tmp_path):
    (tmp_path / "libsvm").mkdir()
    (tmp_path / "libsvm" / "a5a").write_text("")
    (tmp_path / "own.py").write_text("")
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path))
    monkeypatch.setenv("FEDJAX_LC_METHODS", str(tmp_path))
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    found = machine.facts()
    assert found["data"]["FEDJAX_LC_DATA"].startswith(f"{tmp_path} (1 of ")
    assert found["data"]["downloads"] == f"{tmp_path}/cache (no such folder)"
    assert found["methods"] == {str(tmp_path): "1 files"}
    assert found["cache"]["folder"] == f"{tmp_path}/cache/xla"
    assert found["variables"]["XLA_FLAGS"] == "--xla_force_host_platform_device_count=1"
    assert found["numbers"] | {"default matmul precision": ""} == {
        "default matmul precision": "",
        "jax_enable_x64": True,
        "default dtypes": "float64, int64",
    }


def test_without_devices_it_says_so_and_fails(monkeypatch, capsys):
    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda'\nand more")

    monkeypatch.setattr(jax, "devices", broken)
    assert main(["doctor"]) == 1
    assert "failed" in (out := capsys.readouterr().out)
    assert "RuntimeError: Unable to initialize backend 'cuda'\n" in out


def test_an_unknown_option_is_one_line(refused):
    assert refused("doctor", "--fast").startswith("unrecognized arguments: --fast")


# --- what it finds ---


@pytest.mark.slow
def test_every_check_is_ok_here(monkeypatch):
    """If a method was changed on purpose: `selfcheck.RECORDED.write_text(selfcheck.record())`."""
    compile_quickly(monkeypatch)
    checks = list(selfcheck.checks(lambda what: None))
    assert {check.verdict for check in checks} == {"ok"}, checks
    assert len(checks) == selfcheck.count() == 2 * len(selfcheck.METHODS) + 2


@pytest.mark.parametrize("name", ["gd", selfcheck.LANES])
def test_rounding_as_in_tf32_is_found(name, monkeypatch, capsys):
    rounded = [(with_tf32(features), labels) for features, labels in selfcheck.clients()]
    if name == "gd":
        monkeypatch.setattr(selfcheck, "clients", lambda: rounded)
    else:  # of products over lanes alone
        lanes = selfcheck._side_by_side

        def side_by_side():
            with monkeypatch.context() as patch:
                patch.setattr(selfcheck, "clients", lambda: rounded)
                return lanes()

        monkeypatch.setattr(selfcheck, "_side_by_side", side_by_side)
    planned = [check for check in selfcheck._planned() if check[:2] == (name, "float32")]
    monkeypatch.setattr(selfcheck, "_planned", lambda: planned)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "TOO LARGE" in out
    assert "1 of 1 checks failed" in out


def test_a_failing_device_is_a_row(one_method, monkeypatch, capsys):
    def failing(*_):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(selfcheck, "_computed", failing)
    assert main(["doctor", "--json"]) == 1
    check = json.loads(capsys.readouterr().out)["check"]["checks"][0]
    assert check["difference"] is None
    assert check["verdict"] == "failed: RuntimeError: no kernel image is available"


def test_an_accelerator_is_compared_with_the_cpu(monkeypatch):
    class Gpu:
        platform = "gpu"

    gpu, cpu = Gpu(), jax.devices("cpu")[0]
    monkeypatch.setattr(jax, "devices", lambda platform=None: [cpu] if platform == "cpu" else [gpu])
    planned = selfcheck._planned()
    assert planned[:2] == [("gd", "float64", cpu, "recorded"), ("gd", "float64", gpu, "CPU")]
    assert planned[-1] == (selfcheck.LANES, "float32", gpu, "alone")
    assert selfcheck.compared().startswith("Models of the GPU are compared with those of the CPU, and these with rec")


def test_verdicts():
    check = Check("gd", "float32", "GPU", "CPU", 1e-6, 1e-5)
    assert check.verdict == "ok"
    assert check._replace(difference=2e-5).verdict == "TOO LARGE"
    assert check._replace(difference=float("nan")).verdict == "TOO LARGE"
