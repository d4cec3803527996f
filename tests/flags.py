"""Flags of XLA for the processes of tests; no import of JAX, which reads them as it starts."""

from __future__ import annotations

from jaxlib import version

#: The same bits, compiled in half of the time; a program is not split for threads, of which there is one.
#: A flag that XLA does not know ends the process, and later ones do not know the first.
QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    if version.__version_info__ < (0, 11)
    else ""
)
