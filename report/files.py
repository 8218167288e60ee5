"""From a run's raw records to its `verdict.json`, `report.md`, `report.html` and `load.md`."""

import msgspec

from artifact.language import LanguageVariant
from artifact.precision import Precision
from artifact.records import read_if_present, write_bytes, write_json
from artifact.run_folder import RunFolder
from artifact.variant import Variant
from errors import UserError
from measure.load_records import LoadSession
from measure.load_records import load as load_tests
from measure.records import Record, Session, load
from report.judge import DEFAULT, judge
from report.load import LoadReport, judge_load
from report.markdown import render, render_load, render_variants
from report.page import render_page
from report.policy import Policy
from report.verdict import Verdict


def write_variants(run: RunFolder) -> None:
    """Write `variants.md` about the variants that were judged as the run's fp32 one was; nothing where it has none."""
    if not run.is_run:
        return
    fp32 = _read(run, Precision.FP32)
    found = [_read(run, precision) for precision in Precision]
    variants = [variant for variant in found if variant and fp32 and _judged_alike(variant, fp32)]
    if variants:
        write_bytes(run.variants_report, render_variants(variants).encode())


def _read(run: RunFolder, precision: Precision) -> Variant | LanguageVariant | None:
    path = run.variant(precision) / "variant.json"
    return read_if_present(path, Variant) or read_if_present(path, LanguageVariant)


def _judged_alike(one: Variant | LanguageVariant, other: Variant | LanguageVariant) -> bool:
    """Whether two variants come from one model and were compared on the same examples: one table may hold both."""
    judged = [(item.checkpoint_sha256, *item.judged_on) for item in (one, other)]
    return judged[0] == judged[1]


class _Saved(msgspec.Struct):
    policy: Policy


def saved_policy(run: RunFolder) -> Policy:
    """What the run's verdict was last asked for."""
    saved = read_if_present(run.verdict, _Saved)
    return saved.policy if saved else DEFAULT


def read_records(run: RunFolder) -> list[Record]:
    """Everything that was measured, with at least one session. Raises `UserError` when nothing was."""
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
    return records


def read_verdict(run: RunFolder, policy: Policy | None = None) -> Verdict:
    """Derive the verdict from what was measured, by a policy (default: the saved one).

    Raises `UserError` when nothing was measured.
    """
    return judge(read_records(run), policy or saved_policy(run))


def write_verdict(run: RunFolder, policy: Policy | None = None) -> Verdict:
    """Derive the verdict by a policy (default: the saved one); write `verdict.json`, `report.md` and `report.html`."""
    records = read_records(run)
    verdict = judge(records, policy or saved_policy(run))
    write_json(run.verdict, verdict)
    write_bytes(run.report, render(verdict).encode())
    write_bytes(run.page, render_page(verdict, records).encode())
    return verdict


def write_load(run: RunFolder) -> LoadReport | None:
    """Derive what the load tests say and write `load.md`; `None` where there are none."""
    records = load_tests(run.load)
    if not any(isinstance(record, LoadSession) for record in records):
        return None
    report = judge_load(records)
    write_bytes(run.load_report, render_load(report).encode())
    return report
