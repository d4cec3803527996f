"""Compiling in a third of the time, into slower code: for tests of which compiling is nearly all."""

from __future__ import annotations

import contextlib

import jax

_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def _known() -> dict[str, bool | int]:
    """_OPTIONS where this jax knows all of them, else none."""
    with contextlib.suppress(Exception):
        jax.jit(lambda x: x + 1, compiler_options=_OPTIONS)(1.0)
        return _OPTIONS
    return {}


QUICKLY = _known()  #: as `jax.jit`'s compiler_options


def compile_quickly(monkeypatch) -> None:
    """Until the end of a test, what the package compiles ahead of time (runs and sweeps) is compiled like that."""
    usual = jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self: usual(self, compiler_options=QUICKLY))
