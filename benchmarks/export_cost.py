"""Seconds and memory of one export of every precision, imports told apart.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.export_cost runs/demo

A fresh process imports what an export needs, then traces the run's checkpoint once and makes fp32, fp16, int8-dynamic,
int8-static and int4 with every gate on 500 held-out reviews. Memory is the peak resident set that the kernel reports
for that process (`ru_maxrss`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import json, resource, sys, time
began = time.perf_counter()
from pathlib import Path
from artifact.precision import Precision
from artifact.run_folder import RunFolder
from exporter.export import export
from exporter.request import Request, Source
from models.rows import Columns
import exporter.job, transformers.exporters
imported = time.perf_counter()
run, out, limit, names = RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
found = export(
    Request(
        run.checkpoint, out, tuple(Precision(name) for name in names),
        data=Source(run.evaluation_data, Columns(), limit), calibration=Source(run.training_data, Columns()),
    ),
    lambda stage, done, total, note="": print(f"  {time.perf_counter() - imported:6.1f} s  {note}", file=sys.stderr),
)
done = time.perf_counter()
print(json.dumps({
    "imports_s": imported - began, "export_s": done - imported,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "passed": {item.variant.precision: item.variant.passed for item in found},
}))
"""


def main() -> None:
    """Print seconds and peak memory of each repetition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with a checkpoint and data, such as runs/demo")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--precisions", default="fp32,fp16,int8-dynamic,int8-static,int4")
    parser.add_argument("--repetitions", type=int, default=1)
    asked = parser.parse_args()
    weights = sum(path.stat().st_size for path in (asked.run / "checkpoint").glob("*.safetensors"))
    for _ in range(asked.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [str(asked.run), f"{folder}/run", str(asked.examples), asked.precisions]
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True, check=True
            )
        found = json.loads(done.stdout)
        allowed = 3 * weights / 1e6 + 1500
        print(
            f"imports {found['imports_s']:.1f} s, export {found['export_s']:.1f} s, "
            f"peak {found['peak_bytes'] / 1e6:.0f} MB (3 x the checkpoint + 1.5 GB: {allowed:.0f} MB), "
            f"passed: {', '.join(name for name, passed in found['passed'].items() if passed)}"
        )


if __name__ == "__main__":
    main()
