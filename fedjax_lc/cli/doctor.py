"""`fedjax-lc doctor`: what a bug report should say, and whether this machine computes what it should."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from fedjax_lc.cli.options import Help
from fedjax_lc.core.progress import bar


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="versions, devices and settings, and whether this machine computes what it should",
        description="Print what a bug report should say, then check a few methods on small random data (half a minute "
        "on a CPU; nothing is downloaded). The exit code is 1 where a difference is too large, or where JAX's package "
        "for GPUs is installed and no GPU is seen.",
        epilog="Example: fedjax-lc doctor --json > report.json",
        formatter_class=Help,
    )
    parser.add_argument("--quick", action="store_true", help="leave the check of numbers out")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(command=_doctor)


@dataclasses.dataclass
class _Outcome:
    """The outcome of the check of numbers."""

    compared: str
    checks: list[Any]
    seconds: float

    @property
    def well(self) -> bool:
        return all(check.verdict == "ok" for check in self.checks)


def _doctor(options: argparse.Namespace) -> int:
    from fedjax_lc.cli import machine

    facts = machine.facts()
    if not options.json:
        _print_facts(facts)
    outcome = None if options.quick or "failed" in facts["devices"] else _check()
    if options.json:
        print(json.dumps(facts | {"check": None if outcome is None else _plain(outcome)}, indent=1))
    elif outcome is not None:
        _print_outcome(outcome)
    ill = {"failed", "warning"} & {*facts["devices"]}
    return int(bool(ill) or (outcome is not None and not outcome.well))


def _check() -> _Outcome:
    """Run the checks, with a bar on stderr."""
    from fedjax_lc.cli import selfcheck

    started, checks = time.perf_counter(), []
    with bar(selfcheck.count(), "checking", " checks") as shown:
        for check in selfcheck.checks(shown.set_postfix_str):
            checks.append(check)
            shown.update()
    return _Outcome(selfcheck.compared(), checks, time.perf_counter() - started)


def _print_facts(facts: dict[str, dict[str, Any]]) -> None:
    width = max(len(name) for section in facts.values() for name in section)
    for title, section in facts.items():
        print(title)
        for name, value in section.items():
            print(f"  {name:{width}}  {value}")
        if not section:
            print("  none set")


def _print_outcome(outcome: _Outcome) -> None:
    from fedjax_lc.results import report

    print(f"\n{outcome.compared}")
    print(report.table([_row(check) for check in outcome.checks]))
    wrong = sum(check.verdict != "ok" for check in outcome.checks)
    line = f"{wrong} of {len(outcome.checks)} checks failed" if wrong else f"all {len(outcome.checks)} checks are ok"
    print(f"{line} ({outcome.seconds:.0f} s)")


def _row(check: Any) -> dict[str, str]:
    return {
        "method": check.method,
        "dtype": check.dtype,
        "device": check.device,
        "compared with": check.against,
        "relative difference": f"{check.difference:.1e}",
        "allowed": f"{check.allowed:.0e}",
        "verdict": check.verdict,
    }


def _plain(outcome: _Outcome) -> dict[str, Any]:
    """As JSON has it: no NaN."""
    rows = [
        check._asdict() | {"difference": check.difference if check.difference >= 0 else None, "verdict": check.verdict}
        for check in outcome.checks
    ]
    return {"compared": outcome.compared, "checks": rows, "ok": outcome.well, "seconds": round(outcome.seconds, 1)}
