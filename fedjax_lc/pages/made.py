"""How curves and sweeps were made, and what their problem is, as names and texts for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedjax_lc.pages.gather import OF_PROBLEM, Curve, Sweep
from fedjax_lc.pages.words import pairs, text

NAMES = {"strong": "strong convexity", "smooth": "largest smoothness of a client", "smooth_mean": "smoothness of F"}
ASKED = ("steps", "every", "rel_gap", "budget", "seeds", "records", "status", "key", "seconds", "compile_seconds")


def of_run(curve: Curve) -> list[dict[str, Any]]:
    """Folder, command, facts, configuration and notes of each seed of a curve."""
    return [
        _made(trace.config | {"status": trace.status}, str(trace.folder or ""), trace.notes) for trace in curve.traces
    ]


def of_sweep(sweep: Sweep) -> list[dict[str, Any]]:
    """The same of a sweep; of a merged one for each command."""
    methods = sweep.config["methods"]
    several = [
        facts for method in methods.values() for facts in (method, *method.get("merged", ())) if "command" in facts
    ]
    swept = {f"swept of {name}": facts["settings"] for name, facts in methods.items()}
    commands = {facts["command"]: facts for facts in several} or {"": {}}
    return [_made({**sweep.config, **facts, "hyperparameters": swept}, "", []) for facts in commands.values()]


def _made(config: Mapping[str, Any], folder: str, notes: list[str]) -> dict[str, Any]:
    versions = config.get("versions") or {}
    facts = {"device": config.get("device"), "written": config.get("written"), "folder": folder}
    facts |= {"versions": ", ".join(f"{name} {number}" for name, number in versions.items())}
    facts |= {name: config.get(name) for name in ASKED}
    chosen = config.get("hyperparameters") or {}
    command = str(config.get("command") or "")
    return {"command": command, "facts": pairs(facts), "chosen": pairs(chosen, exact=True), "notes": notes}


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line said of the problem."""
    settings = config.get("asked") or config.get("settings") or {}
    return {name: settings.get(name) for name in OF_PROBLEM}


def title(curve: Curve) -> str:
    """The problem of a curve in words."""
    config = curve.traces[0].config
    problem, settings = config.get("problem") or {}, _asked(config)
    recipe = (config.get("recipe") or {}).get("data") or {}
    parts = [str(settings.get("data") or recipe.get("name_or_path") or problem.get("kind", "problem"))]
    if "clients" in problem:
        parts.append(f"{problem['clients']} client{'s' * (problem['clients'] != 1)}")
    if "dim" in problem:
        parts.append(f"d = {text(problem['dim'])}")
    return ", ".join(parts)


def of_problem(curve: Curve) -> list[list[str]]:
    """What is known of the problem of a curve."""
    trace = curve.traces[0]
    asked = {name: each for name, each in _asked(trace.config).items() if name != "data"}
    known: dict[str, Any] = dict(trace.config.get("problem") or {})
    if asked.get("model"):
        known.pop("network", None)  # the same at length
    facts = {
        str(NAMES.get(name, name)): fact for name, fact in known.items() if name not in ("clients", "dim", "digest")
    }
    return pairs({name: fact for name, fact in (facts | {"F*": trace.f_star, **asked}).items() if fact == fact})
