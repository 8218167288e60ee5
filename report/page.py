"""`report.html`: the verdict and its raw samples as one page that needs nothing else, neither network nor script."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import log
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from measure.percentiles import least_samples
from measure.records import Record, Session
from measure.workload import Phase
from report.break_even import BreakEven, Cell, break_even
from report.charts import Column, bounds, calls, first_answers, hue, sizes, speeds
from report.evidence import PERCENTILES, Evidence
from report.explain import explanations
from report.figures import seconds, started, times
from report.markdown import reading
from report.samples import DRAWN, Calls
from report.svg import element
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
    summary,
    what_ran,
    why_not,
    workloads,
)
from report.tradeoff import NARROW, WIDE, tradeoff, tradeoff_points
from report.verdict import Row, Verdict

UNBROKEN = 24
"""Letters of a cell's line that stay on one line."""

MARKED = re.compile(r"`([^`]*)`|(\S+× \[[^\]]*\])")
"""Code, and a ratio with its interval."""

HOTTEST = 42
"""Per cent of colour in the cell of a winner that is twice as fast as the second, or more."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table and its drawings: `drawn[n]` stands behind the n-th column of words and takes `share` per cent of the
    width.

    On a phone each row is a card, with `across` short cells side by side; a drawing stands below its figure, or
    `beside` it.
    """

    table: Table
    drawn: Mapping[int, Column] = field(default_factory=dict)
    share: int = 20
    across: int = 3
    beside: bool = False

    def kind(self, position: int) -> str:
        """CSS classes of a column: `number` aligns at the right, `line` has a line of a card for itself, and `lead`
        has one above its drawing."""
        cells = [row[position] for row in self.table.rows]
        kinds = {
            "number": self.table.is_numeric(position),
            "line": any(len(line) > UNBROKEN for cell in cells for line in cell.split("\n")),
            "lead": position in self.drawn,
        }
        return " ".join(name for name, holds in kinds.items() if holds)


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """The plot of accuracy against speed at both widths, and why the hollow points are hollow."""

    drawings: tuple[Markup, ...]
    rejected: tuple[tuple[str, str], ...]


def render_page(verdict: Verdict, records: Sequence[Record]) -> str:
    """The page as HTML, made of a verdict and the records that it was derived from; the same ones give the same page.

    Raises `ValueError` when there is no session among the records.
    """
    evidence = Evidence(records, verdict.policy)
    rows = [row for row in verdict.rows if row.measured]
    others, missing, texts = why_not(verdict), not_measured(verdict), from_text(verdict)
    by_workload = (workloads(verdict), on_device(verdict), energy(verdict), texts, around_engine(verdict))
    where = break_even(verdict, evidence)
    return _template().render(
        verdict=verdict,
        headline=headline(verdict),
        summary=Grid(summary(verdict), {1: speeds(rows)}, share=23, across=5) if rows else None,
        noise=noise(verdict),
        others=Grid(others) if others else None,
        tradeoff=_tradeoff(verdict),
        map=where,
        tally=_tally(where) if where else "",
        workloads=[Grid(table) for table in by_workload if table] if rows else [],
        calls=[_calls(rows, spec.name, evidence) for spec in evidence.session.workloads] if rows else [],
        costs=_costs(verdict, rows) if rows else None,
        ran=Grid(what_ran(verdict)) if rows else None,
        missing=Grid(missing) if missing else None,
        explanations=explanations(verdict),
        method=[line.partition(": ")[::2] for line in how_measured(verdict)],
        reading=reading(verdict),
        most_drawn=DRAWN,
        needed=", ".join(f"{_short(name)} needs {least_samples(share)} calls" for name, share in PERCENTILES.items()),
    )


@cache
def _template() -> Template:
    here = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here.filters |= {
        "breakable": _breakable,
        "cell": _cell,
        "heat": _heat,
        "hue": hue,
        "sentence": _sentence,
        "started": started,
        "times": times,
    }
    return here.get_template("page.html.j2")


def _tradeoff(verdict: Verdict) -> Tradeoff | None:
    """`None` where no candidate has both a speed and a scored accuracy."""
    points = tradeoff_points(verdict)
    if not points:
        return None
    floors = sorted({round(row.quality.floor_fraction, 4) for row in verdict.rows if row.measured and row.quality})
    return Tradeoff(
        tuple(
            tradeoff(points, floors, verdict.baseline or "the baseline", sheet, verdict.measure)
            for sheet in (WIDE, NARROW)
        ),
        tuple((point.name, point.reason) for point in points if point.reason is not None),
    )


