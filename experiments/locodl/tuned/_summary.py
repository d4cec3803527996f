"""All tuned comparisons in one page, from the result files beside their pictures.

python -m experiments.locodl.tuned._summary > experiments/locodl/tuned/README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedjax_lc.results import report

FOLDER = Path(__file__).parent / "figures"

INTRO = """# LoCoDL and its rivals, each tuned

Each method at its best settings, found by one sweep at equal budget, then run again with five other seeds: its step
size with k of its compressor, and for LoCoDL and its kin also what decides how often clients talk, the probability p
(LoCoDL, CompressedScaffnew), the number of shares s (CompressedScaffnew), the local steps (5GCS-CC). Remade by
`fedjax-lc figure locodl/tuned`, where each figure's page, with its budgets and wall time, and its pictures land in
`figures/`. This page: `python -m experiments.locodl.tuned._summary > experiments/locodl/tuned/README.md`.

"Step xc" is the method's theory with L/c in place of its smoothness constant L, so that all parameters that belong
together follow; "p xc" is c times the p of that theory. The constants of 5GCS-CC are our own. EF21 is not in the
paper's comparison; it is here for its greedy compressor. Bits are uplink bits per client, median over seeds. Local
gradients are not what is compared: a method may win on bits with many of them.

**What the search of p changed.** In australian-10 and diabetes-37 p and local steps are searched; a5a-87 and w1a-87
take half an hour and more without that, and show the search before it: p follows the step size, 5GCS-CC takes 20
local steps. In both of the new ones LoCoDL's best p is 4 times theory's, at a step size near theory's (x2, x0.5),
where before a step of x0.125 or x0.03125 stood in for it: it ends with 1 to 12 % fewer bits, which is no more than
chance moves (DIANA's median in australian-10 is 12 % up at the same settings, as newer code draws other coins).
CompressedScaffnew gains in diabetes-37, 2.6 times fewer bits to 1e-4 and 4.3 times fewer to 1e-8, by a step of
x0.03125 that the narrower search stopped short of. 5GCS-CC does as well with 5 local steps as with 20 in
australian-10. No verdict on a claim changed: balanced or searched p saves much against theory's p, but little against
a step size that was tuned already."""


def main() -> None:
    """Print the page."""
    facts = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    print(INTRO)
    print("\n## Which orderings hold when all are tuned\n")
    words = {"holds": "yes", "does not hold": "no", "undecided (capped)": "capped"}
    rows = [
        {"figure": name, "effective kappa": f"{found['kappa_eff']:.3g}"}
        | {claim: words[verdict] for claim, verdict in found["claims"].items()}
        for name, found in facts.items()
    ]
    print(report.table(rows, style="github"))
    for name, found in facts.items():
        print(f"\n## {name}\n\n![bits to the gap](figures/{name}.png)\n\n![step sizes](figures/{name}-steps.png)\n")
        print(report.table([_curve(label, curve) for label, curve in found["curves"].items()], style="github"))


def _curve(label: str, curve: dict[str, Any]) -> dict[str, str]:
    row = {"method at its best": label}
    for gap, found in curve["bits"].items():
        row[f"bits to {gap}"] = "-" if found["median"] is None else f"{found['median']:.3g}"
    return row | {"rounds": "-" if curve["rounds"] is None else f"{curve['rounds']:,.0f}"}


if __name__ == "__main__":
    main()
