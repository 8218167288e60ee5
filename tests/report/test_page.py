"""`report.html`: a well-formed page that needs nothing else, whatever a comparison found and whatever its names are."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from artifact.precision import Precision
from artifact.run_folder import RunFolder
from measure.records import Measurement, Record, Role, append
from report.files import write_verdict
from report.judge import judge
from report.page import Grid, render_page
from report.tables import Table
from tests.report.records import (
    SLOW,
    failure,
    from_text,
    measurements,
    of_one_process,
    quality,
    session,
    two_fixed,
    usual,
)

VOID = {"meta", "br", "wbr"}
EVIL = '"><img src=x onerror=alert(1)>&'


class Page(HTMLParser):
    """A page taken apart: every tag with its attributes and the words in it, and what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self.misplaced: list[str] = []
        self.drawn: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.misplaced += self._open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if len(dict(attrs)) < len(attrs):
            self.misplaced.append(f"{tag} has an attribute twice")
        if tag == "title" and self._open[-1] == "svg":
            self.drawn.append(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.misplaced.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if data.strip():
            for tag in set(self._open):
                self.words.setdefault(tag, []).append(data.strip())

    def count(self, tag: str, kind: str | None = None) -> int:
        return sum(
            name == tag and (kind is None or kind in (attributes.get("class") or "").split())
            for name, attributes in self.tags
        )


def page(records: Sequence[Record]) -> Page:
    return Page(render_page(judge(records), records))


def cells(text: str, header: str) -> list[str]:
    """The words in every cell of the columns of that name."""
    parts = text.split(f'data-label="{header}">')[1:]
    return [" ".join(Page(part.partition("</td>")[0]).words["span"]) for part in parts]


def failures_only() -> list[Record]:
    return [session(), failure("torch-cuda", None, stage="probe", reason="no CUDA GPU", hint="check the driver")]


def one_candidate() -> list[Record]:
    return [session(), *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),))]


def without_quality() -> list[Record]:
    return [
        msgspec.structs.replace(item, quality=()) if isinstance(item, Measurement) else item for item in two_fixed({})
    ]


def without_control() -> list[Record]:
    return [item for item in usual() if not isinstance(item, Measurement) or item.role is not Role.CONTROL]


def rejected() -> list[Record]:
    return usual(int8_scores=(quality(0.80, wins=10, losses=40),))


def one_process() -> list[Record]:
    return [item for item in usual() if not isinstance(item, Measurement) or item.replicate == 0]


