"""What each stage prints for a person when it is done."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from artifact.placing import Packed
    from artifact.run_folder import RunFolder
    from artifact.verify import Verified
    from exporter.export import Exported, ExportedLanguage
    from models.training import DataSummary, TrainingRecord
    from report.load import LoadReport
    from report.verdict import Verdict
    from side_by_side.records import SideBySide


def tell_version(is_asked: bool) -> None:
    """Which version this is, and nothing else, where that `is_asked`."""
    from importlib.metadata import PackageNotFoundError, version

    if is_asked:
        try:
            typer.echo(f"steelyard {version('steelyard')}")
        except PackageNotFoundError:
            typer.echo("steelyard, from a checkout that is not installed")
        raise typer.Exit


def tell_data(summary: "DataSummary") -> None:
    """What is going to be learnt from, on standard error."""
    from commands.training import told_before

    for line in told_before(summary):
        typer.echo(f"  {line}", err=True)


def tell_training(record: "TrainingRecord", out: Path, *, made: bool, err: bool = False) -> None:
    """What fine-tuning reached."""
    from commands.training import told_after

    for line in told_after(record):
        typer.echo(f"  {line}", err=err)
    typer.echo(f"  {out / 'checkpoint'}{'' if made else ' (done before, reused)'}", err=err)


def tell_side_by_side(found: "SideBySide", out: Path) -> None:
    """The settings beside each other, and where the files are."""
    from report.terminal import console, show_lines, show_table
    from side_by_side.records import Place
    from side_by_side.report import headline, tables

    screen, place = console(), Place(out)
    show_lines(screen, headline(found))
    for table in tables(found):
        show_table(screen, table)
    typer.echo(f"  {place.report}\n  {place.curves}\n  {place.record}")


def tell_export(exported: "tuple[Exported | ExportedLanguage, ...]", *, err: bool = False) -> None:
    """Each variant, how far it is from PyTorch, and where it lies."""
    from report.terminal import console, show_variants

    show_variants(console(stderr=err), [item.variant for item in exported])
    for item in exported:
        typer.echo(f"  {item.path}{'' if item.made else ' (done before, reused)'}", err=err)


def tell_verdict(verdict: "Verdict", run: "RunFolder") -> None:
    """The verdict's tables, and where the files are."""
    from report.terminal import console, show_verdict

    show_verdict(console(), verdict)
    typer.echo(f"\n  {run.page}\n  {run.report}\n  {run.verdict}\n  {run.measurements}")


def tell_load(report: "LoadReport", run: "RunFolder") -> None:
    """What LoadGen saw, and where the files are."""
    from report.terminal import console, show_load

    show_load(console(), report)
    typer.echo(f"\n  {run.load_report}\n  {run.load}")


def tell_packed(packed: "Packed", *, err: bool = False) -> None:
    """What was packed."""
    from report.figures import size

    typer.echo(
        f"  {packed.directory}: {packed.precision}, {size(packed.size_bytes)} in {packed.files} files; "
        "its self-test passed",
        err=err,
    )


def tell_verified(found: "Verified") -> None:
    """What an artifact's checks found on this machine."""
    from report.figures import seconds, size

    typer.echo(f"{found.directory}: {found.files} files unchanged, {found.examples} golden examples agree")
    if not found.own_predict_py:
        typer.echo("  its predict.py is not the one that this version writes; read it before you run it")
    cpu = {True: "same CPU model", False: "another CPU model", None: ""}[found.same_cpu]
    for speed in found.speed:
        here, card = seconds(speed.here_s), seconds(speed.card_s)
        typer.echo(
            f"  {speed.workload} (batch × tokens): {here} here on {found.threads} threads; "
            f"its card: {card} on {found.card_threads} ({cpu})"
        )
    if found.memory_bytes is not None and found.card_memory_bytes is not None:
        typer.echo(f"  memory: {size(found.memory_bytes)} here; its card: {size(found.card_memory_bytes)}")
    for note in found.notes:
        typer.echo(f"  {note}")


def print_json(value: Any) -> None:
    """One indented JSON document."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
