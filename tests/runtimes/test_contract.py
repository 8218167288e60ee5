"""What every registered runtime keeps, whatever its engine; the reference is transformers itself."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from artifact.cpu import cpu_flags, saturates
from artifact.precision import Precision
from errors import UserError
from exporter.request import Source
from models.rows import Columns
from runtimes.base import Batch, Candidate, Outputs, Runtime
from runtimes.registry import REGISTRY, candidates, entry, known_candidate, open_runtime, probe, worthwhile
from runtimes.registry import Source as Loads
from tests.conftest import TEXTS
from tests.fakes import FakeClock, FakeRuntime

SHAPES = ((1, 1), (1, 2), (3, 7), (8, 16), (2, 64))
TOLERANCE = {
    Precision.FP32: 1e-4,
    Precision.TF32: 0.02,
    Precision.FP16: 0.02,
    Precision.BF16: 0.1,
    Precision.INT8_DYNAMIC: 0.6,
    Precision.INT8_STATIC: 0.6,
    Precision.INT4: 0.8,
}
"""Largest error as a share of the largest logit. Random weights forgive little: int8's errors add up."""

LEAK_BYTES = 400
"""What a run may add to the process on the average. A leak of a few hundred bytes may fit into memory that was freed
before, and not be seen; one of 8 kB is."""

AGAIN = tuple(map(known_candidate, ("torch-cpu/fp32+compile", "torch-cpu/int8-static+autocast+compile")))
"""One CPU candidate of each way to compile. `make test-all` opens them more than once, and them alone: opening takes up
to half a minute, and that of the others is the same code. The second is exhaustive like those: it takes minutes."""


def needs_gpu(candidate: Candidate) -> bool:
    return candidate.runtime.endswith(("-cuda", "-tensorrt"))


def parameters() -> Iterator[Any]:
    plain = [
        Candidate(name, precision)
        for name, found in REGISTRY.items()
        for precision in found.precisions or ((Precision.FP32,) if name == "null" else ())
    ]
    for candidate in worthwhile(plain):
        marks = [pytest.mark.gpu] if needs_gpu(candidate) else []
        if "compile" in candidate.options and not needs_gpu(candidate) and candidate != AGAIN[0]:
            marks.append(pytest.mark.exhaustive)
        yield pytest.param(candidate, id=candidate.id, marks=marks)


@pytest.fixture(scope="module", params=parameters())
def candidate(request: pytest.FixtureRequest) -> Candidate:
    found: Candidate = request.param
    available = probe(found.runtime)
    if not available.available:
        pytest.skip(f"{available.reason}")
    if lack := available.lack_of(found):
        pytest.skip(lack.reason)
    return found


@pytest.fixture(scope="module")
def model(candidate: Candidate, tiny_checkpoint: Path, tiny_run: Path, request: pytest.FixtureRequest) -> Path:
    found = entry(candidate.runtime)
    if found.source is Loads.CHECKPOINT:
        return tiny_checkpoint
    file = Path("variants", found.graph(candidate).value, "model.onnx")
    if (tiny_run / file).is_file():
        return tiny_run / file
    every: Path = request.getfixturevalue("every_precision")
    return every / file


