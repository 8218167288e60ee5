"""Seconds and nodes of the export of every architecture that the tests prove, into the table of docs/architectures.md.

Run by hand on a quiet machine, after a change to the exporter or to the table in `tests/exporter/architectures.py`:

    .venv/bin/python -m benchmarks.architectures --write

Each is made tiny with random weights, exported once to fp32 and checked as any export is; seconds are those of the
whole export in a process that is warm (one export before goes uncounted). Without `--write` the table is printed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from artifact.precision import Precision

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
HEAD = ("architecture", "class", "task", "axes that vary", "nodes", "seconds")


def table(folder: Path) -> list[str]:
    """Export everything into `folder`; the lines of a Markdown table. Raises `RuntimeError` when one does not pass."""
    from exporter.export import export
    from exporter.request import Request
    from tests.exporter.architectures import ARCHITECTURES, Architecture, write_checkpoint

    def row(architecture: Architecture, name: str) -> tuple[str, ...]:
        checkpoint = write_checkpoint(architecture, folder / name / "checkpoint")
        start = perf_counter()
        (exported,) = export(Request(checkpoint, folder / name / "run", (Precision.FP32,)))
        seconds_s = perf_counter() - start
        variant = exported.variant
        if not variant.passed:
            raise RuntimeError(f"{architecture.name}: {'; '.join(variant.reasons)}")
        axes = dict.fromkeys(axis for item in variant.inputs for axis in item.shape if isinstance(axis, str))
        print(f"{architecture.name}: {seconds_s:.1f} s", file=sys.stderr)
        cells = (architecture.name, f"`{architecture.kind}`", variant.task.value, ", ".join(axes), str(variant.nodes))
        return (*cells, f"{seconds_s:.1f}")

    row(ARCHITECTURES[0], "warm")
    rows = [row(architecture, str(number)) for number, architecture in enumerate(ARCHITECTURES)]
    rule = ("---", "---", "---", "---", "---:", "---:")
    return [f"| {' | '.join(cells)} |" for cells in (HEAD, rule, *rows)]


def replaced(text: str, lines: list[str]) -> str:
    """A document with its one table replaced."""
    old = text.splitlines()
    first = next((number for number, line in enumerate(old) if line.startswith("|")), len(old))
    kept = [line for line in old[first:] if not line.startswith("|")]
    return "\n".join((*old[:first], *lines, *kept)) + "\n"


def main() -> None:
    """Print the table, or write it into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        lines = table(Path(folder))
    if options.write:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8"), lines), encoding="utf-8")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
