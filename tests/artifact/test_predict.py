import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import expit, softmax

from artifact.predict.answers import Prediction, scores_from_logits
from artifact.predict.command import main
from artifact.predict.cores import cgroup_cores, usable_cores
from artifact.predict.predictor import Predictor
from artifact.predict.tokens import BATCH_PAIRS, BATCH_ROWS, BATCH_TOKENS, batches_by_length, pad_rows
from errors import GateFailed, UserError
from tests.artifact.conftest import edit_json, reseal, run_predict, scale_logits
from tests.conftest import ROOT, TEXTS

FOREIGN = (
    *(path.parent.name for path in ROOT.glob("*/__init__.py")),
    *(path.stem for path in ROOT.glob("*.py")),
    *("torch", "transformers", "onnx", "msgspec", "psutil", "typer", "rich", "socket"),
)

IMAGE = {"channels": 3, "resize": "none", "size": [], "resample": 2, "crop": [], "scale": 1.0, "mean": [], "std": []}


@cache
def pytorch_logits(checkpoint: Path, texts: tuple[str, ...]) -> NDArray[np.float32]:
    """Each text alone through transformers and PyTorch."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two spinning threads on a busy machine take a hundred times as long
    try:
        with torch.inference_mode():
            rows = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0].numpy() for text in texts]
    finally:
        torch.set_num_threads(threads)
    return np.stack(rows)


def run_alone(artifact: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `predict.py` where nothing but the standard library, numpy, tokenizers and onnxruntime can be imported."""
    program = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({FOREIGN!r}))
try:
    import artifact
except ImportError:
    sys.argv = ["predict.py", *{arguments!r}]
    runpy.run_path({str(artifact / "predict.py")!r}, run_name="__main__")
