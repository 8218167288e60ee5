"""Language models measured: what a sample is, how answers are judged, and the command."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, WhisperFeatureExtractor

from artifact.generate.encoder import NOTHING, Given
from artifact.language import LanguageVariant, Reading
from artifact.precision import Precision
from artifact.recordings import Recordings
from artifact.run_folder import RunFolder
from artifact.tokenizer import read_limits, text_encoder
from errors import UserError
from measure.quality import assess_language
from measure.reference import Reference
from measure.source import find_models
from measure.workload import (
    STEPS,
    Inputs,
    Phase,
    Written,
    build_heard_inputs,
    build_language_inputs,
    load_inputs,
    save_inputs,
)
from measure.writing import Writing
from models.recordings import sound_settings
from runtimes.base import Candidate, Executed, RuntimeInfo
from runtimes.registry import probe
from tests.conftest import SENTENCES, Steelyard, copied
from tests.fakes import FakeClock

READ_S, STEP_S = 0.5, 0.25
BEGINS = Reading(encoder="encoder.onnx", most_read_tokens=None, start_ids=(7, 9))
WORDS = 7


class FakeContinuing:
    """Reading and a step each take their time on the clock; the next token is the number of positions."""

    def __init__(self, clock: FakeClock, capacity: int) -> None:
        self._clock, self._capacity, self.positions = clock, capacity, 0

    def prompt(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self._clock.advance(READ_S)
        self.positions = len(rows[0])
        return self._next(len(rows))

    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        assert self.positions < self._capacity
        assert set(tokens.tolist()) == {self.positions % WORDS}
        self._clock.advance(STEP_S)
        self.positions += 1
        return self._next(len(tokens))

    def rewind(self, positions: int) -> None:
        self.positions = positions

    def _next(self, rows: int) -> NDArray[np.float32]:
        return np.eye(WORDS, dtype=np.float32)[[self.positions % WORDS] * rows]


class FakeLanguage:
    """A `LanguageRuntime` on a clock; after each token its own number is the likeliest."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime="fake",
            engine="fake",
            engine_version="1",
            device="cpu",
            dtype="fp32",
            threads=1,
            input_names=("input_ids",),
            options={},
        )

    def __enter__(self) -> Self:
        return self

    def begin(self, rows: int, capacity: int, inputs: Given = NOTHING) -> FakeContinuing:
        return FakeContinuing(self._clock, capacity)

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> NDArray[np.float32]:
        return 2 * np.eye(100, dtype=np.float32)[ids]

    def executes(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> Executed | None:
        return Executed.of(["sum"] * ids.size, 0)

    def peak_device_bytes(self) -> int | None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@pytest.fixture(scope="module")
def inputs(learnt_llama: Path) -> Inputs:
    limits = read_limits(learnt_llama)
    return build_language_inputs(SENTENCES, text_encoder(learnt_llama, limits), limits, (1, 2), (4, 16))


@pytest.fixture
def bench(inputs: Inputs) -> Iterator[Writing]:
    clock = FakeClock()
    with Writing(FakeLanguage(clock), inputs, (), clock) as writing:
        yield writing


def test_every_prompt_is_read_and_then_written_behind(inputs: Inputs, tmp_path: Path) -> None:
    assert inputs.writes
    specs = [workload.spec for workload in inputs.workloads]
    assert [spec.name for spec in specs] == [
        f"{phase} {rows}×{length}" for length in (4, 16) for rows in (1, 2) for phase in ("read", "write")
    ]
    assert [spec.tokens for spec in specs] == [4, 1, 8, 2, 16, 1, 32, 2]
    assert {len(spec.sample_shapes) for spec in specs if spec.phase is Phase.WRITE} == {STEPS}
    save_inputs(tmp_path / "inputs.npz", inputs)
    assert load_inputs(tmp_path / "inputs.npz").sha256 == inputs.sha256


def test_a_sample_is_a_prompt_or_a_step_and_nothing_else(bench: Writing) -> None:
    assert bench.block(0, 3).samples_s == (READ_S,) * 3
    assert bench.block(1, 2).samples_s == (STEP_S,) * 2 * STEPS
    warm = bench.warm_up(1, 0)
    assert (warm.level, warm.samples_s) == (True, (STEP_S,) * 3 * STEPS)


def test_answers_are_first_choices_and_surprises(bench: Writing, inputs: Inputs, tmp_path: Path) -> None:
    bench.score(None, tmp_path / "answers.npz")
    found = np.load(tmp_path / "answers.npz")["answers"]
    told = [token for item in inputs.evaluation for token in item["input_ids"][:-1]]
    np.testing.assert_array_equal(found[:, 0], told)
    total = np.log(99 + np.exp(2))
    likely = np.array(told) == np.array(inputs.following)
    np.testing.assert_allclose(found[:, 1], total - 2 * likely, rtol=1e-6)


def test_tokens_are_judged_beside_the_references() -> None:
    known = np.array([[1, 0.5], [2, 1.0], [3, 1.5], [4, 2.0]], dtype=np.float32)
    answers = np.array([[1, 0.5], [9, 2.0], [7, 0.5], [4, 2.0]], dtype=np.float32)
    found = assess_language(answers, Reference("r", known), [1, 2, 7, 0], batch_size=None, seconds_s=1)
    assert (found.examples, found.wins, found.losses, found.agreement_fraction) == (4, 1, 1, 0.5)
    assert (found.accuracy_fraction, found.reference_accuracy_fraction) == (0.5, 0.5)
    assert found.perplexity == pytest.approx(np.exp(1.25))
    assert found.reference_perplexity == pytest.approx(np.exp(1.25))
    answers[1, 1] = np.nan
    found = assess_language(answers, Reference("r", known), [1, 9, 7, 0], batch_size=None, seconds_s=1)
    assert (found.not_finite, found.wins, found.perplexity) == (1, 1, None)
    with pytest.raises(ValueError, match="4 answers, 4 reference answers, 3 labels"):
        assess_language(answers, Reference("r", known), [1, 2, 7], batch_size=None, seconds_s=1)


def test_what_cannot_be_cut_is_said(learnt_llama: Path) -> None:
    limits = read_limits(learnt_llama)
    encoder = text_encoder(learnt_llama, limits)
    with pytest.raises(UserError, match="behind it 8 tokens are written, of 64"):
        build_language_inputs(SENTENCES, encoder, limits, (1,), (60,))
    with pytest.raises(UserError, match="numbers of tokens for a language model"):
        build_language_inputs(SENTENCES, encoder, limits, (1,), (None,))
    with pytest.raises(UserError, match="no text has two tokens"):
        build_language_inputs((), encoder, limits, (1,), (8,))


@pytest.mark.parametrize(
    "bits", [("fp32", "int4"), pytest.param(("fp32", "int8-dynamic"), marks=pytest.mark.exhaustive)]
)
def test_the_command_weighs_a_run_and_packs_what_it_recommends(
    language_run: Path, learnt_llama: Path, sentences: Path, tmp_path: Path, steelyard: Steelyard, bits: tuple[str, str]
) -> None:
    out = tmp_path / "compared"
    engines = "torch-cpu,ort-cpu,openvino-cpu,ort-genai,ort-cuda,ort-tensorrt"
    precisions = ",".join((*bits, "fp16", "bf16"))
    asked = ("--runtimes", engines, "--precisions", precisions, "--lengths", "16", "--budget", "smoke", "--json")
    done = steelyard("compare", language_run, "--data", sentences, "--out", out, *asked)
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    rows = {row["name"]: row for row in verdict["rows"] if row["measured"]}
    elsewhere = ("openvino-cpu/bf16", "ort-cuda/")  # not on every machine
    assert {name for name in rows if not name.startswith(elsewhere)} == {
        *("torch-cpu/fp32", "torch-cpu/fp32 (A/A)", "torch-cpu/bf16", "ort-cpu/fp16"),
        *(f"{engine}/{item}" for engine in ("ort-cpu", "openvino-cpu", "ort-genai") for item in bits),
    }
    for row in rows.values():
        assert [item["workload"] for item in row["workloads"]] == ["read 1×16", "write 1×16"]
    for name in ("ort-cpu/fp32", f"ort-cpu/{bits[1]}", f"openvino-cpu/{bits[1]}"):
        assert rows[name]["step_bytes"] == rows[name]["model_bytes"]
    for name in ("torch-cpu/fp32", "ort-cpu/fp16", *(name for name in rows if name.endswith("/bf16"))):
        assert rows[name]["step_bytes"] is None  # converted while it is loaded
    lacking = {row["runtime"]: row["reason"] for row in verdict["rows"] if row["reason"]}
    assert lacking["ort-tensorrt"] == "it does not run language models yet"
    if (cuda := probe("ort-cuda")) and not cuda.available:
        assert lacking["ort-cuda"] == cuda.reason
    right, surprise, tokens = expected(learnt_llama)
    for name in ("torch-cpu/fp32", "ort-cpu/fp32", "openvino-cpu/fp32", "ort-genai/fp32"):
        quality = rows[name]["quality"]
        assert (quality["examples"], quality["agreement_fraction"]) == (tokens, 1)
        assert quality["accuracy_fraction"] == pytest.approx(right / tokens)
        assert quality["perplexity"] == pytest.approx(np.exp(surprise / tokens), rel=1e-4)
    report = (out / "report.md").read_text()
    assert "seconds to the first token" in report
    assert "next token" in report
    assert all(0 < verdict["overhead"][name] < 1 for name in ("tokenise_s", "choose_s", "draw_s", "tell_s"))
    assert "Besides the engine: each token takes" in report
    shipped = verdict["deployable"]
    assert (f"of what {shipped} takes in the first workload" if shipped else "of the engine's") in report
    assert "Besides the engine" in (out / "report.html").read_text()
    if shipped:
        assert RunFolder(out).verdict.is_file()


def test_what_is_written_of_a_text_is_judged_and_the_text_is_read(
    learnt_t5: Path, inputs: Inputs, tmp_path: Path
) -> None:
    limits = read_limits(learnt_t5)
    encoder, targets = text_encoder(learnt_t5, limits), (*SENTENCES[1:], SENTENCES[0])
    found = build_language_inputs(SENTENCES, encoder, limits, (2,), (16,), Written(targets, BEGINS))
    ids = [item["input_ids"] for item in encoder.encode(targets)]
    assert [list(row) for row in found.told] == [[7, *row] for row in ids]
    assert found.following == [token for row in ids for token in row]
    prompt, read = found.begun(found.workloads[0].batches[0]["input_ids"])
    assert (prompt, read["input_ids"].shape) == ([[7], [7]], (2, 16))
    assert read["attention_mask"].all()
    read = found.read([1, 0])
    assert [int(row.sum()) for row in read["attention_mask"]] == [
        len(encoder.encode([SENTENCES[place]])[0]["input_ids"]) for place in (1, 0)
    ]
    save_inputs(tmp_path / "inputs.npz", found)
    again = load_inputs(tmp_path / "inputs.npz")
    assert (again.written, again.sha256) == (found.written, found.sha256)
    assert inputs.begun(np.array([[4, 5]])) == ([[4, 5]], {})


@pytest.mark.exhaustive
def test_the_command_weighs_an_encoder_decoder_and_packs_it_with_its_card(
    rewriting_run: Path, rewritten: Path, tmp_path: Path, steelyard: Steelyard
) -> None:
    run = copied(rewriting_run, tmp_path / "run")
    done = steelyard(
        "compare", run, "--data", rewritten, "--budget", "smoke", "--lengths", "16", "--runtimes", "ort-cpu", "--json"
    )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"] if row["measured"]}
    assert set(rows) == {
        *("torch-cpu/fp32", "torch-cpu/fp32 (A/A)"),
        *("ort-cpu/fp32", "ort-cpu/fp16", "ort-cpu/int8-dynamic", "ort-cpu/int4"),
    }
    exported = msgspec.json.decode(
        (run / "variants" / "fp32" / "variant.json").read_bytes(), type=LanguageVariant
    ).prediction
    for name in ("torch-cpu/fp32", "ort-cpu/fp32"):
        quality = rows[name]["quality"]
        assert (quality["examples"], quality["agreement_fraction"]) == (exported.tokens, 1)
        assert quality["perplexity"] == pytest.approx(exported.reference, rel=1e-4)
    assert rows["ort-cpu/fp32"]["model_bytes"] == sum(
        path.stat().st_size for path in (run / "variants" / "fp32").glob("*.onnx*")
    )
    out = tmp_path / "artifact"
    done = steelyard("pack", run, "--candidate", "ort-cpu/int8-dynamic", "--out", out)
    assert done.returncode == 0, done.stderr
    done = steelyard("verify", out, "--json")
    assert done.returncode == 0, done.stderr
    assert [item["workload"] for item in json.loads(done.stdout)["speed"]] == ["read 1×16", "write 1×16"]
    found = find_models(out)
    assert found.writes
    assert found.reading is not None
    assert found.reading.told_ids == (0,)
    assert {path.name for path in found.model_files(Candidate("ort-cpu", Precision.INT8_DYNAMIC))} == {
        *("encoder_quantized.onnx", "decoder_quantized.onnx", "weights.onnx_data")
    }


def test_the_command_weighs_a_model_that_hears_and_packs_it_with_its_card(
    hearing_run: Path, heard: Path, tmp_path: Path, steelyard: Steelyard
) -> None:
    run = copied(hearing_run, tmp_path / "run")
    others = ("ort-cpu/int8-dynamic", "openvino-cpu/int4")
    names = ",".join(("ort-cpu/fp32", "openvino-cpu/fp32", *others))
    done = steelyard("compare", run, "--data", heard, "--candidates", names, "--budget", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"] if row["measured"]}
    exported = msgspec.json.decode(
        (run / "variants" / "fp32" / "variant.json").read_bytes(), type=LanguageVariant
    ).prediction
    for name in ("torch-cpu/fp32", "ort-cpu/fp32", "openvino-cpu/fp32"):
        quality = rows[name]["quality"]
        assert (quality["examples"], quality["agreement_fraction"]) == (exported.tokens, 1)
        assert quality["perplexity"] == pytest.approx(exported.reference, rel=1e-3)
        shown = [(item["workload"], item["tokens"]) for item in rows[name]["workloads"]]
        assert shown == [("read 1×2s", None), ("write 1×2s", 1)]
    assert set(others) <= set(rows)
    assert {row["step_bytes"] for row in rows.values()} == {None}  # an encoder's weights are read once for all tokens
    assert "a recording's features from its file" in (run / "report.md").read_text()
    out = tmp_path / "artifact"
    done = steelyard("pack", run, "--candidate", "ort-cpu/int8-dynamic", "--out", out)
    assert done.returncode == 0, done.stderr
    done = steelyard("verify", out, "--json")
    assert done.returncode == 0, done.stderr
    assert [item["workload"] for item in json.loads(done.stdout)["speed"]] == ["read 1×2s", "write 1×2s"]
    done = steelyard("compare", out, "--data", heard, "--lengths", "16", "--out", tmp_path / "again")
    assert (done.returncode, "all recordings are filled up" in done.stderr) == (2, True), done.stderr
    (tmp_path / "bare.csv").write_text(f"audio\n{heard.parent / '0.wav'}\n")
    done = steelyard("compare", out, "--data", tmp_path / "bare.csv", "--out", tmp_path / "again")
    assert (done.returncode, "no column named transcript" in done.stderr) == (2, True), done.stderr


def test_what_is_heard_is_what_the_workers_hear(learnt_whisper: Path, heard: Path, tmp_path: Path) -> None:
    limits = read_limits(learnt_whisper)
    sound = sound_settings(WhisperFeatureExtractor.from_pretrained(learnt_whisper), "input_features")
    recordings = Recordings(tuple(str(heard.parent / f"{number}.wav") for number in (0, 1)), sound)
    reading = Reading(encoder="", most_read_tokens=None, start_ids=(7, 8), end_ids=(3,), sound=sound)
    encoder = text_encoder(learnt_whisper, limits)
    found = build_heard_inputs(recordings, encoder, limits, (3,), Written(SENTENCES[:2], reading))
    plain = encoder.plain(SENTENCES[:2])
    assert [list(row) for row in found.told] == [[7, 8, *row, 3] for row in plain]
    assert found.following == [token for row in plain for token in (*row, 3)]
    prompt, read = found.begun(found.workloads[0].batches[0]["input_ids"])
    assert prompt == [[7, 8]] * 3
    np.testing.assert_array_equal(read["input_features"], [recordings[place] for place in (0, 1, 0)])
    save_inputs(tmp_path / "inputs.npz", found)
    again = load_inputs(tmp_path / "inputs.npz")
    assert (again.recordings, again.sha256) == (recordings, found.sha256)
    with pytest.raises(UserError, match="nothing is written of any recording"):
        build_heard_inputs(
            recordings, encoder, limits, (1,), Written(("", ""), msgspec.structs.replace(reading, end_ids=()))
        )


def test_an_engine_that_runs_none_is_told_with_those_that_do(
    language_run: Path, sentences: Path, steelyard: Steelyard
) -> None:
    done = steelyard("compare", language_run, "--data", sentences, "--runtimes", "ort-tensorrt")
    assert (done.returncode, "language models do not run on ort-tensorrt yet" in done.stderr) == (2, True)
    assert "ort-cpu" in done.stderr


def test_a_bare_decoder_is_known_by_its_configuration(
    learnt_llama: Path, tiny_checkpoint: Path, language_run: Path, sentences: Path, steelyard: Steelyard
) -> None:
    assert find_models(learnt_llama).writes
    assert not find_models(tiny_checkpoint).writes
    done = steelyard("load-test", language_run, "--data", sentences, "--candidate", "ort-cpu/fp32")
    assert (done.returncode, "load tests are for models that answer in one pass" in done.stderr) == (2, True)


def expected(checkpoint: Path) -> tuple[int, float, int]:
    """How many next tokens PyTorch guesses of the sentences, its surprise in nats, and how many there are."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    right, surprise, tokens = 0, 0.0, 0
    for text in SENTENCES:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            found = model(input_ids=ids, labels=ids)
        right += int((found.logits[0, :-1].argmax(-1) == ids[0, 1:]).sum())
        surprise += float(found.loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return right, surprise, tokens
