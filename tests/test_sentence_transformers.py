"""Folders that sentence-transformers saved, exported and packed by the command: its own vectors are the truth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from artifact.identity import checkpoint_sha256
from artifact.pooling import Pooling as Asked
from artifact.pooling import PoolingMode
from artifact.sentences import sentence_limits
from artifact.task import Task
from artifact.tokenizer import read_limits
from errors import UserError
from measure.source import find_models
from tests.artifact.conftest import edit_json
from tests.conftest import TEXTS, within
from tests.test_cli import fails, request_of

MOST = 16
"""Tokens that sentence-transformers leaves of a text; the model has positions for more."""


@pytest.fixture
def saved(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder as sentence-transformers saves it, with these modules after the model's mean."""

    def save(*after: Any, kind: str | None = None) -> Path:
        folder = tmp_path / "sentences"
        body = Transformer(str(tiny_checkpoint))
        SentenceTransformer(modules=[body, Pooling(32, pooling_mode="mean"), *after], device="cpu").save(str(folder))
        edit_json(folder / "sentence_bert_config.json", max_seq_length=MOST)
        if kind:
            edit_json(folder / "config.json", architectures=[kind])
        return folder

    return save


def request(checkpoint: Path, **given: Any) -> Any:
    return request_of(checkpoint, None, **given)


def test_a_folder_is_exported_and_packed_as_it_says(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder, texts = saved(Normalize()), [*TEXTS, " ".join(TEXTS)]
    theirs = SentenceTransformer(str(folder), device="cpu")
    assert theirs.max_seq_length == MOST
    assert max(len(ids) for ids in theirs.tokenizer(texts)["input_ids"]) > MOST
    done = within("export", folder, "--out", tmp_path / "run", "--precisions", "fp32")
    assert done.returncode == 0, done.stderr
    assert "modules.json says how to pool: mean, scaled to length 1 (else: --pooling, --no-pooling)" in done.stderr
    assert within("pack", tmp_path / "run", "--precision", "fp32", "--out", tmp_path / "artifact").returncode == 0
    asked = tmp_path / "texts.jsonl"
    asked.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts))
    answered = within("predict", tmp_path / "artifact", "--data", asked, "--json")
    assert answered.returncode == 0, answered.stderr
    assert json.loads((tmp_path / "artifact" / "tokenizer_config.json").read_bytes())["model_max_length"] == MOST
    ours = np.array([json.loads(line)["vector"] for line in answered.stdout.splitlines()])
    np.testing.assert_allclose(ours, theirs.encode(texts), atol=1e-5)


def test_texts_are_as_long_as_the_folder_says_for_vectors_alone(saved: Callable[..., Path]) -> None:
    folder = saved()
    assert find_models(folder).text_limits.max_length_tokens == MOST
    edit_json(folder / "config.json", architectures=["BertForSequenceClassification"])
    assert find_models(folder).text_limits.max_length_tokens == read_limits(folder).max_length_tokens > MOST


@pytest.mark.parametrize("told", [{"max_seq_length": None}, {}])
def test_limits_are_the_tokenizers_own_where_the_file_says_nothing(
    saved: Callable[..., Path], told: dict[str, object]
) -> None:
    folder = saved()
    (folder / "sentence_bert_config.json").write_text(json.dumps(told))
    assert sentence_limits(folder) == read_limits(folder)
    (folder / "sentence_bert_config.json").unlink()
    assert sentence_limits(folder) == read_limits(folder)


def test_the_file_counts_more_than_the_tokenizer_and_less_than_the_positions(saved: Callable[..., Path]) -> None:
    """As sentence-transformers reads them, but that it would run into the end of the positions."""
    folder = saved()
    edit_json(folder / "tokenizer_config.json", model_max_length=8)
    for told, most in ((MOST, MOST), (10_000, 64)):
        edit_json(folder / "sentence_bert_config.json", max_seq_length=told)
        assert SentenceTransformer(str(folder), device="cpu").max_seq_length == told
        assert sentence_limits(folder).max_length_tokens == most