"""
    return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)


# Answers


def test_logits_are_those_of_pytorch_in_the_order_of_the_texts(packed: Path, tiny_checkpoint: Path) -> None:
    texts = tuple(f"{text} {' film' * (7 * n % 60)}" for n in range(11) for text in TEXTS)
    assert len(texts) > 2 * BATCH_ROWS
    expected = pytorch_logits(tiny_checkpoint, texts)
    np.testing.assert_allclose(Predictor.open(packed).logits(texts), expected, atol=1e-3)
    assert len({tuple(row) for row in expected.round(3)}) > 40


def test_predictions_carry_label_and_scores(packed: Path, tiny_checkpoint: Path) -> None:
    expected = softmax(pytorch_logits(tiny_checkpoint, TEXTS), axis=1)
    for prediction, (negative, positive) in zip(Predictor.open(packed).predict(TEXTS), expected, strict=True):
        assert isinstance(prediction, Prediction)
        assert prediction.scores == pytest.approx({"negative": negative, "positive": positive}, abs=1e-3)
        assert prediction.label == ("positive" if positive > negative else "negative")
        assert prediction.score == prediction.scores[prediction.label]


def test_no_text_has_no_answer_and_an_empty_text_has_one(packed: Path, tiny_checkpoint: Path) -> None:
    predictor = Predictor.open(packed)
    assert predictor.predict([]) == []
    np.testing.assert_allclose(predictor.logits([""]), pytorch_logits(tiny_checkpoint, ("",)), atol=1e-3)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_the_activation_is_the_manifests(artifact: Path, tiny_checkpoint: Path, activation: str) -> None:
    edit_json(artifact / "steelyard.json", activation=activation)
    logits = pytorch_logits(tiny_checkpoint, TEXTS)
    expected = expit(logits) if activation == "sigmoid" else logits
    predictions = [answer for answer in Predictor.open(artifact).predict(TEXTS) if isinstance(answer, Prediction)]
    np.testing.assert_allclose([list(one.scores.values()) for one in predictions], expected, atol=1e-3)
    best = [prediction.label for prediction in predictions]
    assert best == [("negative", "positive")[row.argmax()] for row in logits]


def test_threads_share_one_predictor(packed: Path) -> None:
    predictor = Predictor.open(packed, threads=1)
    jobs = [[f"{text}{' long' * n}" for text in TEXTS] for n in range(16)]
    serial = [predictor.logits(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(predictor.logits, jobs)), serial)


def test_two_artifacts_live_in_one_process(packed: Path, artifact: Path) -> None:
    scale_logits(artifact / "onnx" / "model.onnx", -1)
    reseal(artifact)
    one, other = Predictor.open(packed), Predictor.open(artifact)
    np.testing.assert_allclose(one.logits(TEXTS), -other.logits(TEXTS), atol=1e-4)


def test_the_engine_gets_the_threads_asked_for(packed: Path) -> None:
    predictor = Predictor.open(packed, threads=2)
    session = predictor._session(2)
    assert session.get_session_options().intra_op_num_threads == predictor.threads == 2
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_many_batches_are_computed_side_by_side_with_the_same_answers(packed: Path) -> None:
    texts = [f"{text} {'film ' * (n % 30)}" for n in range(250) for text in TEXTS]
    predictor = Predictor.open(packed, threads=2)
    found = predictor.logits(texts)
    assert predictor._opened[0] == 1
    np.testing.assert_allclose(found, Predictor.open(packed, threads=1).logits(texts), atol=1e-5)
    np.testing.assert_allclose(predictor.logits(texts[:3]), found[:3], atol=1e-5)
    assert predictor._opened[0] == 2


# The command line


def test_predict_py_stands_alone(packed: Path, tiny_checkpoint: Path) -> None:
    assert run_alone(packed, "--selftest").stdout.startswith("selftest passed on ")
    done = run_alone(packed, "--json", *TEXTS)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == list(TEXTS)
    positive = [answer["scores"]["positive"] for answer in answers]
    np.testing.assert_allclose(positive, softmax(pytorch_logits(tiny_checkpoint, TEXTS), axis=1)[:, 1], atol=1e-3)


def test_predict_py_is_a_module_too(packed: Path) -> None:
    program = "from predict import Predictor; print(Predictor.open('.').predict(['a film'])[0].label)"
    done = subprocess.run([sys.executable, "-c", program], cwd=packed, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() in ("negative", "positive"), done.stderr


def test_texts_come_from_arguments_or_from_lines(packed: Path) -> None:
    texts = ("a warm film 🙂", "dull")
    by_argument = run_predict(packed, *texts)
    by_line = run_predict(packed, stdin="\n".join(texts).encode())
    assert by_argument.stdout == by_line.stdout
    rows = [line.split("\t") for line in by_line.stdout.decode().splitlines()]
    assert [row[2] for row in rows] == list(texts)
    assert all(row[0] in ("negative", "positive") and 0.5 <= float(row[1]) <= 1 for row in rows)


@pytest.mark.parametrize(("arguments", "stdin"), [((b"caf\xe9",), b""), ((), b"good\ncaf\xe9\n")])
def test_a_text_that_is_not_utf8_is_bad_usage(packed: Path, arguments: tuple[bytes, ...], stdin: bytes) -> None:
    done = run_predict(packed, *arguments, stdin=stdin)
    assert done.returncode == 2
    assert b"UTF-8" in done.stderr or b"Unicode" in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_threads_is_bad_usage(packed: Path) -> None:
    done = run_predict(packed, "--threads", "0", "a film")
    assert done.returncode == 2
    assert b"--threads" in done.stderr


# Damage


@pytest.mark.parametrize("arguments", [("a warm film",), ("--selftest",)])
@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "golden.json", "config.json"])
def test_one_flipped_byte_is_found(artifact: Path, name: str, arguments: tuple[str, ...]) -> None:
    data = bytearray((artifact / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / name).write_bytes(data)
    done = run_predict(artifact, *arguments)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(f"error: {artifact / name} was changed or damaged".encode())


@pytest.mark.parametrize("arguments", [("a warm film",), ("--selftest",)])
def test_a_manifest_cut_short_is_named(artifact: Path, arguments: tuple[str, ...]) -> None:
    os.truncate(artifact / "steelyard.json", 100)
    done = run_predict(artifact, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {artifact / 'steelyard.json'} cannot be read".encode())


@pytest.mark.parametrize("name", ["steelyard.json", "onnx/model.onnx", "golden.json", "predict.py"])
def test_a_missing_file_is_named(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(GateFailed, match=f"{artifact / name} is missing"):
        Predictor.open(artifact)


def test_a_file_that_cannot_be_read_is_named(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(GateFailed, match=rf"{artifact}/.* cannot be read: Input/output error"):
        Predictor.open(artifact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 1}, "schema_version 1"),
        ({"schema_version": True}, "schema_version True"),
        ({"labels": None}, r"steelyard\.json: labels is not a list"),
        ({"labels": ["negative"]}, "other labels than config"),
        ({"limits": {}}, r"limits lacks max_length_tokens"),
        ({"limits": None}, "does not say how"),
        ({"reads": "image"}, "nothing answers text-classification from a image"),
        ({"reads": "pair", "image": IMAGE}, "says more than that"),
        ({"session": []}, "session is not an object"),
        ({"session": {"graph_optimization_level": "most"}}, "graph_optimization_level is 'most'"),
        ({"opset": 1e300}, "opset is not a whole number"),
        ({"opset": 10**16}, "opset is not a whole number"),
        ({"task": "world-domination"}, "task is 'world-domination'"),
        ({"extra": 1}, "a field 'extra'"),
        ({"files": ["golden.json"]}, "files is not an object"),
        ({"model_file": "onnx/other.onnx"}, r"no sha256 of onnx/other\.onnx"),
        ({"model_file": "config.json"}, r"model_file is 'config\.json'"),
        ({"model_file": "onnx/model.ort"}, r"model_file is 'onnx/model\.ort'"),
        ({"model_file": "../outside.onnx"}, r"model_file is '\.\./outside"),
        ({"model_file": "onnx/../../outside.onnx"}, "no sha256 of onnx/"),
        ({"model_file": "/etc/passwd"}, "model_file is '/etc/passwd'"),
        ({"outputs": []}, "names no output"),
        ({"outputs": ["probabilities"]}, "gives no probabilities"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(artifact: Path, changes: dict[str, Any], message: str) -> None:
    (artifact.parent / "outside.onnx").write_bytes((artifact / "onnx" / "model.onnx").read_bytes())
    (artifact / "link.onnx").symlink_to(artifact.parent / "outside.onnx")
    edit_json(artifact / "steelyard.json", **changes)
    with pytest.raises(GateFailed, match=message):
        Predictor.open(artifact)


@pytest.mark.parametrize(
    "name", ["../outside.onnx", "/etc/passwd", "onnx/../../outside.onnx", "link.onnx", "a\\b", "\0"]
)
def test_a_file_that_lies_outside_is_refused(artifact: Path, name: str) -> None:
    (artifact.parent / "outside.onnx").write_bytes(b"secret")
    (artifact / "link.onnx").symlink_to(artifact.parent / "outside.onnx")
    manifest = json.loads((artifact / "steelyard.json").read_text())
    sha256 = hashlib.sha256(b"secret").hexdigest()
    edit_json(artifact / "steelyard.json", files=manifest["files"] | {name: {"size_bytes": 6, "sha256": sha256}})
    with pytest.raises(GateFailed, match=r"(a|a link to a) file outside of"):
        Predictor.open(artifact)


def test_labels_changed_in_the_manifest_are_noticed(artifact: Path) -> None:
    edit_json(artifact / "steelyard.json", labels=["positive", "negative"])
    with pytest.raises(GateFailed, match=r"other labels than config\.json"):
        Predictor.open(artifact)


def test_one_text_alone_is_a_mistake(packed: Path) -> None:
    with pytest.raises(TypeError, match="predict takes a list of items"):
        Predictor.open(packed).predict("a good film")


@pytest.mark.parametrize("item", [None, b"bytes", 5, ("two", "texts"), ["a", "list"], "half a character \ud800"])
def test_only_texts_are_answered(packed: Path, item: Any) -> None:
    with pytest.raises(UserError, match="a text"):
        Predictor.open(packed).predict(["fine", item])


@pytest.mark.parametrize("content", [b"", b"[]", b'"text"', b"\xff\xfe"])
def test_a_manifest_that_is_no_object_is_refused(artifact: Path, content: bytes) -> None:
    (artifact / "steelyard.json").write_bytes(content)
    with pytest.raises(GateFailed, match=r"steelyard\.json"):
        Predictor.open(artifact)


def test_a_missing_engine_is_told(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GateFailed, match=r"pip install -r requirements\.txt"):
        Predictor.open(packed)


# The self-test


def test_the_selftest_passes_on_an_untouched_artifact(packed: Path) -> None:
    assert len(json.loads((packed / "golden.json").read_text())["examples"]) == 12
    assert Predictor.open(packed).selftest() == []


def test_one_flipped_label_fails_the_selftest(artifact: Path) -> None:
    golden = json.loads((artifact / "golden.json").read_text())
    golden["examples"][3]["outputs"]["logits"]["values"].reverse()
    edit_json(artifact / "golden.json", **golden)
    reseal(artifact)
    problems = Predictor.open(artifact).selftest()
    assert [problem.partition(" is off")[0] for problem in problems] == ["example 3: logits"]
    assert run_predict(artifact, "--selftest").returncode == 1


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -1.0, 1.01])
def test_a_graph_with_other_logits_fails_the_selftest(artifact: Path, factor: float) -> None:
    scale_logits(artifact / "onnx" / "model.onnx", factor)
    reseal(artifact)
    problems = Predictor.open(artifact).selftest()
    assert sum("logits is off by" in problem for problem in problems) == 12


def test_an_answer_that_is_not_a_number_is_no_answer(artifact: Path) -> None:
    scale_logits(artifact / "onnx" / "model.onnx", float("nan"))
    reseal(artifact)
    with pytest.raises(GateFailed, match=r"item . of 2: the model's answer is not a number"):
        Predictor.open(artifact).predict(["a warm film", "dull"])


def test_other_ids_fail_the_selftest(artifact: Path) -> None:
    tokenizer = json.loads((artifact / "tokenizer.json").read_text())
    tokenizer["post_processor"]["single"].pop()  # no [SEP] at the end
    edit_json(artifact / "tokenizer.json", **tokenizer)
    reseal(artifact)
    assert Predictor.open(artifact).selftest() == [
        f"example {n}: its input_ids differ from the reference's" for n in range(12)
    ]


def test_a_selftest_without_examples_fails(artifact: Path) -> None:
    edit_json(artifact / "golden.json", examples=[])
    reseal(artifact)
    assert Predictor.open(artifact).selftest() == ["golden.json holds no example"]


# Padding, scores, batches


@pytest.mark.parametrize(
    ("pad_left", "ids", "mask", "types"),
    [
        (False, [[7, 8, 9], [5, 99, 99]], [[1, 1, 1], [1, 0, 0]], [[0, 1, 1], [1, 4, 4]]),
        (True, [[7, 8, 9], [99, 99, 5]], [[1, 1, 1], [0, 0, 1]], [[0, 1, 1], [4, 4, 1]]),
    ],
)
def test_short_rows_are_filled_up(
    pad_left: bool, ids: list[list[int]], mask: list[list[int]], types: list[list[int]]
) -> None:
    encoded = [
        {"input_ids": [7, 8, 9], "attention_mask": [1, 1, 1], "token_type_ids": [0, 1, 1]},
        {"input_ids": [5], "attention_mask": [1], "token_type_ids": [1]},
    ]
    names = ["token_type_ids", "input_ids", "attention_mask"]
    batch = pad_rows(encoded, names, pad_id=99, pad_type_id=4, pad_left=pad_left)
    assert list(batch) == names
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    assert [batch[name].tolist() for name in names] == [types, ids, mask]


def test_rows_that_are_empty_and_no_rows_make_empty_arrays() -> None:
    empty: dict[str, list[int]] = {"input_ids": [], "attention_mask": [], "token_type_ids": []}
    for rows in (0, 2):
        batch = pad_rows([empty] * rows, ["input_ids"], pad_id=0, pad_type_id=0, pad_left=True)
        assert batch["input_ids"].shape == (rows, 0)


def test_an_input_that_no_tokenizer_gives_is_named() -> None:
    with pytest.raises(UserError, match="'pixel_values'"):
        pad_rows([], ["pixel_values"], pad_id=0, pad_type_id=0, pad_left=False)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e4, 1e4, width=32)))
@settings(deadline=None, max_examples=50)
def test_scores_are_scipys(logits: NDArray[np.float32]) -> None:
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(scores_from_logits(logits, "softmax"), softmax(exact, axis=1), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(scores_from_logits(logits, "sigmoid"), expit(exact), rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(scores_from_logits(logits, "none"), exact)


@given(st.lists(st.integers(0, 3000), max_size=200))
@settings(deadline=None, max_examples=100)
def test_batches_hold_every_row_once_and_rows_of_similar_length(lengths: list[int]) -> None:
    batches = list(batches_by_length(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert len(batch) <= BATCH_ROWS
        assert padded <= BATCH_TOKENS or len(batch) == 1
        assert padded * max(lengths[row] for row in batch) <= BATCH_PAIRS or len(batch) == 1
    for batch, following in pairwise(batches):
        longest, shortest = max(lengths[row] for row in batch), min(lengths[row] for row in following)
        assert longest <= shortest
        tokens = (len(batch) + 1) * shortest
        assert len(batch) == BATCH_ROWS or tokens > BATCH_TOKENS or tokens * shortest > BATCH_PAIRS, "one more fits"


# Cores

V1 = {"quota": "sys/fs/cgroup/cpu{}/cpu.cfs_quota_us", "period": "sys/fs/cgroup/cpu{}/cpu.cfs_period_us"}


def v1(quota: str, period: str = "100000", under: str = "") -> dict[str, str]:
    return {V1["quota"].format(under): quota, V1["period"].format(under): period}


@pytest.mark.parametrize(
    ("files", "quota", "cores"),
    [
        ({}, None, 8),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None, 8),
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0, 2),
        ({"sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3.5, 3),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5, 1),
        ({"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 64.0, 8),
        (
            {
                "proc/self/cgroup": "0::/slice/pod/box\n",
                "sys/fs/cgroup/slice/cpu.max": "300000 100000",
                "sys/fs/cgroup/slice/pod/cpu.max": "max 100000",
                "sys/fs/cgroup/slice/pod/box/cpu.max": "500000 100000",
                "sys/fs/cgroup/other/cpu.max": "100000 100000",
            },
            3.0,
            3,
        ),
        (v1("-1\n"), None, 8),
        (v1("400000\n", "200000\n"), 2.0, 2),
        (
            {"proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n"} | v1("300000", under="/docker/abc"),
            3.0,
            3,
        ),
        ({"proc/self/cgroup": "4:cpu:/a\n"} | v1("-1", under="/a") | v1("150000"), 1.5, 1),
        ({"proc/self/cgroup": "nonsense\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0, 2),
        ({"sys/fs/cgroup/cpu.max": ""}, None, 8),
        ({"sys/fs/cgroup/cpu.max": "200000"}, None, 8),
        ({"sys/fs/cgroup/cpu.max": "many 100000"}, None, 8),
        ({"sys/fs/cgroup/cpu.max": "200000 0"}, None, 8),
        ({V1["quota"].format(""): "200000"}, None, 8),
    ],
)
def test_cores_are_those_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cgroup_cores(tmp_path) == quota
    assert usable_cores(tmp_path) == cores


def test_affinity_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == 6


def test_a_reader_that_has_seen_enough_ends_the_program_quietly(artifact: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-I", artifact / "predict.py", *(["word " * 50] * 2000)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("library", [object(), None], ids=["another C library", "none"])
def test_a_system_without_glibc_predicts_as_well(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: object
) -> None:
    def load(name: None) -> object:
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr("ctypes.CDLL", load)
    monkeypatch.setattr("artifact.predict.command.__file__", str(packed / "predict.py"))
    assert main(["--selftest"]) == 0
    assert "selftest passed" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "chosen"), [(["A film to remember."], "keep"), (["--selftest"], "return")])
def test_freed_blocks_are_kept_only_where_a_few_texts_are_asked_for(
    arguments: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no artifact beside the source, so each ends as a broken one does."""
    asked: list[str] = []
    for name in ("keep", "return"):
        monkeypatch.setattr(f"artifact.predict.command.{name}_freed_blocks", partial(asked.append, name))
    assert main(arguments) == 1
    assert asked == [chosen]


def test_a_process_ends_without_a_look_at_all_that_is_alive(packed: Path) -> None:
    """A callback that was registered before runs after the program's: there it sees what the collector would see."""
    program = f"""
import atexit, gc, runpy, sys
atexit.register(lambda: print("frozen" if gc.get_freeze_count() else "not frozen"))
sys.argv = ["predict.py", "A film to remember."]
runpy.run_path({str(packed / "predict.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen"
