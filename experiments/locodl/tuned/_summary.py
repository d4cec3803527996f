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

Each method at its best step size and compressor (or number of shares s), found by one sweep at equal budget, then run
again with five other seeds. Remade by `fedjax-lc figure locodl/tuned`, where each figure's page, with its budgets and
wall time, and its pictures land in `figures/`. This page:
`python -m experiments.locodl.tuned._summary > experiments/locodl/tuned/README.md`.

"Step xc" is the method's theory with L/c in place of its smoothness constant L, so that all parameters that belong
together follow: LoCoDL's and CompressedScaffnew's p falls with c as well, which is why small c can save bits there. The
constants of 5GCS-CC are our own, and it takes 20 local steps throughout. EF21 is not in the paper's comparison; it is
here for its greedy compressor. Bits are uplink bits per client, median over seeds. Local gradients are not what is
compared: a method may win on bits with many of them."""


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
