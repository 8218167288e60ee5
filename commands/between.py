"""Put runs that were measured before beside each other: read, compare, print, and fail for what regressed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from errors import GateFailed, UserError

if TYPE_CHECKING:
    from report.difference import Differences


def compare_runs(
    paths: Sequence[Path], slowdown: float, accuracy_drop: float, out: Path | None, *, strict: bool, as_json: bool
) -> None:
    """Compare the runs after the first with it; bounds are shares. Writes Markdown to `out`.

    Raises `GateFailed` when something regressed or nothing could be judged, with `strict` also when something was not
    shown to be within the bounds; `UserError` when there is nothing to compare.
    """
    from artifact.records import write_bytes
    from artifact.run_folder import RunFolder
    from commands.tell import print_json
    from report.compare_runs import compare_runs as compare
    from report.difference import Bounds
    from report.files import read_records
    from report.markdown import render_differences
    from report.measured_run import Run
    from report.terminal import console, show_differences

    if len(paths) < 2:
        raise UserError("--from is given once", "name the base, then what is compared with it: --from RUN --from RUN")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--from names the same run twice", "name runs that were measured at different times or places")
    base, *later = [Run(str(path), read_records(RunFolder(path))) for path in paths]
    found = compare(base, later, Bounds(slowdown_fraction=slowdown, accuracy_drop_fraction=accuracy_drop))
    _check_something_is_in_common(found)
    if out:
        write_bytes(out, render_differences(found).encode())
    if as_json:
        print_json(found)
    else:
        show_differences(console(), found)
        typer.echo(f"\n  {out}" if out else "")
    _check_bounds(found, strict=strict)


def _check_something_is_in_common(found: "Differences") -> None:
    for item in found.differences:
        if not item.candidates and not item.regressions:
            base = ", ".join(lost.name for lost in item.lost) or "nothing"
            raise UserError(
                f"{item.base} and {item.later} have no candidate in common",
                f"the first measured {base}; the other {', '.join(item.added) or 'nothing'}",
            )


def _check_bounds(found: "Differences", *, strict: bool) -> None:
    if found.regressions:
        raise GateFailed(f"regressed: {', '.join(found.regressions)}")
    for item in found.differences:
        if not item.is_judged:
            raise GateFailed(
                f"nothing of {item.later} could be judged: {'; '.join((item.reason, *item.warnings))}",
                "measure both runs on one machine, with the same data and threads",
            )
    if strict and found.not_shown:
        raise GateFailed(
            f"not shown to be within the bounds: {', '.join(found.not_shown)}",
            "measure both runs longer, with --budget standard or rigorous, or leave --strict out",
        )
