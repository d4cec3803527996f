"""All figures of this folder in two tables, from the result files beside their pictures.

python -m experiments.locodl._summary > experiments/locodl/README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedjax_lc import report

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
    print(report.table([_verdicts(name, found) for name, found in facts.items()], style="github"))
    print("\n## Larger n helps everyone\n")
    pairs = [_larger(facts[few], facts[many], few, many) for few, many in LARGER_N]
    print(report.table(pairs, style="github"))
    for name, found in facts.items():
        print(f"\n## {name}\n\n![{name}](figures/{name}.png)\n")
        print(report.table([_curve(label, curve) for label, curve in found["curves"].items()], style="github"))


def _verdicts(name: str, found: dict[str, Any]) -> dict[str, str]:
    held = [text for text, verdict in found["claims"].items() if verdict == "holds"]
    failed = [text for text, verdict in found["claims"].items() if verdict != "holds"]
    return {
        "figure": name,
        "effective kappa": f"{found['kappa_eff']:.3g}",
        "hold": "; ".join(held) or "-",
        "do not": "; ".join(failed) or "-",
    }


def _larger(small: dict[str, Any], large: dict[str, Any], few: str, many: str) -> dict[str, str]:
    """Which methods (best compressor each) need fewer bits with more clients."""
    less, more = _best(small), _best(large)
    helped = [method for method in less if more[method] < less[method]]
    return {
        "data": f"{few} to {many}",
        "fewer bits": ", ".join(helped) or "-",
        "not fewer": ", ".join(method for method in less if method not in helped) or "-",
    }


def _best(found: dict[str, Any]) -> dict[str, float]:
    """Method -> the fewest bits over its compressors; a capped curve counts with what it spent."""
    best: dict[str, float] = {}
    for label, curve in found["curves"].items():
        method = label.partition(",")[0]
        best[method] = min(best.get(method, float("inf")), _bits(curve))
    return best


def _bits(curve: dict[str, Any]) -> float:
    return curve["spent"] if curve["ended"] == "capped" else curve["bits_up"]


def _curve(label: str, curve: dict[str, Any]) -> dict[str, str]:
    sign = "> " if curve["ended"] == "capped" else ""
    return {"method": label, "bits to the target": f"{sign}{_bits(curve):.3e}", "ended": curve["ended"]}


if __name__ == "__main__":
    main()