KINDS: dict[str, Callable[[], list[Record]]] = {
    "usual": usual,
    "two fixed workloads": lambda: two_fixed({"torch-cpu/bf16": 0.002}),
    "from text": from_text,
    "one candidate": one_candidate,
    "one process": one_process,
    "without quality": without_quality,
    "without control": without_control,
    "rejected": rejected,
    "failures only": failures_only,
    "a session alone": lambda: [session()],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_well_formed_and_needs_nothing_else(kind: str) -> None:
    records = KINDS[kind]()
    text = render_page(judge(records), records)
    found = Page(text)
    assert found.misplaced == []
    ids = Counter(attributes["id"] for _, attributes in found.tags if "id" in attributes)
    assert set(ids.values()) <= {1}
    assert {attributes.get("lang") for tag, attributes in found.tags if tag == "html"} == {"en"}
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    attributes = [(key, value or "") for _, each in found.tags for key, value in each.items()]
    links = {value for key, value in attributes if key in ("src", "href", "action", "data", "srcset")}
    assert {link[:1] for link in links} <= {"#"}
    assert {link[1:] for link in links} <= set(ids)
    assert not [key for key, _ in attributes if key.startswith("on")]
    style = " ".join(found.words["style"])
    assert "url(" not in style
    assert "@import" not in style
    labelled = {value for key, value in attributes if key == "aria-labelledby"}
    assert labelled <= set(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_headers_and_drawings_have_words(kind: str) -> None:
    records = KINDS[kind]()
    found = page(records)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in found.tags if tag == "th")
    assert found.count("table") == found.count("caption")
    drawings = [attributes for tag, attributes in found.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(drawings) == len(found.drawn)
    for tag, attributes in found.tags:
        if tag == "svg" and attributes.get("role") != "img":
            assert attributes.get("aria-hidden") == "true" or "preserveaspectratio" in attributes


def test_the_page_begins_with_the_answer_and_keeps_the_order() -> None:
    records = two_fixed({})
    records.append(failure("ort-cuda", None, stage="probe", reason="no provider"))
    quiet_control = [item for item in records if not isinstance(item, Measurement) or item.role is not Role.CONTROL]
    found = page(quiet_control)
    assert " ".join(found.words["h1"]).startswith("Ship ort-cpu/int8-dynamic: 4.00×")
    assert found.words["h2"] == [
        "Every candidate",
        "Accuracy against speed",
        "Who wins where",
        "Latency by workload",
        "Costs",
        "What ran, as the engines tell it",
        "Not measured",
        "Warnings",
        "The machine, and how it was measured",
        "How to read it",
    ]


def test_the_noise_is_drawn_before_the_winner() -> None:
    text = render_page(judge(usual()), usual())
    table = text[text.index("<tbody") : text.index("</tbody>")]
    drawn = [part.partition(":")[0] for part in table.split("<title>")[1:]]
    assert drawn[:3] == ["torch-cpu/fp32", "torch-cpu/fp32 (A/A)", "ort-cpu/int8-dynamic"]
    assert len(drawn) == 5


def test_cells_are_those_of_the_report() -> None:
    """Ratios, accuracies and reasons stand on the page as they do in `report.md`."""
    words = " ".join(page(rejected()).words["body"])
    for text in ("4.00×", "0.800 ✗", "baseline", "2.50 s", "23.0 MB", "torch finds no CUDA GPU", "check the driver"):
        assert text in words
    assert "accuracy 0.800 (batches: served) is below the floor 0.822" in words


def test_the_rejected_are_hollow_and_named_with_their_reason() -> None:
    text = render_page(judge(rejected()), rejected())
    assert text.count('class="hollow ') == 2  # wide and narrow
    caption = " ".join(Page(text).words["figcaption"])
    assert "Hollow points cannot be recommended" in caption
    assert "below the floor" in caption
    assert "Hollow" not in " ".join(page(usual()).words["figcaption"])


def test_what_a_comparison_lacks_is_left_out_or_said() -> None:
    assert "Who wins where" not in page(usual()).words["h2"]
    assert "no candidate has both a speed and a scored accuracy" in " ".join(page(without_quality()).words["p"])
    assert "A/A control: none was measured." in " ".join(page(without_control()).words["p"])
    assert "Warnings" in page(without_control()).words["h2"]
    nothing = page(failures_only())
    assert nothing.words["h1"] == ["Nothing that was measured can be recommended for CPUs: see the reasons below."]
    assert nothing.words["h2"][0] == "Not measured"
    assert nothing.count("svg") == 0


def test_close_cells_are_hatched_and_say_so() -> None:
    records = two_fixed({"torch-cpu/bf16": 0.00251, "ort-cpu/int8-dynamic": 0.0025})
    found = page(records)
    assert found.count("td", "close") == 1
    assert found.words["i"] == ["too close to call"]
    assert found.count("td", "none") == 1  # the natural mix is measured at the largest batch size alone
    told = "Fastest of 3 workloads: ort-cpu/int8-dynamic in 3. One is too close to call."
    assert told in found.words["p"]


def test_cells_of_one_process_are_not_decided() -> None:
    found = page(of_one_process(two_fixed({"torch-cpu/bf16": 0.00251, "ort-cpu/int8-dynamic": 0.0025})))
    assert set(found.words["i"]) == {"not decided"}
    told = (
        "Fastest of 3 workloads: ort-cpu/int8-dynamic in 3. None is too close to call. 3 are not decided: too few runs."
    )
    assert told in found.words["p"]


def test_percentiles_are_blank_where_too_few_calls_support_them() -> None:
    """24 calls of `1×16` support none of them, and 32 of the natural mix neither; 72 support p90 alone."""
    text = render_page(judge(usual()), usual())
    assert cells(text, "p90 ≤") == ["–"] * 10
    more = [
        msgspec.structs.replace(
            item,
            blocks=tuple(
                msgspec.structs.replace(block, samples_s=block.samples_s * 3) if block.workload == "1×16" else block
                for block in item.blocks
            ),
        )
        if isinstance(item, Measurement)
        else item
        for item in usual()
    ]
    text = render_page(judge(more), more)
    assert cells(text, "p90 ≤")[:5] == ["10.0 ms", "10.0 ms", "2.51 ms", "5.02 ms", "8.03 ms"]
    assert cells(text, "p90 ≤")[5:] == ["–"] * 5
    assert set(cells(text, "p95 ≤")) == {"–"}


def test_hostile_names_are_words() -> None:
    evil = f"{EVIL}/fp32"
    records: list[Record] = [
        msgspec.structs.replace(session(asked=("torch-cpu/fp32", evil)), data=f"{EVIL}.csv", versions={EVIL: EVIL}),
        *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),)),
        *measurements(evil, SLOW, scores=(quality(0.5, losses=330),), portable=True),
        failure(EVIL, Precision.BF16, stage="<script>alert(2)</script>", reason=EVIL, hint="</style><script>"),
    ]
    text = render_page(judge(records), records)
    found = Page(text)
    assert found.misplaced == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"img", "script"}
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    words = " ".join(found.words["body"])
    for part in (evil.partition("/")[0], f"{EVIL}.csv", "<script>alert(2)</script>", "</style><script>"):
        assert part in words


