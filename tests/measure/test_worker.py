import gc
import json
import threading
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.judged import Judged
from artifact.predict.tokens import TextEncoder, TextLimits
from measure import answering
from measure.messages import ENCODER, AnyRequest, Block, Drive, Explain, Probe, Score, WarmUp, Weigh
from measure.traffic import Scenario, Traffic
from measure.worker import serve
from measure.workload import Inputs, tokenizing
from runtimes import registry
from runtimes.base import Batch, Outputs
from tests.conftest import TEXTS
from tests.fakes import FAKE, EngineRuntime, FakeRuntime
from tests.measure.conftest import Opens

NATURAL, IN_TURN, OVERLAPPED = 1, 2, 3
"""Where the workloads of `text_opens` stand."""

SINGLE_STREAM = Traffic(scenario=Scenario.SINGLE_STREAM, duration_s=0.01, max_batch=1)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.REGISTRY, "fake", FAKE)
    yield
    gc.unfreeze()  # the worker froze what this process held


def ask(*requests: AnyRequest | bytes) -> list[dict[str, Any]]:
    """The replies to these requests, as a reader of plain JSON lines sees them."""
    lines = [request if isinstance(request, bytes) else ENCODER.encode(request) for request in requests]
    replies = BytesIO()
    serve(BytesIO(b"".join(line + b"\n" for line in lines)), replies)
    return [json.loads(line) for line in replies.getvalue().splitlines()]


def test_every_request_has_one_reply_in_order(opens: Opens, tmp_path: Path) -> None:
    replies = ask(
        Probe(runtimes=("fake", "null")),
        opens("good"),
        WarmUp(workload=0, limit_s=0),
        Block(workload=1, passes=2),
        Score(batch_size=4, path=str(tmp_path / "logits.npz")),
        Weigh(),
        Explain(workload=0),
        Drive(traffic=SINGLE_STREAM, folder=str(tmp_path)),
    )
    names = ["Probed", "Opened", "Timed", "Timed", "Scored", "Weighed", "Explained", "Driven"]
    assert [reply["type"] for reply in replies] == names
    assert [found["runtime"] for found in replies[0]["available"]] == ["fake", "null"]
    assert len(replies[2]["samples_s"]) >= 3
    assert len(replies[3]["samples_s"]) == 2 * 6
    assert replies[3]["primer_s"] > 0
    assert replies[5]["peak_device_bytes"] is None
    assert replies[6]["executed"] == {"kernels": {"sum": 2}, "conversions": 0, "copies": None}
    assert len(replies[7]["observed"]["latencies_s"]) == replies[7]["observed"]["batches"]["1"] >= 64


@pytest.mark.parametrize(("word", "samples"), [("good", 0), ("device", 2 * 6)])
def test_a_device_is_timed_as_often_as_the_host(opens: Opens, word: str, samples: int) -> None:
    _, timed = ask(opens(word), Block(workload=1, passes=2))
    assert len(timed["samples_s"]) == 2 * 6
    assert len(timed["device_samples_s"]) == samples


def test_opening_tells_what_ran_and_how_long_each_part_took(opens: Opens) -> None:
    (opened,) = ask(opens("good"))
    assert (opened["info"]["runtime"], opened["info"]["threads"]) == ("fake", 1)
    assert min(opened[name] for name in ("import_s", "load_s", "first_run_s")) >= 0
    assert opened["baseline_memory"]["uss_bytes"] > 0


@pytest.mark.parametrize(
    ("word", "reason", "hint", "ours"),
    [
        ("refuses", "the fake refuses", "ask another", False),
        ("breaks", "ZeroDivisionError: the fake broke", "", True),
    ],
)
def test_a_failure_is_a_reply_and_not_the_end(opens: Opens, word: str, reason: str, hint: str, ours: bool) -> None:
    failed, probed = ask(opens(word), Probe(runtimes=()))
    assert failed == {"type": "Failed", "reason": reason, "hint": hint, "ours": ours}
    assert probed["type"] == "Probed"


@pytest.mark.parametrize(
    "request_",
    [
        Block(workload=0, passes=1),
        Weigh(),
        Explain(workload=0),
        Score(batch_size=1, path="nowhere"),
        Drive(traffic=SINGLE_STREAM, folder="nowhere"),
    ],
)
def test_nothing_is_measured_before_a_candidate_is_open(request_: AnyRequest) -> None:
    (failed,) = ask(request_)
    assert failed["ours"]
    assert "no candidate is open" in failed["reason"]


@pytest.mark.parametrize("line", [b"", b"garbage", b"{}", b'{"type": "Stop"}', b'{"type": "Block", "workload": "x"}'])
def test_a_line_that_is_no_request_is_answered_too(line: bytes) -> None:
    failed, probed = ask(line, Probe(runtimes=()))
    assert (failed["type"], failed["ours"], probed["type"]) == ("Failed", True, "Probed")


def test_an_unknown_runtime_is_named(opens: Opens) -> None:
    (failed,) = ask(Probe(runtimes=("abacus",)))
    assert "abacus" in failed["reason"]
    assert not failed["ours"]


@pytest.mark.parametrize("batch_size", [1, 4, 6, None])
def test_answers_are_written_in_the_order_of_the_texts(
    opens: Opens, inputs: Inputs, tmp_path: Path, batch_size: int | None
) -> None:
    path = tmp_path / "logits.npz"
    ask(opens("good"), Score(batch_size=batch_size, path=str(path)))
    expected = [(sum(item["input_ids"]), len(item["input_ids"])) for item in inputs.evaluation]
    assert len(set(expected)) == len(TEXTS)
    np.testing.assert_array_equal(np.load(path)["answers"], expected)


