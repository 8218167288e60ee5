import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from artifact.examples import Examples, read_examples
from artifact.pack import pack
from artifact.precision import Precision
from artifact.predict.cores import usable_cores
from artifact.run_folder import RunFolder
from errors import UserError
from measure.compare import Comparison, choose_anchor, compare, probe_runtimes
from measure.machine import read_machine, watch_load
from measure.process import KILLED
from measure.records import Failure, Measurement, Record, Role, Session
from measure.reference import load_reference
from measure.source import ModelSource, find_models
from measure.worker import MEMORY
from measure.workload import FromText, Length
from report.judge import judge
from runtimes.base import Availability, Candidate, Lack
from runtimes.registry import REGISTRY, candidates, known_candidate
from tests.conftest import copied
from tests.fakes import FAKE as FAKE_ENTRY
from tests.measure.conftest import PLAN, MakeSource
from tests.measure.test_process import gone

REFERENCE = Candidate("torch-cpu", Precision.FP32)
ORT, INT8 = (Candidate("ort-cpu", precision) for precision in (Precision.FP32, Precision.INT8_DYNAMIC))
FAKE = tuple(Candidate("fake", precision) for precision in (Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC))
ONE = msgspec.structs.replace(PLAN, replicates=1, most_replicates=1)
GOOD = {Precision.FP32: "good", Precision.BF16: "good", Precision.INT8_DYNAMIC: "good"}


def measurements(records: Sequence[Record]) -> list[Measurement]:
    return [record for record in records if isinstance(record, Measurement)]


def failures(records: Sequence[Record]) -> list[Failure]:
    return [record for record in records if isinstance(record, Failure)]


def sessions(records: Sequence[Record]) -> list[Session]:
    return [record for record in records if isinstance(record, Session)]


def pairs(records: Sequence[Record]) -> Counter[tuple[str, int]]:
    """How often each entrant was measured in each replicate."""
    return Counter((found.entrant.name, found.replicate) for found in measurements(records))


@pytest.fixture(scope="module")
def examples(reviews: Path) -> Examples:
    found = read_examples(reviews)
    return found.select(range(0, len(found), 8))  # 50


def task(source: ModelSource, examples: Examples, folder: Path, *asked: Candidate, **changes: Any) -> Comparison:
    usual = Comparison(
        source=source,
        examples=examples,
        candidates=asked,
        batch_sizes=(1, 4),
        lengths=(8, None),
        plan=PLAN,
        measurements=folder / "measurements.jsonl",
        reference=folder / "reference.npz",
        threads=1,
    )
    return replace(usual, **changes)


# The fake engine: real processes, no waiting for an engine to load.


@pytest.fixture
def fakes(
    make_source: MakeSource,
    examples: Examples,
    tmp_path: Path,
    fake_engine: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Comparison]:
    monkeypatch.setattr("measure.compare.watch_load", lambda: watch_load(0.01))

    def make(words: dict[Precision, str] | None = None, **changes: Any) -> Comparison:
        source = make_source(GOOD | (words or {}))
        return replace(task(source, examples, tmp_path / "run", *FAKE, lengths=(8,), plan=ONE), **changes)

    return make


def test_everyone_is_measured_once_in_each_replicate_and_never_again(fakes: Callable[..., Comparison]) -> None:
    steps: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        steps.append((done, total))

    records = compare(fakes(plan=PLAN), progress)
    names = ("fake/fp32", "fake/fp32 (A/A)", "fake/bf16", "fake/int8-dynamic")
    assert pairs(records) == {(name, replicate): 1 for name in names for replicate in range(2)}
    assert [found.role for found in measurements(records)][::4] == [Role.ANCHOR] * 2
    end = steps[-1][1]
    assert steps[1:] == [(done, end) for done in range(end + 1)]
    steps.clear()
    assert compare(fakes(plan=PLAN), progress) == records
    assert steps == [(0, 1)]


