"""How often the verdicts are right on this machine, where the truth is known: real comparisons of real processes.

Run by hand on a quiet machine:

    .venv/bin/python -m benchmarks.real_verdicts runs/demo

Each comparison is a whole one at `--budget quick`, of a run's fp32 graph on ONNX Runtime: the baseline, its A/A
control, the same engine once more under another name, and one whose calls take 5 % longer. Two must never be called
faster or slower, and the last should always be called slower.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from artifact.examples import read_examples
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from measure import process
from measure.compare import Comparison, compare
from measure.plan import find_plan
from measure.source import find_models
from report.judge import judge
from runtimes.base import Candidate
from runtimes.registry import REGISTRY, Entry

EXAMPLES = 50
PROJECT = Path(__file__).resolve().parent.parent
REGISTER = "from benchmarks.real_verdicts import register\nregister()\n"


def register() -> None:
    """Know the two extra runtimes in this process."""
    known = cast(MutableMapping[str, Entry], REGISTRY)
    ort = known["ort-cpu"]
    for name, module in (("again", ort.module), ("slowed", "benchmarks.slowed")):
        known[name] = replace(ort, module=module)


def one(run: Path, folder: Path, budget: str) -> dict[str, str]:
    """Each entrant's decision and ratio, from one comparison."""
    comparison = Comparison(
        source=find_models(run),
        examples=read_examples(RunFolder(run).evaluation_data).select(range(EXAMPLES)),
        candidates=tuple(Candidate(name, Precision.FP32) for name in ("ort-cpu", "again", "slowed")),
        batch_sizes=(1, 8),
        lengths=(128,),
        plan=find_plan(budget),
        measurements=folder / "measurements.jsonl",
        reference=folder / "reference.npz",
    )
    rows = judge(compare(comparison)).rows
    return {
        row.name: f"{row.overall.decision} {row.overall.ratio:.3f} [{row.overall.low:.3f}–{row.overall.high:.3f}]"
        for row in rows
        if row.overall and row.overall.low and row.overall.high
    }


def main() -> None:
    """Print every comparison, then how often each decision came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with an fp32 variant, such as the demo's")
    parser.add_argument("--comparisons", type=int, default=10)
    parser.add_argument("--budget", default="quick")
    options = parser.parse_args()
    register()
    counts: dict[str, Counter[str]] = {}
    for number in range(options.comparisons):
        with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
            site = Path(folder) / "site"
            site.mkdir()
            (site / "sitecustomize.py").write_text(REGISTER)
            process.ROOT = Path(f"{site}{os.pathsep}{PROJECT}")
            for name, found in one(options.run, Path(folder), options.budget).items():
                counts.setdefault(name, Counter())[found.partition(" ")[0]] += 1
                print(f"{number + 1:>3} {name:<22} {found}", flush=True)
    for name, decisions in counts.items():
        print(f"{name}: {', '.join(f'{decision} {count}' for decision, count in decisions.most_common())}")


if __name__ == "__main__":
    main()