def _tally(found: BreakEven) -> str:
    """The map in a sentence."""
    cells = list(found.cells.values())
    wins = {cell.winner.name: 0 for cell in cells}
    for cell in cells:
        wins[cell.winner.name] += 1
    ranked = sorted(wins.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{name} in {count}" for name, count in ranked)
    close = sum(cell.is_close for cell in cells)
    many = {0: "None is", 1: "One is", len(cells): "All are"}.get(close, f"{close} are")
    undecided = sum(cell.is_undecided for cell in cells)
    not_decided = f" {undecided} are not decided: too few runs." if undecided else ""
    return f"Fastest of {len(cells)} workloads: {told}. {many} too close to call.{not_decided}"


def _calls(rows: Sequence[Row], workload: str, evidence: Evidence) -> Grid:
    """Single calls of one workload: each drawn, their median, and the bounds of the percentiles that they support."""
    measurements = {entrant.name: items for entrant, items in evidence.by_entrant.items()}
    found = [Calls.of(measurements[row.name], workload) for row in rows]
    table = Table(
        title=_title(workload, evidence.session),
        headers=("candidate", "median", *(f"{_short(name)} ≤" for name in PERCENTILES), "calls"),
        rows=tuple(
            (
                row.name,
                seconds(item.median_s),
                *map(seconds, bounds(row, workload)),
                str(len(item.together)),
            )
            for row, item in zip(rows, found, strict=True)
        ),
    )
    return Grid(table, {0: calls(rows, found, workload)}, share=46, across=5)


def _title(workload: str, session: Session) -> str:
    """What one timed call of a workload is."""
    spec = next(spec for spec in session.workloads if spec.name == workload)
    lengths = [length for _, length in spec.shapes]
    if spec.phase is Phase.READ and spec.heard_s is not None:
        return (
            f"{spec.name}: from a recording's features to the first token, batch × seconds with the silence behind it"
        )
    if spec.phase is Phase.READ:
        return f"{spec.name}: from an empty cache to the first token after a prompt, batch × tokens"
    if spec.phase is Phase.WRITE:
        return f"{spec.name}: one token for each row of the batch, with its prompt in the cache"
    if spec.from_text:
        return f"{spec.name}: each is a pass over {spec.texts} texts, from raw text to what is answered"
    if spec.seen is not None:
        return f"{spec.name}: a call of {spec.batch_size} pictures of {spec.seen[0]} × {spec.seen[1]}"
    if len(set(lengths)) == 1:
        return f"{spec.name}: a call of {spec.batch_size} × {lengths[0]} tokens"
    return f"{spec.name}: a call of {spec.batch_size} texts padded to {min(lengths)}–{max(lengths)} tokens"


def _short(name: str) -> str:
    """`p90` of `p90_s`."""
    return name.removesuffix("_s")


def _costs(verdict: Verdict, rows: Sequence[Row]) -> Grid:
    """First answer, memory and file, with the summary's own figures."""
    table = summary(verdict)
    kept = [table.headers.index(header) for header in ("candidate", "first answer", "memory", "file")]
    return Grid(
        Table(
            title="From starting a process to its first answer, memory above a process without an engine, weight files",
            headers=tuple(table.headers[position] for position in kept),
            rows=tuple(tuple(row[position] for position in kept) for row in table.rows),
            strong=table.strong,
        ),
        {
            1: first_answers(rows),
            2: sizes(rows, [row.memory_bytes for row in rows]),
            3: sizes(rows, [row.model_bytes for row in rows]),
        },
        across=4,
        beside=True,
    )


def _heat(cell: Cell) -> int:
    """Per cent of the winner's colour: more for a greater lead, none where it is too close to call."""
    lead = 1.0 if cell.lead is None or cell.is_close or cell.is_undecided else cell.lead.ratio
    return round(HOTTEST * min(1.0, log(max(1.0, lead)) / log(2)))


def _sentence(text: str) -> Markup:
    """Words between backticks are code, and a ratio and its interval stay together."""
    parts: list[str] = []
    end = 0
    for found in MARKED.finditer(text):
        code, ratio = found.groups()
        parts += text[end : found.start()], element("code", code) if ratio is None else _whole(ratio)
        end = found.end()
    return Markup("").join((*parts, text[end:]))


def _breakable(name: str, unbroken: int = UNBROKEN) -> Markup:
    """A candidate's name: one of more letters may be broken behind its runtime and before an option, nowhere else."""
    parts = re.split(r"(?<=/)|(?=\+)", name) if len(name) > unbroken else (name,)
    return Markup("<wbr>").join(_whole(part) for part in parts if part)


def _cell(text: str) -> Markup:
    """A cell, broken at its line breaks first; a figure keeps its unit, and an interval its ends."""
    first, *more = text.split("\n")
    begin = _whole(first) if len(first) <= UNBROKEN else first
    below = (element("span", Markup(" ").join(map(_whole, line.split(" "))), class_="more") for line in more)
    return Markup(" ").join((begin, *below))


def _whole(text: str) -> Markup:
    """Words that stay on one line."""
    return element("span", text, class_="whole")