def test_what_is_not_settled_is_measured_on_until_the_plan_ends_and_not_again(
    fakes: Callable[..., Comparison],
) -> None:
    """Calls of the fake take microseconds, which scatter too much to be told apart from so few processes."""
    plan = msgspec.structs.replace(ONE, most_replicates=3)
    task = fakes(plan=plan)
    found = compare(task)
    assert max(replicate for _, replicate in pairs(found)) == 2
    assert pairs(found)["fake/fp32", 2] == 1
    assert all(item.session == sessions(found)[0].session for item in measurements(found))
    assert compare(task) == found
    assert all(len(item.quality) == 0 for item in measurements(found) if item.replicate > 0)


def test_a_measurement_says_how_long_its_session_had_lasted(fakes: Callable[..., Comparison]) -> None:
    started = perf_counter()
    found = [(item.session_s or 0.0, item.process_s) for item in measurements(compare(fakes(plan=PLAN)))]
    assert found == sorted(found, key=lambda item: item[0])
    assert all(session_s > process_s > 0 for session_s, process_s in found)
    assert sum(process_s for _, process_s in found) < found[-1][0] < perf_counter() - started


@pytest.mark.parametrize("changes", [{}, {"replicates": 2, "full_replicates": 1}])
def test_processes_after_the_full_ones_are_lean(fakes: Callable[..., Comparison], changes: dict[str, int]) -> None:
    """Two rounds of three passes at first, then one of a single pass."""
    plan = msgspec.structs.replace(ONE, most_replicates=2, least_passes=3, block_s=0.0, lean_rounds=1, **changes)
    found = compare(fakes(plan=plan))
    batches = {workload.name: len(workload.sample_shapes) for workload in sessions(found)[0].workloads}
    made = {
        (item.replicate, block.round, len(block.samples_s) / batches[block.workload])
        for item in measurements(found)
        for block in item.blocks
    }
    assert made == {(0, 0, 3), (0, 1, 3), (1, 0, 1)}


@pytest.mark.parametrize(("lean", "rounds"), [(None, {0, 1}), (1, {0})])
def test_where_the_time_is_over_nothing_is_measured_on(
    fakes: Callable[..., Comparison], lean: int | None, rounds: set[int]
) -> None:
    plan = msgspec.structs.replace(ONE, most_replicates=3, limit_s=0.0, lean_rounds=lean)
    found = compare(fakes(plan=plan))
    assert {replicate for _, replicate in pairs(found)} == {0}
    assert {block.round for item in measurements(found) for block in item.blocks} == rounds


def test_answers_are_scored_in_the_first_replicate_and_int8_at_every_batch_size(
    fakes: Callable[..., Comparison],
) -> None:
    found = {
        (item.precision, item.replicate): [quality.batch_size for quality in item.quality]
        for item in measurements(compare(fakes(plan=PLAN)))
        if item.role is not Role.CONTROL
    }
    first = {Precision.FP32: [None], Precision.BF16: [None], Precision.INT8_DYNAMIC: [None, 1, 4]}
    assert found == {(precision, 0): sizes for precision, sizes in first.items()} | {(name, 1): [] for name in first}