@pytest.fixture(scope="session")
def every_precision(tiny_checkpoint: Path, export_texts: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the precisions that `tiny_run` leaves out; one that fails its gate is there all the same."""
    from exporter.export import export
    from exporter.request import Request

    out = tmp_path_factory.mktemp("every") / "run"
    rest = (Precision.FP16, Precision.BF16, Precision.INT8_STATIC, Precision.INT4)
    training = out.parent / "train.csv"
    training.write_text("\n".join(["text", *(f'"{text}"' for text in TEXTS)]))
    calibration = Source(training, Columns())
    export(Request(tiny_checkpoint, out, rest, data=export_texts, calibration=calibration, selective=False))
    return out


@pytest.fixture(scope="module")
def computes(candidate: Candidate) -> None:
    if candidate.runtime == "null":
        pytest.skip("null computes nothing")


def opened(candidate: Candidate, model: Path, threads: int) -> Runtime:
    """Calibrated, where that is needed, on batches that no test runs."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return open_runtime(candidate, model, threads, [make_batch(8, length, names, seed=9) for length in (8, 32)])


@pytest.fixture
def openable(candidate: Candidate, request: pytest.FixtureRequest) -> None:
    """For a test that opens a runtime of its own."""
    if "compile" in candidate.options and not needs_gpu(candidate):
        if candidate not in AGAIN:
            pytest.skip("another candidate that is compiled in the same way is opened again")
        if not request.config.getoption("--exhaustive"):
            pytest.skip("make test-all compiles it again")


@pytest.fixture(scope="module")
def runtime(candidate: Candidate, model: Path) -> Iterator[Runtime]:
    """One for all tests that do not end it, because compiling takes seconds."""
    with opened(candidate, model, 2) as runtime:
        yield runtime


@pytest.fixture(scope="session")
def plain(tiny_checkpoint: Path) -> Callable[[Batch], NDArray[np.float32]]:
    """The tiny checkpoint as anyone would run it."""
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(tiny_checkpoint).eval()

    def answer(batch: Batch) -> NDArray[np.float32]:
        with torch.no_grad():
            logits = model(**{name: torch.tensor(array) for name, array in batch.items()}).logits
        return np.asarray(logits.numpy())

    return answer


def make_batch(rows: int, length: int, names: tuple[str, ...], seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Random ids; every row but the first is padded a little."""
    random = np.random.default_rng([seed, rows, length])
    lengths = np.array([length, *random.integers(1, length + 1, rows - 1)])
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = random.integers(5, 60, (rows, length)) * mask
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: every[name] for name in names}


def copied(batch: Batch) -> dict[str, NDArray[np.int64]]:
    return {name: array.copy() for name, array in batch.items()}


@pytest.mark.usefixtures("computes")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_answers_are_those_of_plain_transformers(
    candidate: Candidate, runtime: Runtime, plain: Callable[[Batch], NDArray[np.float32]], shape: tuple[int, int]
) -> None:
    if "nncf" in candidate.options and saturates():
        pytest.skip("its kernels saturate on this CPU")
    if {"bf16", "nncf"} <= set(candidate.options) and "amx_int8" in cpu_flags():
        pytest.skip("on CPUs with AMX OpenVINO answers some batches of it otherwise (docs/runtimes.md)")
    batch = make_batch(*shape, ("input_ids", "attention_mask", "token_type_ids"))
    expected = plain(batch)
    found = runtime.run({name: batch[name] for name in runtime.info.input_names})["logits"]
    scale = float(np.abs(plain(make_batch(32, 16, ("input_ids", "attention_mask", "token_type_ids")))).max())
    share = TOLERANCE[candidate.precision] + (TOLERANCE[Precision.BF16] if "bf16" in candidate.options else 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_are_float32_with_a_row_for_each_row(runtime: Runtime, shape: tuple[int, int]) -> None:
    outputs = runtime.run(make_batch(*shape, runtime.info.input_names))
    assert {name: (array.dtype, array.shape) for name, array in outputs.items()} == {
        "logits": (np.dtype(np.float32), (shape[0], 2))
    }


def test_info_says_what_was_asked_for(candidate: Candidate, runtime: Runtime) -> None:
    info = runtime.info
    assert info.runtime == candidate.runtime
    assert info.engine_version == probe(candidate.runtime).engine_version
    assert ("cuda" in info.device) is needs_gpu(candidate)
    assert info.dtype in {candidate.precision.value, "float32", "bfloat16", "float16"}


@pytest.mark.usefixtures("computes")
def test_input_names_are_those_of_the_tokenizer(runtime: Runtime) -> None:
    assert sorted(runtime.info.input_names) == ["attention_mask", "input_ids", "token_type_ids"]


def test_the_threads_are_those_that_were_asked_for(runtime: Runtime) -> None:
    runtime.run(make_batch(2, 8, runtime.info.input_names))
    assert runtime.info.threads == 2


@pytest.mark.usefixtures("computes")
def test_what_is_executed_can_be_told_and_changes_nothing(candidate: Candidate, runtime: Runtime) -> None:
    batch = make_batch(2, 8, runtime.info.input_names)
    before = runtime.run(batch)["logits"]
    executed = runtime.executed(batch)
    np.testing.assert_array_equal(runtime.run(batch)["logits"], before)
    if executed is None:
        assert "compile" in candidate.options
        return
    assert all(executed.kernels.values())
    assert list(executed.kernels.values()) == sorted(executed.kernels.values(), reverse=True)
    assert (executed.conversions is None) is ("autocast" in candidate.options)
    assert any(word in name for name in executed.kernels for word in ("linear", "FullyConnected", "MatMul"))


def test_a_device_has_a_clock_of_its_own_and_a_host_has_not(candidate: Candidate, runtime: Runtime) -> None:
    batch, other = (make_batch(3, 9, runtime.info.input_names, seed) for seed in (0, 1))
    before, answer = runtime.run(batch)["logits"], runtime.run(other)["logits"]
    compute = runtime.bind(batch)
    assert (compute is not None) is needs_gpu(candidate)
    if compute is None:
        return
    compute()
    np.testing.assert_allclose(runtime.run(other)["logits"], answer, rtol=1e-5, atol=1e-5)
    compute()
    np.testing.assert_allclose(runtime.run(batch)["logits"], before, rtol=1e-5, atol=1e-5)


def test_the_arrays_belong_to_the_caller(runtime: Runtime) -> None:
    names = runtime.info.input_names
    first = runtime.run(make_batch(4, 8, names))["logits"]
    kept = first.copy()
    second = runtime.run(make_batch(4, 8, names, seed=1))["logits"]
    np.testing.assert_array_equal(first, kept)
    second[:] = 7
    first[:] = 9
    np.testing.assert_array_equal(runtime.run(make_batch(4, 8, names))["logits"], kept)


def test_inputs_go_by_their_names_in_any_order(runtime: Runtime) -> None:
    batch = make_batch(4, 8, runtime.info.input_names)
    backwards = dict(reversed(batch.items()))
    np.testing.assert_array_equal(runtime.run(backwards)["logits"], runtime.run(batch)["logits"])


def test_the_batch_is_left_as_it_was(runtime: Runtime) -> None:
    batch = make_batch(4, 8, runtime.info.input_names)
    before = copied(batch)
    outputs = runtime.run(batch)
    outputs["logits"][:] = 3
    assert list(batch) == list(before)
    for name, array in batch.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("order", ["reversed", "every other", "transposed"])
def test_a_view_is_as_good_as_an_array(runtime: Runtime, order: str) -> None:
    views = {
        "reversed": lambda array: array[::-1],
        "every other": lambda array: array[::2, ::2],
        "transposed": lambda array: array.T,
    }
    batch = {name: views[order](array) for name, array in make_batch(4, 8, runtime.info.input_names).items()}
    np.testing.assert_array_equal(runtime.run(batch)["logits"], runtime.run(copied(batch))["logits"])


@pytest.mark.usefixtures("openable")
def test_a_runtime_has_a_beginning_and_an_end_and_can_begin_again(candidate: Candidate, model: Path) -> None:
    """With one thread, where the other tests have two; an error inside the block is not swallowed.

    Compiling takes seconds: what is compiled begins here once, and once more in the test of two at once.
    """
    runtime = opened(candidate, model, 1)
    answers = []
    with pytest.raises(RuntimeError, match="not open"):
        runtime.run(make_batch(1, 4, ("input_ids",)))
    for _ in range(1 if "compile" in candidate.options else 2):
        with pytest.raises(ZeroDivisionError), runtime:  # noqa: PT012
            names = runtime.info.input_names
            answers.append(runtime.run(make_batch(3, 8, names))["logits"])
            assert runtime.info.threads == 1
            raise ZeroDivisionError
        with pytest.raises(RuntimeError, match="not open"):
            runtime.run(make_batch(1, 4, names))
    for again in answers[1:]:
        np.testing.assert_array_equal(again, answers[0])


@pytest.mark.usefixtures("openable")
def test_two_at_once_from_many_threads_give_the_answers_of_one(
    candidate: Candidate, model: Path, runtime: Runtime
) -> None:
    with opened(candidate, model, 2) as second:
        pair = [runtime, second]
        names = pair[0].info.input_names
        batches = [make_batch(rows, length, names) for rows in (1, 2, 5) for length in (3, 16, 40)]
        serial = [pair[0].run(batch)["logits"] for batch in batches]
        jobs = [(pair[number % 2], number % len(batches)) for number in range(10 * len(batches))]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda job: job[0].run(batches[job[1]])["logits"], jobs))
    for (_, index), logits in zip(jobs, found, strict=True):
        np.testing.assert_allclose(logits, serial[index], rtol=1e-5, atol=1e-5)


def damaged(kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    batch: dict[str, Any] = make_batch(2, 6, names)
    last = names[-1]
    match kind:
        case "missing":
            del batch[last]
        case "nothing at all":
            batch.clear()
        case "extra":
            batch["pixel_values"] = batch[last]
        case "int32":
            batch[last] = batch[last].astype(np.int32)
        case "float":
            batch[last] = batch[last].astype(np.float32)
        case "no rows":
            batch = {name: array[:0] for name, array in batch.items()}
        case "no columns":
            batch = {name: array[:, :0] for name, array in batch.items()}
        case "one axis":
            batch = {name: array[0] for name, array in batch.items()}
        case "three axes":
            batch = {name: array[None] for name, array in batch.items()}
    return batch


@pytest.mark.parametrize(
    "kind",
    ["missing", "nothing at all", "extra", "int32", "float", "no rows", "no columns", "one axis", "three axes"],
)
def test_inputs_that_do_not_fit_are_refused_and_the_next_run_works(runtime: Runtime, kind: str) -> None:
    names = runtime.info.input_names
    with pytest.raises(UserError):
        runtime.run(damaged(kind, names))
    runtime.run(make_batch(2, 6, names))


@pytest.mark.usefixtures("computes")
@pytest.mark.parametrize("shape", [(2, 5), (2, 1), (1, 6), (6, 2)], ids=str)
def test_a_mask_of_another_shape_is_not_broadcast(runtime: Runtime, shape: tuple[int, int]) -> None:
    batch = make_batch(2, 6, runtime.info.input_names)
    batch["attention_mask"] = np.ones(shape, dtype=np.int64)
    with pytest.raises(UserError, match="differ in shape"):
        runtime.run(batch)


@pytest.mark.usefixtures("computes")
@pytest.mark.parametrize(("length", "number"), [(65, 5), (6, 10_000)], ids=["too long", "unknown id"])
def test_what_the_model_has_no_place_for_is_refused(runtime: Runtime, length: int, number: int) -> None:
    batch = make_batch(1, length, runtime.info.input_names)
    batch["input_ids"][:] = number
    with pytest.raises(UserError, match="cannot run a batch of shape"):
        runtime.run(batch)
    runtime.run(make_batch(1, 6, runtime.info.input_names))


def grown_bytes(runtime: Runtime, batch: Batch, runs: int) -> float:
    """What the process grows by steadily with each run: the least growth of a quarter of the runs. What happens once (a
    compiler's child ends, and its shared pages become ours alone) is no leak."""
    process, quarter = psutil.Process(), runs // 4
    for _ in range(300):
        runtime.run(batch)
    readings = [process.memory_full_info().uss]
    for _ in range(4):
        for _ in range(quarter):
            runtime.run(batch)
        readings.append(process.memory_full_info().uss)
    return float(np.diff(readings).min() / quarter)


class Leaking(FakeRuntime):
    """Keeps 8 kB of each call."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.kept: list[NDArray[np.float64]] = []

    def run(self, batch: Batch) -> Outputs:
        self.kept.append(np.ones(1024))
        return super().run(batch)


@pytest.mark.slow
def test_thousands_of_runs_take_no_memory(
    candidate: Candidate, runtime: Runtime, request: pytest.FixtureRequest
) -> None:
    """Ten thousand of an engine's plain fp32, and two thousand of the others, which run on the same engines."""
    is_plain = candidate == Candidate(candidate.runtime, Precision.FP32)
    if not is_plain and not request.config.getoption("--exhaustive"):
        pytest.skip("make test-all runs the others of this engine")
    runs = 10_000 if is_plain else 2_000
    assert grown_bytes(runtime, make_batch(2, 4, runtime.info.input_names), runs) < LEAK_BYTES


def test_a_leak_would_be_seen() -> None:
    with Leaking() as runtime:
        assert grown_bytes(runtime, make_batch(2, 8, runtime.info.input_names), 10_000) > LEAK_BYTES


@pytest.mark.parametrize("name", REGISTRY)
def test_a_runtime_that_cannot_work_here_says_why_and_what_would_help(name: str) -> None:
    found = probe(name)
    assert found.runtime == name
    if found.available:
        assert found.device
        assert found.engine_version
        assert (found.reason, found.remedy) == (None, None)
    else:
        assert found.reason
        assert found.remedy


def test_what_an_engine_refuses_can_be_asked_for_to_see_its_own_words(every_precision: Path) -> None:
    candidate = known_candidate("ort-cpu/bf16")
    assert candidate not in candidates(None, None, every=True)
    graph = every_precision / "variants" / "bf16" / "model.onnx"
    with pytest.raises(UserError, match="NOT_IMPLEMENTED"), opened(candidate, graph, 1):
        pass
