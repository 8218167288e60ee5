"""What a person sees while a command works and when it is done."""

import sys
from collections.abc import Iterable, Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from artifact.language import LanguageVariant
from artifact.variant import Variant
from report.difference import Differences
from report.load import LoadReport
from report.load_tables import how_tested, invalid, load_headline, load_table, not_tested, tries_table
from report.tables import (
    Table,
    around_engine,
    energy,
    from_text,
    headline,
    how_measured,
    noise,
    not_measured,
    on_device,
    slow_calls,
    summary,
    why_not,
    workloads,
)
from report.tables_difference import controls as difference_controls
from report.tables_difference import headline as difference_headline
from report.tables_difference import reading as difference_reading
from report.tables_difference import tables as difference_tables
from report.variants import about
from report.verdict import Verdict

PLAIN_WIDTH = 118
ANY_WIDTH = 1000
LINE_EVERY_S = 10


def console(*, stderr: bool = False) -> Console:
    """A console that does not wrap tables at 80 columns when it is written to a file."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


def show_verdict(out: Console, verdict: Verdict) -> None:
    """The noise of the machine, then headline and tables."""
    out.print(Text(noise(verdict), style="dim"))
    for number, line in enumerate(headline(verdict)):
        out.print(Text(line, style="bold green" if number == 0 and verdict.deployable else ""))
    out.print()
    show_table(out, summary(verdict))
    for make in (why_not, workloads, slow_calls, on_device, energy, from_text, around_engine, not_measured):
        if table := make(verdict):
            show_table(out, table)
    for warning in verdict.warnings:
        out.print(Text(f"Warning: {warning}", style="yellow"))
    show_lines(out, how_measured(verdict)[:3])


def show_variants(out: Console, variants: Sequence[Variant | LanguageVariant]) -> None:
    """What an export made."""
    shown = about(variants)
    show_table(out, shown.table)
    for line in shown.notes:
        out.print(Text(line))
    show_lines(out, shown.reading)


def show_differences(out: Console, differences: Differences) -> None:
    """Each later run beside the base: the answer, the tables, and what makes them less certain."""
    for item in differences.differences:
        out.print(Text(f"{item.later} beside {item.base}", style="bold"))
        for number, line in enumerate(difference_headline(differences, item)):
            out.print(Text(line, style="bold red" if number < len(item.regressions) else ""))
        out.print()
        for table in difference_tables(item):
            show_table(out, table)
        out.print(Text(difference_controls(item)))
        for warning in item.warnings:
            out.print(Text(f"Warning: {warning}", style="yellow"))
    show_lines(out, difference_reading(differences))


def show_load(out: Console, report: LoadReport) -> None:
    """The rates that hold, then every test, what LoadGen objects to, and how it was tested."""
    for line in load_headline(report):
        out.print(Text(line, style="bold green"))
    out.print()
    for table in (load_table(report), tries_table(report), not_tested(report)):
        if table:
            show_table(out, table)
    for line in invalid(report):
        out.print(Text(line))
    for warning in report.warnings:
        out.print(Text(f"Warning: {warning}", style="yellow"))
    show_lines(out, how_tested(report)[:3])


def show_table(out: Console, table: Table) -> None:
    """One table, its cells broken only where the console is too narrow for whole ones."""
    wide = _draw(table, broken=False)
    room = Measurement.get(out, out.options.update(max_width=ANY_WIDTH), wide).maximum
    out.print(wide if room <= out.width else _draw(table, broken=True))
    out.print()


def _draw(table: Table, *, broken: bool) -> RichTable:
    """Numbers align at the right, names and sentences at the left; a ratio and its interval stay together."""
    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 0 if broken else 1, 0, 1),
    )
    for position, header in enumerate(table.headers):
        cells = [row[position] for row in table.rows]
        whole = position == 0 or any("×" in cell for cell in cells)
        drawn.add_column(
            header, justify="right" if table.is_numeric(position) else "left", header_style="dim", no_wrap=whole
        )
    for number, row in enumerate(table.rows):
        texts = (Text(cell if broken else cell.replace("\n", "  ")) for cell in row)
        drawn.add_row(*texts, style="bold green" if number in table.strong else "")
    return drawn


def show_lines(out: Console, lines: Iterable[str]) -> None:
    """Sentences of lesser weight."""
    for line in lines:
        out.print(Text(line, style="dim"))


class ProgressBar:
    """Draws progress on standard error; nothing is drawn by a thread, so nothing is drawn while something is timed."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._stage = ""
        self._began = self._last_line = 0.0
        self._done = self._total = self._done_before = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = monotonic()
        counted = total != self._total and self._done == self._done_before  # its steps, only now
        first = stage != self._stage or counted
        if first:
            self._stage, self._began, self._last_line, self._done_before = stage, now, 0.0, done
        self._done, self._total = done, total
        if self._console.is_terminal:
            self._draw(stage, done, total, note, first)
        elif first or now - self._last_line >= LINE_EVERY_S or done == total:
            self._last_line = now
            made = done - self._done_before  # what an earlier attempt did took this one no time
            left = f", {(now - self._began) / made * (total - done):.0f} s left" if made > 0 and done < total else ""
            self._console.print(Text(f"  {stage} {done}/{total}{left}{', ' if note else ''}{note}"))

    def _draw(self, stage: str, done: int, total: int, note: str, first: bool) -> None:
        if first:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(stage, total=total, completed=done, note=note)
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        self._bar.refresh()
