"""Whether whole comparisons repeat: the default table measured again and again, on a quiet machine and beside a load.

Run by hand:

    .venv/bin/python -m benchmarks.repeatability runs/demo
    .venv/bin/python -m benchmarks.repeatability runs/demo --load

Each time the run is copied without its measurements and compared anew at `--budget quick`. For each candidate: its
speeds, how far the extremes lie from their median, and the decisions; then how many lie farther than 3 %, and how many
of those under an interval that promised less. `--load` keeps one core busy meanwhile, three seconds in six, which is
what a neighbour on a shared machine does.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from artifact.records import read_json
from artifact.run_folder import RunFolder
from measure.records import Role
from report.tables import FINE
from report.verdict import Ratio, Verdict

NEIGHBOUR = """
import os, time
parent = os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + 3
    while time.monotonic() < end:
        pass
    time.sleep(3)
"""


@contextmanager
def neighbour(*, busy: bool) -> Iterator[None]:
    """Another program on one core, if asked for."""
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) if busy else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def measured(run: Path, budget: str) -> tuple[Verdict, float]:
    """A whole comparison in a copy of the run: its verdict and its seconds."""
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("measurements.jsonl", "verdict.json", "artifact"))
        start = time.monotonic()
        command = [sys.executable, "-P", "-m", "cli", "compare", str(copy), "--budget", budget, "--json"]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return read_json(RunFolder(copy).verdict, Verdict), time.monotonic() - start


def main() -> None:
    """Print each comparison, then each candidate's spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that was exported, such as the demo's")
    parser.add_argument("--comparisons", type=int, default=5)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--load", action="store_true", help="keep one core busy half of the time")
    options = parser.parse_args()
    speeds: defaultdict[str, list[Ratio]] = defaultdict(list)
    for number in range(options.comparisons):
        with neighbour(busy=options.load):
            verdict, seconds_s = measured(options.run, options.budget)
        print(f"{number + 1}: {seconds_s:.0f} s, ships {verdict.deployable}", flush=True)
        for row in verdict.rows:
            if row.measured and row.role is not Role.ANCHOR and row.overall:
                speeds[row.name].append(row.overall)
    far, unsaid = 0, 0
    for name, ratios in speeds.items():
        middle = median(item.ratio for item in ratios)
        farthest = max(abs(item.ratio / middle - 1) for item in ratios)
        for item in ratios:
            is_far = abs(item.ratio / middle - 1) > FINE
            far += is_far
            unsaid += is_far and (item.half_width_fraction or 0.0) <= FINE
        told = ", ".join(f"{item.ratio:.2f} [{item.low or 0:.2f}–{item.high or 0:.2f}]" for item in ratios)
        decisions = ", ".join(dict.fromkeys(str(item.decision) for item in ratios))
        print(f"{name:<24} within {farthest:.1%} of {middle:.2f}×, {decisions}: {told}")
    print(f"{far} of {sum(map(len, speeds.values()))} speeds lie beyond {FINE:.0%} of the middle; {unsaid} unsaid")


if __name__ == "__main__":
    main()