def test_files_of_the_first_versions_are_read(saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    assert sentence_limits(folder).max_length_tokens == MOST


def test_links_into_a_hubs_cache_are_followed(saved: Callable[..., Path], tmp_path: Path) -> None:
    """As `snapshot_download` leaves them."""
    folder, blobs = saved(), tmp_path / "blobs"
    blobs.mkdir()
    names = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "config.json")
    for number, name in enumerate(names):
        (folder / name).rename(blobs / str(number))
        (folder / name).symlink_to(blobs / str(number))
    assert request(folder).pooling == Asked(PoolingMode.MEAN)
    assert sentence_limits(folder).max_length_tokens == MOST


def test_another_limit_is_another_checkpoint(saved: Callable[..., Path]) -> None:
    folder = saved()
    before = checkpoint_sha256(folder)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=MOST - 1)
    other = checkpoint_sha256(folder)
    assert other != before
    edit_json(folder / "config.json", architectures=["BertForSequenceClassification"])
    classifier = checkpoint_sha256(folder)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=MOST)
    assert checkpoint_sha256(folder) == classifier  # which does not read that file


def test_what_else_is_done_with_a_text_is_said(saved: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved()
    request(folder)
    assert "note:" not in capsys.readouterr().err
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "query: "}, default_prompt_name="query")
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    edit_json(folder / "tokenizer_config.json", do_lower_case=False)
    request(folder)
    told = capsys.readouterr().err
    assert "note: sentence-transformers puts 'query: ' before each text" in told
    assert "note: sentence-transformers makes texts lower case" in told


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_of_limits_is_an_error(saved: Callable[..., Path], text: str) -> None:
    folder = saved()
    (folder / "sentence_bert_config.json").write_text(text)
    with pytest.raises(UserError, match="sentence_bert_config"):
        sentence_limits(folder)


@pytest.mark.parametrize("kinds", [(), ("a.Transformer", "b.SpladePooling")])
def test_a_folder_without_a_pooling_is_what_its_class_says(saved: Callable[..., Path], kinds: tuple[str, ...]) -> None:
    folder = saved(kind="BertForMaskedLM")
    (folder / "modules.json").write_text(json.dumps([{"type": kind, "path": ""} for kind in kinds]))
    found = request(folder)
    assert (found.task, found.pooling) == (None, None)
    assert sentence_limits(folder) == read_limits(folder)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertLMHeadModel"])
def test_vectors_are_exported_whatever_class_the_weights_are_of(saved: Callable[..., Path], kind: str) -> None:
    found = request(saved(kind=kind))
    assert (found.task, found.pooling, found.is_language) == (Task.FEATURE_EXTRACTION, Asked(PoolingMode.MEAN), False)


def test_what_the_user_asks_for_counts_more(saved: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(Normalize())
    cls = Asked(PoolingMode.CLS)
    assert request(folder, pooling=cls).pooling == cls
    tokens = request(folder, pooled=False)
    assert (tokens.task, tokens.pooling) == (Task.FEATURE_EXTRACTION, None)
    other = request(folder, task=Task.FILL_MASK)
    assert (other.task, other.pooling) == (Task.FILL_MASK, None)
    assert "modules.json" not in capsys.readouterr().err


def test_modules_that_cannot_be_exported_are_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved(Dense(32, 8))
    fails(within("export", folder, "--out", tmp_path / "run"), 2, "steps that are not known", "--no-pooling")
    assert not (tmp_path / "run").exists()
    assert request(folder, pooled=False).pooling is None
    assert find_models(folder).judged is None


def test_two_answers_to_one_question_are_refused(tmp_path: Path) -> None:
    done = within("export", tmp_path, "--out", tmp_path / "run", "--pooling", "mean", "--no-pooling")
    fails(done, 2, "--pooling and --no-pooling exclude each other")


def test_no_pooling_is_refused_where_nothing_pools(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = within("export", tiny_checkpoint, "--out", tmp_path / "run", "--no-pooling")
    fails(done, 2, "--no-pooling is for folders of sentence-transformers, and this is none")
