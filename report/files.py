"""From a run's raw records to its `verdict.json` and `report.md`."""

from collections.abc import Sequence

from artifact.records import write_bytes, write_json
from artifact.run_folder import RunFolder
from artifact.variant import Variant
from errors import UserError
from measure.records import Session, load
from report.markdown import render, render_variants
from report.verdict import Verdict, judge


def write_variants(run: RunFolder, variants: Sequence[Variant]) -> None:
    """Write `variants.md`."""
    write_bytes(run.variants_report, render_variants(variants).encode())


def read_verdict(run: RunFolder) -> Verdict:
    """Derive the verdict from what was measured. Raises `UserError` when nothing was."""
    records = load(run.measurements)
    if not records and run.measurements.is_file() and run.measurements.stat().st_size:
        raise UserError(
            f"{run.measurements} was written by another version of steelyard",
            f"move it away and measure again: steelyard compare {run.directory}",
        )
    if not any(isinstance(record, Session) for record in records):
        raise UserError(
            f"{run.directory} has no measurements", f"measure first: steelyard compare {run.directory} --data FILE"
        )
    return judge(records)


def write_verdict(run: RunFolder) -> Verdict:
    """Derive the verdict and write `verdict.json` and `report.md`."""
    verdict = read_verdict(run)
    write_json(run.verdict, verdict)
    write_bytes(run.report, render(verdict).encode())
    return verdict