def test_the_same_records_give_the_same_page() -> None:
    assert render_page(judge(usual()), usual()) == render_page(judge(usual()), usual())


def test_many_calls_do_not_make_a_large_page() -> None:
    """20,000 calls of each of five candidates on each of two workloads."""
    records = [
        msgspec.structs.replace(
            item,
            blocks=tuple(
                msgspec.structs.replace(
                    block, samples_s=tuple(block.samples_s[0] * (1 + n % 97 / 50) for n in range(2500))
                )
                for block in item.blocks
            ),
        )
        if isinstance(item, Measurement)
        else item
        for item in usual()
    ]
    assert len(render_page(judge(records), records).encode()) < 100_000


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_words_and_marks_stand_out_from_the_paper_by_day_and_by_night(scheme: int) -> None:
    """At least 4.5 for words and 3 for marks, as WCAG's level AA asks."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = Page(render_page(judge(usual()), usual())).words["style"][0]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split(":root {")[1 + scheme]))
    marks = [colours[name] for name in colours if name.startswith("hue-") or name == "grey"]
    assert len(marks) == 7
    for ground in (colours["paper"], colours["tint"]):
        assert all(contrast(colours[name], ground) >= 4.5 for name in ("ink", "soft", "accent"))
        assert all(contrast(mark, ground) >= 3 for mark in marks)


def test_a_column_of_figures_aligns_and_long_words_get_a_line() -> None:
    table = Table("t", ("candidate", "speed", "why"), (("a", "1 ms", "x" * 30), ("b", "–", "y")))
    assert [Grid(table).kind(position) for position in range(3)] == ["", "number", "line"]


def test_the_page_is_written_beside_the_report(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for record in usual():
        append(run.measurements, record)
    verdict = write_verdict(run)
    assert run.page == tmp_path / "report.html"
    assert run.page.read_text(encoding="utf-8") == render_page(verdict, usual())