def test_only_the_inputs_that_the_model_takes_are_given_and_the_first_call_is_one_row(
    monkeypatch: pytest.MonkeyPatch, opens: Opens
) -> None:
    opened: list[EngineRuntime] = []

    def enter(self: EngineRuntime) -> EngineRuntime:
        opened.append(self)
        FakeRuntime.__enter__(self)
        return self

    monkeypatch.setattr(EngineRuntime, "__enter__", enter)
    ask(opens("good"), Block(workload=0, passes=2))
    (runtime,) = opened
    assert all(list(batch) == list(runtime.info.input_names) for batch in runtime.batches)
    assert [batch["input_ids"].shape[0] for batch in runtime.batches] == [1, 2, 2, 2]  # first, primer, two passes


@pytest.mark.parametrize("number", [IN_TURN, OVERLAPPED])
def test_a_sample_from_text_is_a_whole_pass_and_tells_the_tokenisers_part(text_opens: Opens, number: int) -> None:
    _, warm, timed = ask(text_opens("good"), WarmUp(workload=number, limit_s=0), Block(workload=number, passes=5))
    assert len(warm["samples_s"]) >= 3
    assert warm["tokenise_s"] == []
    assert timed["primer_s"] > 0
    assert len(timed["samples_s"]) == len(timed["tokenise_s"]) == 5
    assert all(0 < spent < sample for spent, sample in zip(timed["tokenise_s"], timed["samples_s"], strict=True))


@pytest.mark.parametrize("number", [0, NATURAL])
def test_tokenised_work_has_no_seconds_of_tokenising(text_opens: Opens, number: int) -> None:
    assert ask(text_opens("good"), Block(workload=number, passes=2))[1]["tokenise_s"] == []


@pytest.mark.parametrize("number", [IN_TURN, OVERLAPPED])
def test_from_text_the_engine_runs_the_batches_of_the_natural_mix(
    monkeypatch: pytest.MonkeyPatch, text_opens: Opens, number: int
) -> None:
    seen: list[list[list[int]]] = []
    run = FakeRuntime.run

    def watched(self: FakeRuntime, batch: Batch) -> Outputs:
        seen.append(batch["input_ids"].tolist())
        return run(self, batch)

    monkeypatch.setattr(FakeRuntime, "run", watched)
    ask(text_opens("good"), Block(workload=NATURAL, passes=1), Block(workload=number, passes=1))
    first, primer, *rest = seen
    natural, passes = rest[:6], rest[6:]
    assert passes == [*natural, *natural]  # the primer's pass and the timed one
    assert (first, primer) == (natural[0][:1], natural[0])


@pytest.mark.parametrize(("number", "elsewhere"), [(IN_TURN, False), (OVERLAPPED, True)])
def test_only_the_overlapped_workload_tokenises_in_another_thread(
    monkeypatch: pytest.MonkeyPatch, text_opens: Opens, number: int, elsewhere: bool
) -> None:
    threads: set[int] = set()
    encode = TextEncoder.encode

    def watched(self: TextEncoder, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        threads.add(threading.get_ident())
        return encode(self, texts)

    request = text_opens("good")
    monkeypatch.setattr(TextEncoder, "encode", watched)
    ask(request, WarmUp(workload=number, limit_s=0), Block(workload=number, passes=1))
    assert threads
    assert (threading.get_ident() not in threads) is elsewhere


def test_the_tokenizer_is_opened_once_and_by_the_first_who_needs_it(
    monkeypatch: pytest.MonkeyPatch, text_opens: Opens
) -> None:
    opened: list[Path] = []

    def watched(folder: Path, limits: TextLimits, judged: Judged) -> TextEncoder:
        opened.append(folder)
        return tokenizing(folder, limits, judged)

    monkeypatch.setattr(answering, "tokenizing", watched)
    ask(text_opens("good"), WarmUp(workload=NATURAL, limit_s=0), Block(workload=0, passes=1))
    assert opened == []
    ask(text_opens("good"), *(Block(workload=number, passes=1) for number in (IN_TURN, OVERLAPPED, IN_TURN)))
    assert [folder.name for folder in opened] == ["tokens"]


@pytest.mark.parametrize("damage", ["{", pytest.param('{"version": "1.0"}', marks=pytest.mark.exhaustive), None])
def test_a_tokenizer_that_cannot_be_read_is_named_and_tokenised_work_goes_on(
    text_opens: Opens, tmp_path: Path, damage: str | None
) -> None:
    request = text_opens("good")
    path = tmp_path / "tokens" / "tokenizer.json"
    path.unlink() if damage is None else path.write_text(damage)
    _, failed, timed = ask(request, WarmUp(workload=IN_TURN, limit_s=0), Block(workload=0, passes=1))
    assert (failed["type"], failed["ours"], failed["hint"]) == ("Failed", False, "save the tokenizer again")
    assert f"{path} cannot be read" in failed["reason"]
    assert timed["type"] == "Timed"


@pytest.mark.parametrize("number", [IN_TURN, OVERLAPPED])
def test_an_error_of_the_tokenizer_is_told_as_itself(
    monkeypatch: pytest.MonkeyPatch, text_opens: Opens, number: int
) -> None:
    def encode(self: TextEncoder, texts: list[str]) -> None:
        raise ZeroDivisionError("the tokenizer broke")

    request = text_opens("good")
    monkeypatch.setattr(TextEncoder, "encode", encode)
    _, failed = ask(request, Block(workload=number, passes=1))
    assert failed["reason"] == "ZeroDivisionError: the tokenizer broke"


def test_the_runtime_is_released_when_the_input_ends(monkeypatch: pytest.MonkeyPatch, opens: Opens) -> None:
    released: list[object] = []
    monkeypatch.setattr(FakeRuntime, "__exit__", lambda self, *rest: released.append(self))
    ask(opens("good"))
    assert len(released) == 1
