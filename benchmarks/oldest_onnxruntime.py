"""Load every variant of a run in the oldest onnxruntime that its `variant.json` claims, and compare the answers.

Run by hand, with network for pip, after an export:

    .venv/bin/python -m benchmarks.oldest_onnxruntime runs/demo

Each version that is claimed gets a virtual environment of its own that is thrown away, with onnxruntime and numpy
alone. The run's golden examples are answered there and compared with the PyTorch reference's logits.
"""

import argparse
import json
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
import numpy, onnxruntime
folder, golden = sys.argv[1], json.load(open(sys.argv[2]))
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(json.dumps({"version": onnxruntime.__version__, "fails": str(error).splitlines()[0]}))
    sys.exit()
names, errors, labels = [item.name for item in session.get_inputs()], [], 0
for example in golden["examples"]:
    ids = numpy.array([example["inputs"]["input_ids"]["values"]])
    expected = numpy.array(example["outputs"]["logits"]["values"])
    known = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
    try:
        logits = session.run(["logits"], {name: known[name] for name in names})[0][0]
    except Exception as error:
        print(json.dumps({"version": onnxruntime.__version__, "fails": str(error).splitlines()[0]}))
        sys.exit()
    errors.append(float(abs(logits - expected).max()))
    labels += int(logits.argmax() == expected.argmax())
print(json.dumps({"version": onnxruntime.__version__, "error": max(errors), "labels": labels}))
"""


def main() -> None:
    """Print one line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with variants and golden.json")
    run = parser.parse_args().run
    variants = [json.loads(path.read_text()) for path in sorted(run.glob("variants/*/variant.json"))]
    for claimed in sorted({variant["minimum_onnxruntime"] for variant in variants}):
        with tempfile.TemporaryDirectory() as folder:
            venv.create(folder, with_pip=True)
            python = f"{folder}/bin/python"
            wanted = [f"onnxruntime=={claimed}.0", "numpy<2" if claimed < "1.19" else "numpy"]
            subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted], check=True)
            for variant in variants:
                if variant["minimum_onnxruntime"] == claimed:
                    _report(python, run, variant)


def _error_at_export(variant: dict[str, Any]) -> float:
    return float(variant["golden_error_fraction"] * variant["parity"]["scales"]["logits"])


def _report(python: str, run: Path, variant: dict[str, Any]) -> None:
    command = [python, "-c", PROGRAM, str(run / "variants" / str(variant["precision"])), str(run / "golden.json")]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    examples = len(json.loads((run / "golden.json").read_text())["examples"])
    answer = found.get("fails") or (
        f"largest logit error {found['error']:.2g} (at its export {_error_at_export(variant):.2g}), "
        f"{found['labels']} of {examples} labels equal"
    )
    print(f"{variant['precision']:<13} onnxruntime {found['version']}: {answer}")


if __name__ == "__main__":
    main()
