"""Seconds and memory of one export of every precision, imports told apart, stage by stage.

Run by hand on a quiet machine, after `make demo`:

    .venv/bin/python -m benchmarks.export_cost runs/demo
    .venv/bin/python -m benchmarks.export_cost runs/demo --llm

A fresh process imports what an export needs, then traces the run's checkpoint once and makes fp32, fp16, int8-dynamic,
int8-static and int4 with every gate on 500 held-out reviews. With `--llm` it unpacks SmolLM2-135M-Instruct's GGUF file
instead, makes fp32, int8-dynamic and int4 of it, and judges each beside PyTorch on 200 of the reviews. Either is
calibrated on the training reviews. Memory is the peak resident set that the kernel reports for that process
(`ru_maxrss`).
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
from exporter.request import Request, Source
from models.rows import Columns
run, out, limit, names = RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
if sys.argv[5] == "llm":
    from exporter.language.export import export_language as export
    import exporter.language.job
    from models.embedded import smollm2
    model = smollm2()
else:
    from exporter.export import export
    import exporter.job, transformers.exporters
    model = run.checkpoint
imported = time.perf_counter()
found = export(
    Request(
        model, out, tuple(Precision(name) for name in names),
        data=Source(run.evaluation_data, Columns(), limit), calibration=Source(run.training_data, Columns()),
    ),
    lambda stage, done, total, note="": print(f"  {time.perf_counter() - imported:6.1f} s  {note}", file=sys.stderr),
)
done = time.perf_counter()
predictions = {item.variant.precision: getattr(item.variant, "prediction", None) for item in found}
print(json.dumps({
    "imports_s": imported - began, "export_s": done - imported,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "weights": getattr(found[0].variant, "weights", None),
    "passed": {item.variant.precision: item.variant.passed for item in found},
    "predictions": {
        name: [
            item.perplexity_ratio.value, item.perplexity_ratio.low, item.perplexity_ratio.high,
            item.divergence_nats.value, item.agreement_fraction.value,
        ]
        for name, item in predictions.items() if item
    },
}))
"""


def main() -> None:
    """Print seconds and peak memory of each repetition, and what the gate found of what writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with a checkpoint and data, such as runs/demo")
    parser.add_argument("--llm", action="store_true", help="export SmolLM2-135M-Instruct instead of the checkpoint")
    parser.add_argument("--examples", type=int)
    parser.add_argument("--precisions")
    parser.add_argument("--repetitions", type=int, default=1)
    asked = parser.parse_args()
    examples = asked.examples or (200 if asked.llm else 500)
    precisions = asked.precisions or "fp32,int8-dynamic,int4" + ("" if asked.llm else ",fp16,int8-static")
    weights = sum(path.stat().st_size for path in (asked.run / "checkpoint").glob("*.safetensors"))
    for _ in range(asked.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [str(asked.run), f"{folder}/run", str(examples), precisions, "llm" if asked.llm else ""]
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True, check=True
            )
        found = json.loads(done.stdout)
        allowed = f"3 x the checkpoint + 1.5 GB: {3 * weights / 1e6 + 1500:.0f} MB"
        if asked.llm:
            allowed = f"4 x the fp32 weights: {4 * 4 * found['weights'] / 1e6:.0f} MB"
        print(
            f"imports {found['imports_s']:.1f} s, export {found['export_s']:.1f} s, "
            f"peak {found['peak_bytes'] / 1e6:.0f} MB ({allowed}), "
            f"passed: {', '.join(name for name, passed in found['passed'].items() if passed)}"
        )
        for name, (ratio, low, high, divergence, agreement) in found["predictions"].items():
            print(
                f"  {name:<13} perplexity {ratio:.4f}× [{low:.4f}–{high:.4f}], divergence {divergence:.4f} nats, "
                f"{agreement:.1%} the same next token"
            )


if __name__ == "__main__":
    main()