def test_the_session_says_what_machine_plan_and_data_it_was(
    fakes: Callable[..., Comparison], examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("SECRET_TOKEN", "do not write this down")
    (session,) = sessions(compare(fakes()))
    assert session.machine.identity == read_machine().identity
    assert (session.plan, session.threads, session.examples) == (ONE, 1, 50)
    assert session.data_sha256 == examples.sha256
    assert [workload.name for workload in session.workloads] == ["1×8", "4×8"]
    assert session.environment["OMP_WAIT_POLICY"] == "passive"
    assert "SECRET_TOKEN" not in session.environment
    assert session.versions["numpy"] == np.__version__
    assert session.harness_floor_s
    assert session.harness_floor_s > 0
    assert session.load
    assert 0 <= session.load.busy_fraction <= 1


@pytest.mark.parametrize(
    ("word", "stage", "reason", "hint"),
    [
        ("refuses", "start", "the fake refuses", "ask another"),
        ("dies", "start", "killed by signal 9", KILLED),
        ("dies-later", "start", "killed by signal 9", KILLED),
        ("hoards", "start", "it ran out of memory: Unable to allocate", MEMORY),
    ],
)
def test_one_that_fails_is_a_row_with_its_reason_and_the_others_go_on(
    fakes: Callable[..., Comparison], word: str, stage: str, reason: str, hint: str
) -> None:
    records = compare(fakes({Precision.BF16: word}))
    (failed,) = failures(records)
    assert (failed.runtime, failed.precision, failed.role) == ("fake", Precision.BF16, Role.CANDIDATE)
    assert (failed.stage, failed.hint) == (stage, hint)
    assert reason in failed.reason
    assert failed.session == sessions(records)[0].session
    assert {name for name, _ in pairs(records)} == {"fake/fp32", "fake/fp32 (A/A)", "fake/int8-dynamic"}
    assert sum(pairs(records).values()) == 3


def test_one_that_answers_nan_is_a_row_with_its_reason_and_is_never_recommended(
    fakes: Callable[..., Comparison],
) -> None:
    records = compare(fakes({Precision.INT8_DYNAMIC: "nan"}))
    assert not failures(records)
    found = next(item for item in judge(records).rows if item.name == "fake/int8-dynamic")
    assert found.reason == "50 of 50 answers are no numbers (NaN or infinite)"


def test_one_that_is_mended_is_measured_beside_a_fresh_anchor(fakes: Callable[..., Comparison]) -> None:
    before = pairs(compare(fakes({Precision.BF16: "refuses"})))
    records = compare(fakes())
    assert pairs(records) - before == {("fake/fp32", 0): 1, ("fake/bf16", 0): 1}
    anchor, mended = measurements(records)[-2:]
    assert (anchor.role, mended.precision) == (Role.ANCHOR, Precision.BF16)
    assert anchor.session == mended.session == sessions(records)[-1].session
    assert mended.quality


def test_without_its_anchor_the_others_are_still_measured(fakes: Callable[..., Comparison]) -> None:
    records = compare(fakes({Precision.FP32: "refuses"}))
    assert {failed.role for failed in failures(records)} == {Role.ANCHOR, Role.CONTROL}
    assert {name for name, _ in pairs(records)} == {"fake/bf16", "fake/int8-dynamic"}
    assert not any(found.quality for found in measurements(records))  # there is nothing to compare with


def change_data(comparison: Comparison) -> Comparison:
    return replace(comparison, examples=comparison.examples.select(range(49)))


def change_label(comparison: Comparison) -> Comparison:
    labels = ("0" if comparison.examples.labels[0] == "1" else "1", *comparison.examples.labels[1:])
    return replace(comparison, examples=replace(comparison.examples, labels=labels))


def change_plan(comparison: Comparison) -> Comparison:
    return replace(comparison, plan=msgspec.structs.replace(comparison.plan, seed=1))


def change_lengths(comparison: Comparison) -> Comparison:
    return replace(comparison, lengths=(9,))


@pytest.mark.parametrize("change", [change_data, change_label, change_plan, change_lengths])
def test_other_work_is_measured_again(
    fakes: Callable[..., Comparison], change: Callable[[Comparison], Comparison]
) -> None:
    usual = fakes(candidates=FAKE[:1])
    before = len(measurements(compare(usual)))
    assert before == 2
    assert len(measurements(compare(change(usual)))) == 2 * before


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_other_threads_are_measured_again_and_all_have_the_same(fakes: Callable[..., Comparison]) -> None:
    compare(fakes(candidates=FAKE[:1], threads=1))
    records = compare(fakes(candidates=FAKE[:1], threads=2))
    told = {session.session: session.threads for session in sessions(records)}
    assert sorted(told.values()) == [1, 2]
    assert all(found.info.threads == told[found.session] for found in measurements(records))
    assert set(pairs(records).values()) == {2}


@pytest.mark.parametrize("threads", [0, -1, usable_cores() + 1])
def test_threads_that_there_are_not_are_refused(fakes: Callable[..., Comparison], threads: int) -> None:
    comparison = fakes(threads=threads)
    with pytest.raises(UserError, match=f"--threads {threads}: this process may use 1 to {usable_cores()} cores"):
        compare(comparison)
    assert not comparison.measurements.exists()


def test_all_cores_are_used_unless_fewer_are_asked_for(fakes: Callable[..., Comparison]) -> None:
    records = compare(fakes(threads=None, candidates=FAKE[:1]))
    assert {found.info.threads for found in measurements(records)} == {usable_cores()}


def test_when_nothing_can_run_the_first_reason_is_told(
    make_source: MakeSource, examples: Examples, tmp_path: Path, fake_engine: None
) -> None:
    with pytest.raises(UserError, match=r"no candidate can run here; fake: .* has no fp32 variant"):
        compare(task(make_source({}), examples, tmp_path, *FAKE))


def test_labels_that_the_model_does_not_know_are_refused(fakes: Callable[..., Comparison]) -> None:
    usual = fakes()
    odd = replace(usual.examples, labels=("maybe", *usual.examples.labels[1:]))
    with pytest.raises(UserError, match="unknown label 'maybe'"):
        compare(replace(usual, examples=odd))


@pytest.mark.parametrize(
    ("names", "anchor"),
    [
        (["ort-cpu/fp32", "torch-cpu/fp32", "torch-cpu/bf16"], "torch-cpu/fp32"),
        (["ort-cpu/int8-dynamic", "torch-cpu/bf16", "ort-cpu/fp32"], "ort-cpu/fp32"),
        (["ort-cpu/int8-dynamic", "torch-cpu/bf16"], "ort-cpu/int8-dynamic"),
    ],
)
def test_ratios_divide_by_the_reference_or_the_next_best_thing(names: list[str], anchor: str) -> None:
    assert choose_anchor([Candidate.parse(name) for name in names]).id == anchor


@pytest.mark.usefixtures("fake_engine")
def test_runtimes_are_probed_in_another_process() -> None:
    fake, null = probe_runtimes(("fake", "null"), 1)
    assert (fake.runtime, fake.available, null.runtime) == ("fake", True, "null")


@pytest.mark.usefixtures("fake_engine")
def test_an_engine_that_kills_its_process_is_a_row_and_the_others_are_still_asked(tmp_path: Path) -> None:
    (tmp_path / "site" / "crasher.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with (tmp_path / "site" / "sitecustomize.py").open("a") as file:
        file.write('from dataclasses import replace\nREGISTRY["crasher"] = replace(FAKE, module="crasher")\n')
    fake, crasher, null = probe_runtimes(("fake", "crasher", "null"), 1)
    assert fake.available
    assert null.available
    assert not crasher.available
    assert "killed by signal 9" in (crasher.reason or "")
    assert crasher.remedy


def test_a_precision_that_a_working_runtime_lacks_is_a_row_and_the_others_run(
    fakes: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    lack = Lack(word="bf16", reason="this CPU has no bf16", remedy="take another")
    found = Availability(runtime="fake", available=True, lacks=(lack,))
    monkeypatch.setattr("measure.compare.probe_runtimes", lambda names, threads: (found,))
    records = compare(fakes())
    (failed,) = failures(records)
    assert (failed.name, failed.stage, failed.reason, failed.hint) == ("fake/bf16", "probe", lack.reason, lack.remedy)
    assert {item.entrant.candidate for item in measurements(records)} == {FAKE[0], FAKE[2]}


def test_a_text_that_is_judged_cannot_calibrate(fakes: Callable[..., Comparison], examples: Examples) -> None:
    with pytest.raises(UserError, match="1 texts are both in the calibration and in the examples"):
        compare(fakes(calibration=("a text of its own", examples.texts[7])))


@pytest.fixture
def calibrating(monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """Here the fake bf16 is made from training examples, as the workers' registry does not know."""
    monkeypatch.setitem(REGISTRY, "fake", replace(FAKE_ENTRY, calibrated=(Precision.BF16,)))
    return FAKE[1]


def test_one_that_is_calibrated_is_a_row_where_there_are_no_training_texts(
    fakes: Callable[..., Comparison], calibrating: Candidate
) -> None:
    records = compare(fakes())
    (failed,) = failures(records)
    assert (failed.name, failed.stage) == (calibrating.id, "calibration")
    assert "--calibration" in failed.hint


def test_other_training_texts_make_only_what_is_calibrated_anew(
    fakes: Callable[..., Comparison], calibrating: Candidate
) -> None:
    marks = []
    for texts in (("one",), ("another",)):
        newest = sessions(compare(fakes(calibration=texts)))[-1]
        marks.append(newest.asked)
    assert {name for name in marks[0] if marks[0][name] != marks[1][name]} == {calibrating.id}


# From raw texts.

BOTH_WAYS = (FromText.IN_TURN, FromText.OVERLAPPED)


def test_a_pass_from_text_is_one_sample_and_tells_the_tokenisers_part(fakes: Callable[..., Comparison]) -> None:
    records = compare(fakes(lengths=(8, *BOTH_WAYS), candidates=FAKE[:2], plan=PLAN))
    (session,) = sessions(records)
    assert [item.name for item in session.workloads] == ["1×8", "4×8", "4×text", "4×text-overlapped"]
    assert [item.texts for item in session.workloads] == [1, 4, 24, 24]
    for block in (block for found in measurements(records) for block in found.blocks):
        assert len(block.tokenise_s) == ("text" in block.workload) * len(block.samples_s)
        assert all(0 < spent < sample for spent, sample in zip(block.tokenise_s, block.samples_s, strict=False))
    blocks = Counter(block.workload for found in measurements(records) for block in found.blocks)
    assert blocks == dict.fromkeys((item.name for item in session.workloads), 3 * 2 * 2)
    assert session.harness_floor_s
    assert session.tokenizer_floor_s
    assert session.tokenizer_floor_s > 10 * session.harness_floor_s  # a whole pass of tokenising, not a call


def test_the_floors_are_of_what_was_asked_for(fakes: Callable[..., Comparison]) -> None:
    compare(fakes(candidates=FAKE[:1]))
    records = compare(fakes(candidates=FAKE[:1], lengths=(FromText.OVERLAPPED,)))
    tokenised, from_text = sessions(records)
    assert tokenised.harness_floor_s
    assert tokenised.tokenizer_floor_s is None
    assert from_text.harness_floor_s is None
    assert from_text.tokenizer_floor_s


@pytest.mark.parametrize(("lengths", "again"), [((8, None), 0), ((8, FromText.IN_TURN), 2)])
def test_another_tokenizer_file_is_other_work_only_where_texts_are_run(
    fakes: Callable[..., Comparison], tmp_path: Path, lengths: tuple[Length, ...], again: int
) -> None:
    usual = fakes(candidates=FAKE[:1], lengths=lengths)
    tokenizer = Path(shutil.copytree(usual.source.tokenizer, tmp_path / "tokenizer"))
    usual = replace(usual, source=replace(usual.source, tokenizer=tokenizer))
    before = len(measurements(compare(usual)))
    assert before == 2
    with (tokenizer / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert len(measurements(compare(usual))) == before + again


def test_a_tokenizer_that_cannot_be_read_is_told_before_anything_is_measured(
    fakes: Callable[..., Comparison], tmp_path: Path
) -> None:
    usual = fakes(lengths=BOTH_WAYS)
    tokenizer = Path(shutil.copytree(usual.source.tokenizer, tmp_path / "tokenizer"))
    (tokenizer / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        compare(replace(usual, source=replace(usual.source, tokenizer=tokenizer)))
    assert not usual.measurements.exists()


# The real engines, against transformers and onnxruntime used by hand.


@pytest.mark.slow
def test_a_candidate_runs_with_its_options_beside_the_one_without(
    tiny_run: Path, examples: Examples, tmp_path: Path
) -> None:
    chosen = known_candidate("ort-cpu/fp32+no-spinning")
    records = compare(task(find_models(tiny_run), examples, tmp_path, ORT, chosen, lengths=(8,), plan=ONE))
    spinning = {item.entrant.name: item.info.options["spinning"] for item in measurements(records)}
    assert spinning == {"ort-cpu/fp32": "true", "ort-cpu/fp32 (A/A)": "true", "ort-cpu/fp32+no-spinning": "false"}
    told = {item.entrant.name: item.executed for item in measurements(records)}
    assert all(executed and executed.kernels for executed in told.values())


@pytest.fixture(scope="module")
def compared(
    tiny_run: Path, examples: Examples, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, list[Record]]:
    folder = tmp_path_factory.mktemp("compared")
    asked = (REFERENCE, ORT, INT8, Candidate("torch-cuda", Precision.FP32), Candidate("torch-cuda", Precision.BF16))
    comparison = task(find_models(tiny_run), examples, folder, *asked)
    return comparison, compare(comparison)


@pytest.fixture(scope="module")
def by_hand(tiny_checkpoint: Path, tiny_run: Path, examples: Examples) -> Callable[..., NDArray[np.float32]]:
    """Logits of a candidate, `size` texts at a time in their order, without any of our code."""
    import onnxruntime
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint).eval()
    sessions = {
        precision: onnxruntime.InferenceSession(
            str(tiny_run / "variants" / precision.value / "model.onnx"),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )
        for precision in (Precision.FP32, Precision.INT8_DYNAMIC)
    }

    @cache
    def answer(candidate: Candidate, size: int) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(examples), size):
            texts = list(examples.texts[start : start + size])
            batch = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
            if candidate == REFERENCE:
                with torch.no_grad():
                    parts.append(model(**{name: torch.tensor(item) for name, item in batch.items()}).logits.numpy())
            else:
                parts.append(sessions[candidate.precision].run(["logits"], dict(batch))[0])
        return np.concatenate(parts)

    return answer


@pytest.mark.slow
def test_real_engines_are_each_measured_once_in_each_replicate(compared: tuple[Comparison, list[Record]]) -> None:
    _, records = compared
    names = ("torch-cpu/fp32", "torch-cpu/fp32 (A/A)", "ort-cpu/fp32", "ort-cpu/int8-dynamic")
    assert pairs(records) == {(name, replicate): 1 for name in names for replicate in range(2)}
    for found in measurements(records):
        assert found.info.threads == 1
        assert found.portable is found.runtime.startswith("ort")
        assert Counter(block.workload for block in found.blocks) == {"1×8": 2, "4×8": 2, "4×natural": 2}
        assert all(len(block.samples_s) % (6 if "natural" in block.workload else 1) == 0 for block in found.blocks)
        start = found.cold_start
        assert 0 < start.import_s + start.load_s + start.first_run_s < start.total_s
        assert found.memory.uss_bytes > found.baseline_memory.uss_bytes


@pytest.mark.slow
def test_real_ratios_have_intervals(compared: tuple[Comparison, list[Record]]) -> None:
    ratios = [row.overall for row in judge(compared[1]).rows if row.measured and row.role is not Role.ANCHOR]
    assert len(ratios) == 3
    for ratio in ratios:
        assert ratio
        assert ratio.low
        assert ratio.high
        assert ratio.low < ratio.ratio < ratio.high


@pytest.mark.slow
def test_the_kept_reference_is_what_transformers_answers(
    compared: tuple[Comparison, list[Record]], by_hand: Callable[..., NDArray[np.float32]]
) -> None:
    comparison, _ = compared
    with np.load(comparison.reference) as arrays:
        logits, header = arrays["answers"], json.loads(arrays["header"].tobytes())
    assert header["candidate"] == "torch-cpu/fp32"
    assert load_reference(comparison.reference, header["fingerprint"])
    expected = by_hand(REFERENCE, 1)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidate", "size", "batch_size"),
    [(REFERENCE, 1, None), (ORT, 1, None), (INT8, 1, 1), (INT8, 4, 4)],
    ids=["reference", "ort fp32", "int8 alone", "int8 by four"],
)
def test_quality_is_what_it_is_by_hand(
    compared: tuple[Comparison, list[Record]],
    by_hand: Callable[..., NDArray[np.float32]],
    examples: Examples,
    candidate: Candidate,
    size: int,
    batch_size: int | None,
) -> None:
    (found,) = (
        quality
        for item in measurements(compared[1])
        if item.entrant.candidate == candidate and item.role is not Role.CONTROL
        for quality in item.quality
        if quality.batch_size == batch_size
    )
    logits, known = by_hand(candidate, size), by_hand(REFERENCE, 1)
    truth = np.array([int(str(label)) for label in examples.labels])
    answers, expected = logits.argmax(1), known.argmax(1)
    assert found.reference == "torch-cpu/fp32"
    assert found.examples == 50
    assert found.accuracy_fraction == pytest.approx((answers == truth).mean())
    assert found.reference_accuracy_fraction == pytest.approx((expected == truth).mean())
    assert found.agreement_fraction == pytest.approx((answers == expected).mean())
    assert found.wins == np.sum((answers == truth) & (expected != truth))
    assert found.losses == np.sum((answers != truth) & (expected == truth))
    rounding = 1e-4 * float(np.abs(known).max())
    assert found.max_error == pytest.approx(float(np.abs(logits - known).max()), abs=rounding)
    margins = np.sort(np.abs(known[:, 1] - known[:, 0])[answers != expected])[::-1]
    assert found.flip_margins == pytest.approx(margins[:20].tolist(), abs=rounding)


@pytest.mark.slow
def test_a_runtime_that_cannot_work_here_is_one_row_with_its_remedy(compared: tuple[Comparison, list[Record]]) -> None:
    (available,) = probe_runtimes(("torch-cuda",), 1)
    if available.available:
        pytest.skip("this machine has a GPU")
    (failed,) = failures(compared[1])
    assert (failed.runtime, failed.precision, failed.stage) == ("torch-cuda", None, "probe")
    assert (failed.reason, failed.hint) == (available.reason, available.remedy)


@pytest.mark.slow
def test_a_second_comparison_measures_nothing(compared: tuple[Comparison, list[Record]]) -> None:
    comparison, records = compared
    before = comparison.measurements.read_bytes()
    assert compare(comparison) == records
    assert comparison.measurements.read_bytes() == before


def test_missing_and_broken_graphs_are_rows_and_the_others_go_on(
    tiny_run: Path, examples: Examples, tmp_path: Path
) -> None:
    run = copied(tiny_run, tmp_path / "run")
    graph = run / "variants" / "int8-dynamic" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    source = replace(find_models(tiny_run), checkpoint=None, graphs={ORT.precision: find_models(tiny_run).model(ORT)})
    comparison = task(source, examples, tmp_path, ORT, INT8, plan=ONE)
    (missing,) = failures(compare(comparison))
    assert (missing.precision, missing.stage) == (Precision.INT8_DYNAMIC, "model")
    assert "has no int8-dynamic variant" in missing.reason
    assert "steelyard export" in missing.hint
    broken = replace(source, graphs={**source.graphs, INT8.precision: graph})
    records = compare(replace(comparison, source=broken))
    assert (failures(records)[-1].precision, failures(records)[-1].stage) == (Precision.INT8_DYNAMIC, "start")
    assert "onnxruntime cannot run" in failures(records)[-1].reason
    assert pairs(records) == {("ort-cpu/fp32", 0): 2, ("ort-cpu/fp32 (A/A)", 0): 1}


@pytest.fixture(scope="module")
def artifact(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "artifact"
    pack(RunFolder(tiny_run), Precision.FP32, out, card=None, card_reason="not measured")
    return out


def test_an_artifact_is_measured_against_itself(artifact: Path, examples: Examples, tmp_path: Path) -> None:
    asked = candidates(("ort-cpu",), None)
    records = compare(task(find_models(artifact), examples, tmp_path, *asked, plan=ONE))
    assert {name for name, _ in pairs(records)} == {"ort-cpu/fp32", "ort-cpu/fp32 (A/A)"}
    others = {candidate.precision for candidate in asked} - {Precision.FP32}
    assert {failed.precision for failed in failures(records)} == others
    (quality,) = (item for found in measurements(records) for item in found.quality)
    assert (quality.reference, quality.agreement_fraction) == ("ort-cpu/fp32", 1)


def test_from_text_to_label_by_the_installed_command(artifact: Path, reviews: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out")
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "steelyard", "compare", artifact, "--data", reviews),
            *("--candidates", "ort-cpu/fp32", "--lengths", "text,text-overlapped", "--batch-sizes", "4"),
            *("--budget", "1", "--threads", "1", "--out", run.directory),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    verdict = json.loads(run.verdict.read_text())
    assert [row["role"] for row in verdict["rows"]] == ["anchor", "control"]
    for row in verdict["rows"]:
        assert [item["workload"] for item in row["workloads"]] == ["4×text", "4×text-overlapped"]
        found = row["from_text"]
        assert 0 < found["tokenise_fraction"] < 1
        assert found["gain"]["low"] < found["gain"]["ratio"] < found["gain"]["high"]
        rates = [found["texts_per_s"], found["overlapped_texts_per_s"]]
        assert rates == pytest.approx([4 / item["batch_s"] for item in row["workloads"]])
    assert verdict["tokenizer_texts_per_s"] > 0
    for text in (done.stdout, run.report.read_text()):
        assert "From raw text to label: texts per second" in text


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The finished lines of a file that someone may still be writing."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.slow
def test_a_killed_comparison_is_taken_up_where_it_was(artifact: Path, reviews: Path, tmp_path: Path) -> None:
    """An artifact has one candidate and needs no torch, so its anchor and control are measured in seconds."""
    path = tmp_path / "out" / "measurements.jsonl"
    command = [
        str(Path(sys.executable).parent / "steelyard"),
        *("compare", str(artifact), "--data", str(reviews), "--out", str(path.parent), "--runtimes", "ort-cpu"),
        *("--precisions", "fp32", "--batch-sizes", "1", "--lengths", "8", "--threads", "1", "--budget", "1"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as harness:
        deadline = time.monotonic() + 120
        while sum(line["type"] == "measurement" for line in whole_lines(path)) < 2:
            assert harness.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = psutil.Process(harness.pid).children(recursive=True)
        os.kill(harness.pid, signal.SIGKILL)
    assert harness.returncode == -signal.SIGKILL
    assert all(gone(worker.pid) for worker in workers)
    finished = {
        (line["role"], line["replicate"], line["fingerprint"])
        for line in whole_lines(path)
        if line["type"] == "measurement"
    }
    again = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    after = Counter(
        (line["role"], line["replicate"], line["fingerprint"])
        for line in whole_lines(path)
        if line["type"] == "measurement"
    )
    assert all(after[pair] == 1 for pair in finished if pair[0] != "anchor")
    assert {pair[:2] for pair in after} == {(role, number) for role in ("anchor", "control") for number in range(3)}
    assert all(count == 1 for pair, count in after.items() if pair[0] == "control")
    lines = len(whole_lines(path))
    subprocess.run(command, capture_output=True, timeout=240, check=True)
    assert len(whole_lines(path)) == lines


@pytest.mark.parametrize("limit_bytes", [3_000, 2_000_000])
def test_a_full_disk_is_told_and_what_was_measured_stays(
    limit_bytes: int, tiny_run: Path, reviews: Path, tmp_path: Path
) -> None:
    """The limit on file sizes meets the workers' inputs first, then the measurements."""
    run = copied(tiny_run, tmp_path / "run")
    (run / "measurements.jsonl").write_text("x" * (limit_bytes - 100) + "\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "steelyard", "compare", run, "--data", reviews, "--runtimes", "ort-cpu"],
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert (run / "measurements.jsonl").read_text().startswith("xxx")


@pytest.mark.usefixtures("fake_engine")
def test_a_question_asked_before_is_answered_without_measuring_and_noted_once(
    make_source: MakeSource, examples: Examples, tmp_path: Path
) -> None:
    """All, then a part, then all again: the newest session says what was asked, and nothing is measured twice."""
    everyone = task(make_source(GOOD), examples, tmp_path, *FAKE)
    part = replace(everyone, candidates=FAKE[:2])
    first = compare(everyone)
    assert compare(everyone) == first
    for again in (part, everyone):
        records = compare(again)
        assert measurements(records) == measurements(first)
        sessions = [record for record in records if isinstance(record, Session)]
        assert len(sessions[-1].asked) == len(again.candidates) + 1
        assert sessions[-1].load is None


@pytest.mark.usefixtures("fake_engine")
def test_other_versions_of_anything_are_measured_again(
    make_source: MakeSource, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = task(make_source(GOOD), examples, tmp_path, *FAKE[:2])
    once = len(measurements(compare(comparison)))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert len(measurements(compare(comparison))) == 2 * once
