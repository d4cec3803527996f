"""All figures of this folder in two tables, from the result files beside their pictures.

python -m experiments.locodl._summary > experiments/locodl/README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedjax_lc.results import report

FOLDER = Path(__file__).parent / "figures"
LARGER_N = (
    ("a5a-87", "a5a-288"),
    ("w1a-87", "w1a-619"),
    ("diabetes-37", "diabetes-73"),
    ("australian-10", "australian-46"),
)

INTRO = """# LoCoDL against its comparison set

The experiments of arXiv 2403.04348: logistic regression, kappa = 1e4, theory parameters, one seed, until the relative
gap is 1e-12 or a cap (200,000 rounds, or ten times LoCoDL's bits). Remade by `make figures`; each figure's page and
picture are in `figures/`. This page: `python -m experiments.locodl._summary > experiments/locodl/README.md`.

Bits are uplink bits per client to the target; `>` marks a capped curve, with what it had spent. The theory behind
LoCoDL's p knows the nominal kappa only. Where the data's own curvature makes the effective kappa much smaller, methods
that feel that curvature (DIANA, 5GCS-CC) can need fewer bits: read every verdict beside the effective kappa. The
constants of 5GCS-CC are our own (see its docstring): its curves say little about the paper's."""


def main() -> None:
    """Print the page."""
    facts = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    print(INTRO)
    print("\n## Which of the paper's orderings hold\n")
    print(report.table(_verdicts(facts), style="github"))
    print("\n## Larger n helps everyone\n")
    pairs = [_larger(facts[few], facts[many], few, many) for few, many in LARGER_N if {few, many} <= set(facts)]
    print(report.table(pairs, style="github"))
    for name, found in facts.items():
        print(f"\n## {name}\n\n![{name}](figures/{name}.png)\n")
        print(report.table([_curve(label, curve) for label, curve in found["curves"].items()], style="github"))


def _verdicts(facts: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """One row per figure, one column per claim: yes, no, or capped (undecided)."""
    words = {"holds": "yes", "does not hold": "no", "undecided (capped)": "capped"}
    claims = list(dict.fromkeys(claim for found in facts.values() for claim in found["claims"]))
    rows = []
    for name, found in facts.items():
        verdicts = {claim: words.get(found["claims"].get(claim, ""), "") for claim in claims}
        rows.append({"figure": name, "effective kappa": f"{found['kappa_eff']:.3g}"} | verdicts)
    return rows


def _larger(small: dict[str, Any], large: dict[str, Any], few: str, many: str) -> dict[str, str]:
    """Which methods (best compressor each) need fewer bits with more clients; a capped one needs at least its spent."""
    kinds: dict[str, list[str]] = {"fewer bits": [], "not fewer": [], "undecided (capped)": []}
    for method in dict.fromkeys(label.partition(",")[0] for label in small["curves"]):
        (before, before_least), (after, after_least) = _best(small, method), _best(large, method)
        kind = "fewer bits" if after < before_least else "not fewer" if before <= after_least else "undecided (capped)"
        kinds[kind].append(method)
    return {"data": f"{few} to {many}"} | {kind: ", ".join(methods) or "-" for kind, methods in kinds.items()}


def _best(found: dict[str, Any], method: str) -> tuple[float, float]:
    """The fewest bits to the target over a method's compressors (inf if all are capped), and a lower bound on them."""
    curves = [curve for label, curve in found["curves"].items() if label.partition(",")[0] == method]
    reached = [curve["bits_up"] for curve in curves if curve["ended"] == "target"]
    return min(reached, default=float("inf")), min(_bits(curve) for curve in curves)


def _bits(curve: dict[str, Any]) -> float:
    return curve["spent"] if curve["ended"] == "capped" else curve["bits_up"]


def _curve(label: str, curve: dict[str, Any]) -> dict[str, str]:
    sign = "> " if curve["ended"] == "capped" else ""
    return {"method": label, "bits to the target": f"{sign}{_bits(curve):.3e}", "ended": curve["ended"]}


if __name__ == "__main__":
    main()
