"""Seconds and memory of one export of a language model: every graph and every gate, stage by stage.

Run by hand on a quiet machine, after `make demo`, whose reviews are read:

    .venv/bin/python -m benchmarks.language_export runs/demo

A fresh process unpacks SmolLM2-135M-Instruct's GGUF file, traces it once, makes fp32, int8-dynamic and int4 (calibrated
on training reviews), and judges each beside PyTorch on 200 held-out reviews. Memory is the peak resident set that the
kernel reports for that process (`ru_maxrss`), beside four times the fp32 weights.
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
from exporter.language.job import export_language
from exporter.request import Request, Source
from models.embedded import smollm2
from models.rows import Columns
imported = time.perf_counter()
run, out, limit, names = RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
found = export_language(
    Request(
        smollm2(), out, tuple(Precision(name) for name in names),
        data=Source(run.evaluation_data, Columns(), limit), calibration=Source(run.training_data, Columns()),
    ),
    lambda stage, done, total, note="": print(f"  {time.perf_counter() - imported:6.1f} s  {note}", file=sys.stderr),
)
done = time.perf_counter()
print(json.dumps({
    "imports_s": imported - began, "export_s": done - imported,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "weights": found[0].variant.weights,
    "found": {
        item.variant.precision: [
            item.variant.prediction.perplexity_ratio.value, item.variant.prediction.perplexity_ratio.low,
            item.variant.prediction.perplexity_ratio.high, item.variant.prediction.divergence_nats.value,
            item.variant.prediction.agreement_fraction.value,
        ]
        for item in found
    },
}))
"""


def main() -> None:
    """Print seconds and peak memory of each repetition, and what the gate found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with data, such as runs/demo")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--precisions", default="fp32,int8-dynamic,int4")
    parser.add_argument("--repetitions", type=int, default=1)
    asked = parser.parse_args()
    for _ in range(asked.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [str(asked.run), f"{folder}/run", str(asked.texts), asked.precisions]
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        found = json.loads(done.stdout)
        print(
            f"imports {found['imports_s']:.1f} s, export {found['export_s']:.1f} s, "
            f"peak {found['peak_bytes'] / 1e9:.2f} GB (4 x the fp32 weights: {4 * 4 * found['weights'] / 1e9:.2f} GB)"
        )
        for name, (ratio, low, high, divergence, agreement) in found["found"].items():
            print(
                f"  {name:<13} perplexity {ratio:.4f}× [{low:.4f}–{high:.4f}], divergence {divergence:.4f} nats, "
                f"{agreement:.1%} the same next token"
            )


if __name__ == "__main__":
    main()
