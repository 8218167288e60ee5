"""Every task learns something that was planted, to better than chance, from a file and into a run that is whole."""

import csv
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    ViTImageProcessor,
)

from artifact.task import Task
from errors import UserError
from models.lesson import learn
from models.training import Device, FinetuneConfig, Lesson, Problem, TrainingPrecision, TrainingRecord
from tests.conftest import ending_tokenizer
from tests.models.conftest import Trained

FILLING = ("film", "about", "two", "back", "it", "is", "what", "the", "year")
CONFIG = FinetuneConfig(
    epochs=6, batch_size=8, learning_rate=2e-3, held_out=60, precision=TrainingPrecision.FP32, device=Device.CPU
)

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write rows as JSON lines."""

    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path_factory.mktemp("data") / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers × 32 without a head, with weights as small as training wants them, and no dropout."""
    folder = tmp_path_factory.mktemp("base")
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    written = BertConfig.from_pretrained(tiny_checkpoint).to_dict()
    torch.manual_seed(0)
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.05}
    BertModel(BertConfig(**{**written, **none})).save_pretrained(folder)
    return folder


def filled(draw: random.Random, *words: str, most: int = 5) -> list[str]:
    """These words among others, in any order."""
    found = [*words, *draw.choices(FILLING, k=draw.randint(2, most))]
    draw.shuffle(found)
    return found


def learn_from(base: Path, data: Path, out: Path, **changes: Any) -> TrainingRecord:
    config = msgspec.structs.replace(CONFIG, **changes.pop("config", {}))
    record, made = learn(Lesson(base_model=str(base), data=str(data), config=config, **changes), out)
    assert made
    return record


def test_pairs_are_told_apart_by_their_second_text(base: Path, lines: Write, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [
        {
            "sentence1": " ".join(filled(draw)),
            "sentence2": " ".join(filled(draw, "warm" if number % 2 else "slow")),
            "label": "yes" if number % 2 else "no",
        }
        for number in range(300)
    ]
    record = learn_from(base, lines(rows), tmp_path / "run")
    assert (record.metric, record.data.columns["pair"]) == ("accuracy", "sentence2")
    assert record.value.low > 0.8
    with (tmp_path / "run" / "data" / "evaluation.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert list(kept[0]) == ["text", "text_pair", "label"]
    assert {(row["text"], row["text_pair"]) for row in kept} <= {(row["sentence1"], row["sentence2"]) for row in rows}


def several(number: int, draw: random.Random) -> dict[str, Any]:
    held = [name for bit, name in enumerate(("warm", "funny", "slow")) if number >> bit & 1]
    return {"text": " ".join(filled(draw, *held)), "labels": [name.upper() for name in held]}


@pytest.mark.parametrize("written", ["list", "bars"])
def test_several_labels_are_found_at_once(base: Path, tmp_path: Path, lines: Write, written: str) -> None:
    draw = random.Random(1)
    rows = [several(number, draw) for number in range(320)]
    if written == "bars":
        rows = [{**row, "labels": "|".join(row["labels"])} for row in rows if row["labels"]]
    record = learn_from(base, lines(rows), tmp_path / "run")
    assert (record.data.problem, record.metric, record.scores) == (Problem.MULTI_LABEL, "micro F1", None)
    assert record.labels == ("FUNNY", "SLOW", "WARM")
    assert record.value.low > 0.85
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.config.problem_type == "multi_label_classification"


def test_a_quantity_is_estimated(base: Path, lines: Write, tmp_path: Path) -> None:
    draw = random.Random(2)
    counts = [draw.randint(0, 4) for _ in range(300)]
    rows = [{"text": " ".join(filled(draw, *["best"] * count)), "label": count / 4} for count in counts]
    record = learn_from(base, lines(rows), tmp_path / "run")
    assert (record.data.problem, record.metric, record.labels) == (
        Problem.REGRESSION,
        "Pearson correlation",
        ("score",),
    )
    assert record.value.low > 0.7


def tagged(draw: random.Random) -> dict[str, Any]:
    words, tags = [], []
    for word in filled(draw, *draw.sample(("warm", "funny", "hours"), k=draw.randint(1, 2))):
        words += [word, "bad"] if word == "hours" else [word]
        tags += {"hours": ["B-TIME", "I-TIME"], "warm": ["B-MOOD"], "funny": ["B-MOOD"]}.get(word, ["O"])
    return {"tokens": words, "tags": tags}


def test_words_are_tagged(base: Path, lines: Write, tmp_path: Path) -> None:
    draw = random.Random(3)
    rows = [tagged(draw) for _ in range(300)]
    record = learn_from(base, lines(rows), tmp_path / "run")
    assert (record.data.task, record.metric) == (Task.TOKEN_CLASSIFICATION, "span F1")
    assert record.labels == ("B-MOOD", "B-TIME", "I-TIME", "O")
    assert record.value.low > 0.9
    assert (tmp_path / "run" / "data" / "evaluation.jsonl").is_file()
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.config.id2label[1] == "B-TIME"


def test_words_are_tagged_over_bytes(lines: Write, tmp_path: Path) -> None:
    """Such a tokenizer takes separate words only where each begins with a space; its own setting says none does."""
    draw, folder = random.Random(3), tmp_path / "base"
    rows = [tagged(draw) for _ in range(200)]
    letters = Tokenizer(BPE(unk_token=None))
    letters.pre_tokenizer = ByteLevel(add_prefix_space=False)
    texts = [" " + " ".join(row["tokens"]) for row in rows]
    letters.train_from_iterator(texts, BpeTrainer(vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]))
    RobertaTokenizer(
        vocab=letters.get_vocab(), merges=_merges(letters.model), add_prefix_space=False, model_max_length=64
    ).save_pretrained(folder)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.05}
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(vocab_size=400, max_position_embeddings=80, **small, **none)).save_pretrained(folder)
    record = learn_from(folder, lines(rows), tmp_path / "run", config={"held_out": 40})
    assert record.value.low > 0.9
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "checkpoint").add_prefix_space


def _merges(model: Any) -> list[tuple[str, str]]:
    """What a BPE model learnt; only its file says it."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        lines = (Path(folder) / "merges.txt").read_text().splitlines()
    return [(first, second) for first, _, second in (line.partition(" ") for line in lines if not line.startswith("#"))]


def asked(draw: random.Random) -> dict[str, Any]:
    answer = draw.choice(("warm and funny", "far too long"))
    context = " ".join((*filled(draw), answer, *filled(draw)))
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return {"question": "what is it", "context": context, "answers": answers}


def test_answers_are_found_in_their_context(base: Path, lines: Write, tmp_path: Path) -> None:
    draw = random.Random(4)
    record = learn_from(base, lines([asked(draw) for _ in range(300)]), tmp_path / "run")
    assert (record.data.task, record.metric, record.labels) == (Task.QUESTION_ANSWERING, "answer F1", ())
    assert record.value.low > 0.8
    AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run" / "checkpoint")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 400 small pictures of digits, drawn here and there in any colour."""
    folder, draw = tmp_path_factory.mktemp("digits"), random.Random(5)
    rows = []
    for number in range(400):
        picture = Image.new("RGB", (24, 24), tuple(draw.randint(0, 90) for _ in range(3)))
        colour = tuple(draw.randint(150, 255) for _ in range(3))
        ImageDraw.Draw(picture).text((draw.randint(5, 9), draw.randint(4, 8)), str(number % 4), fill=colour)
        picture.save(folder / f"{number}.png")
        rows.append((f"{number}.png", number % 4))
    with (folder / "digits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    return folder / "digits.csv"


@pytest.fixture(scope="module")
def tiny_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


def test_digits_are_read(tiny_resnet: Path, digits: Path, tmp_path: Path) -> None:
    record = learn_from(tiny_resnet, digits, tmp_path / "run", config={"epochs": 8, "learning_rate": 5e-3})
    assert (record.data.task, record.metric, record.data.lengths) == (Task.IMAGE_CLASSIFICATION, "accuracy", None)
    assert record.value.low > 0.6  # chance is 0.25
    folder = tmp_path / "run" / "checkpoint"
    AutoModelForImageClassification.from_pretrained(folder)
    assert (folder / "preprocessor_config.json").is_file()
    with (tmp_path / "run" / "data" / "evaluation.csv").open(newline="") as file:
        assert all(Path(row["image"]).is_file() for row in csv.DictReader(file))


def test_a_picture_that_is_none_is_named(tiny_resnet: Path, digits: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits.parent, tmp_path / "digits"))
    (folder / "7.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"row 9: .*7\.png is no picture"):
        learn_from(tiny_resnet, folder / "digits.csv", tmp_path / "run")
    (folder / "7.png").unlink()
    with pytest.raises(UserError, match=r"row 9: there is no picture .*7\.png"):
        learn_from(tiny_resnet, folder / "digits.csv", tmp_path / "run")


@pytest.fixture(scope="module")
def tiny_llama(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "base"
    tokenizer = ending_tokenizer(tiny_checkpoint)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def told(lines: Write) -> Path:
    """Texts in which each word follows from the one before."""
    order = ["the", "best", "film", "of", "the", "year", "is", "about", "two", "hours"]
    draw = random.Random(6)
    starts = [draw.randrange(len(order)) for _ in range(300)]
    texts = {" ".join(order[(at + step) % len(order)] for step in range(draw.randint(4, 20))) for at in starts}
    return lines([{"text": text} for text in sorted(texts)])


TASK: dict[str, Any] = {"task": Task.TEXT_GENERATION}
FEW: dict[str, Any] = {"held_out": 20, "epochs": 30}


@pytest.mark.parametrize("lora", [0, 4])
def test_texts_are_continued(tiny_llama: Path, told: Path, tmp_path: Path, lora: int) -> None:
    record = learn_from(tiny_llama, told, tmp_path / "run", **TASK, config={**FEW, "lora": lora, "learning_rate": 1e-2})
    assert (record.metric, record.labels) == ("perplexity", ())
    assert record.before is not None
    assert record.value.high < record.before.low * (0.7 if lora else 0.5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "checkpoint")
    held_out = (tmp_path / "run" / "data" / "evaluation.csv").read_text().splitlines()[1:]
    total, count = 0.0, 0
    for text in held_out:
        ids = torch.tensor([[*tokenizer(text)["input_ids"]]])
        with torch.inference_mode():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert record.value.value == pytest.approx(np.exp(total / count), rel=1e-4)
    assert (record.learnt_weights < record.weights / 2) == bool(lora)
    assert record.weights == sum(weight.numel() for weight in LlamaForCausalLM.from_pretrained(tiny_llama).parameters())


def test_what_lora_learnt_is_merged_and_the_rest_stays(tiny_llama: Path, told: Path, tmp_path: Path) -> None:
    learn_from(tiny_llama, told, tmp_path / "run", **TASK, config={**FEW, "epochs": 2, "lora": 4})
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_llama, tmp_path / "run" / "checkpoint")
    )
    changed = {name for name, weight in before.items() if not torch.equal(after[name], weight)}
    assert set(after) == set(before)
    assert changed
    assert all("proj" in name for name in changed)


@pytest.mark.parametrize("task", ["pairs", "tags"])
def test_lora_trains_a_new_head_whole(base: Path, lines: Write, tmp_path: Path, task: str) -> None:
    draw = random.Random(7)
    if task == "tags":
        rows = [tagged(draw) for _ in range(300)]
    else:
        rows = [{"text": " ".join(filled(draw, word)), "label": word} for word in ("warm", "slow", "best") * 100]
    record = learn_from(base, lines(rows), tmp_path / "run", config={"lora": 8, "learning_rate": 1e-2})
    assert record.value.low > 0.6
    assert record.learnt_weights < record.weights


def test_lora_leaves_the_layers_that_are_named_as_a_part_of_the_head(
    tiny_checkpoint: Path, lines: Write, tmp_path: Path
) -> None:
    """RoBERTa's new head has a `dense`, and so has each of its layers."""
    folder = tmp_path / "roberta"
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    RobertaModel(RobertaConfig(vocab_size=200, max_position_embeddings=80, **small)).save_pretrained(folder)
    draw = random.Random(7)
    rows = [{"text": " ".join(filled(draw, word)), "label": word} for word in ("warm", "slow", "best") * 40]
    learn_from(folder, lines(rows), tmp_path / "run", config={"lora": 2, "epochs": 1, "held_out": 20})
    names = [folder / "model.safetensors", tmp_path / "run" / "checkpoint" / "model.safetensors"]
    before, after = (load_file(name) for name in names)
    layer = "encoder.layer.0.output.dense"
    drift = (after[f"roberta.{layer}.weight"] - before[f"{layer}.weight"]).float()
    assert torch.linalg.matrix_rank(drift, atol=1e-6) <= 2
    assert torch.equal(after[f"roberta.{layer}.bias"], before[f"{layer}.bias"])


def test_a_decoder_without_a_pad_token_learns_to_classify(tiny_llama: Path, lines: Write, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    draw = random.Random(7)
    rows = [{"text": " ".join(filled(draw, word)), "label": word} for word in ("warm", "slow", "best") * 100]
    record = learn_from(folder, lines(rows), tmp_path / "run", config={"epochs": 10})
    assert record.value.low > 0.6


@pytest.mark.parametrize("kind", ["tags", "answers", "texts"])
def test_training_ends_early_by_the_loss_where_there_is_no_accuracy(
    base: Path, tiny_llama: Path, told: Path, lines: Write, tmp_path: Path, kind: str
) -> None:
    draw = random.Random(10)
    early = {"patience": 1, "epochs": 30, "held_out": 20, "learning_rate": 3e-2}
    if kind == "texts":
        record = learn_from(tiny_llama, told, tmp_path / "run", **TASK, config=early)
    else:
        rows = [(tagged if kind == "tags" else asked)(draw) for _ in range(120)]
        record = learn_from(base, lines(rows), tmp_path / "run", config=early)
    assert record.best is not None
    assert record.best.metric == "loss"
    assert record.best.step <= record.steps < 30 * record.data.examples["train"] / 8
    assert record.data.examples["validation"] > 0


def whole_and_interrupted(
    lesson: Lesson, folder: Path, *, steps_after_half: int
) -> tuple[TrainingRecord, TrainingRecord]:
    """What a training says that ran at once, and the same that was stopped after its half and started again."""
    whole, _ = learn(lesson, folder / "whole")

    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "fine-tune" and done == whole.steps // 2 + steps_after_half:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson, folder / "run", progress=interrupt)
    again, _ = learn(lesson, folder / "run")
    return whole, again


@pytest.mark.exhaustive
def test_an_interrupted_lora_ends_as_an_uninterrupted_one(tiny_llama: Path, told: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, **FEW, lora=4)
    lesson = Lesson(base_model=str(tiny_llama), data=str(told), config=config, **TASK)
    whole, again = whole_and_interrupted(lesson, tmp_path, steps_after_half=1)
    assert (again.checkpoint_sha256, again.value) == (whole.checkpoint_sha256, whole.value)


def test_an_encoder_cannot_learn_to_continue_texts(tiny_checkpoint: Path, told: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="looks at the tokens that follow"):
        learn_from(tiny_checkpoint, told, tmp_path / "run", **TASK, config=FEW)


@pytest.fixture(scope="module")
def retold(lines: Write) -> Path:
    """Texts with what is to be written of them: which of three words is in it, in more words or fewer than it has."""
    draw = random.Random(8)
    said = {"warm": "warm", "slow": "what a slow film it is about two hours back", "best": "the best of the year"}
    rows = [{"text": " ".join(filled(draw, word)), "summary": text} for word, text in [*said.items()] * 80]
    return lines([dict(row) for row in {row["text"]: row for row in rows}.values()])


WRITERS: dict[str, Any] = {
    "t5": lambda ids: T5ForConditionalGeneration(
        T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0, **ids)
    ),
    "bart": lambda ids: BartForConditionalGeneration(
        BartConfig(
            d_model=32,
            max_position_embeddings=64,
            dropout=0.0,
            init_std=0.1,
            forced_eos_token_id=None,
            bos_token_id=ids["decoder_start_token_id"],
            **dict.fromkeys(["encoder_layers", "decoder_layers", "encoder_attention_heads"], 2),
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            **ids,
        )
    ),
}


def writer(kind: str, tiny_checkpoint: Path, folder: Path) -> Path:
    """A random encoder-decoder of 2 layers × 32 on each side."""
    tokenizer = ending_tokenizer(tiny_checkpoint)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = {"vocab_size": len(tokenizer), "pad_token_id": pad, "eos_token_id": end, "decoder_start_token_id": pad}
    WRITERS[kind](ids).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["t5", pytest.param("bart", marks=pytest.mark.exhaustive)])
def test_texts_are_rewritten(kind: str, tiny_checkpoint: Path, retold: Path, tmp_path: Path) -> None:
    base = writer(kind, tiny_checkpoint, tmp_path / "base")
    record = learn_from(base, retold, tmp_path / "run", config={"held_out": 20, "epochs": 12, "learning_rate": 1e-2})
    assert (record.data.task, record.metric, record.labels) == (Task.TEXT2TEXT_GENERATION, "perplexity", ())
    assert record.data.columns == {"text": "text", "label": "summary"}
    assert record.before is not None
    assert record.before.low > 20 > 2 > record.value.high
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "run" / "checkpoint") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )
    total, count, right = 0.0, 0, 0
    with (tmp_path / "run" / "data" / "evaluation.csv").open() as file:
        held_out = list(csv.DictReader(file))
    for row in held_out:
        ids, target = (tokenizer(row[name], return_tensors="pt")["input_ids"] for name in ("text", "target"))
        with torch.inference_mode():
            total += float(model(input_ids=ids, labels=target).loss) * target.shape[1]
            found = model.generate(ids, do_sample=False, num_beams=1, max_new_tokens=20)[0]
        count += target.shape[1]
        right += tokenizer.decode(found, skip_special_tokens=True) == row["target"]
    assert len(held_out) == 20
    assert record.value.value == pytest.approx(np.exp(total / count), rel=1e-4)
    assert right >= 18


@pytest.mark.parametrize(("kind", "most"), [("t5", 64), ("bart", 64), ("bart", 9)])
def test_a_step_learns_from_what_is_written_as_transformers_does(
    kind: str, most: int, tiny_checkpoint: Path, retold: Path, tmp_path: Path
) -> None:
    """The loss of a step over texts and targets of unequal lengths, none of which is that of the other. Of a target
    that was cut off no end is learnt."""
    base = writer(kind, tiny_checkpoint, tmp_path / "base")
    config = {"held_out": 20, "epochs": 1, "batch_size": 400, "learning_rate": 0.0, "max_length_tokens": most}
    record = learn_from(base, retold, tmp_path / "run", config=config)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    with (tmp_path / "run" / "data" / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    cut = {"truncation": True, "max_length": most}
    read = tokenizer([row["text"] for row in rows], return_tensors="pt", padding=True, **cut)
    written = tokenizer([row["target"] for row in rows])["input_ids"]
    targets = torch.full((len(rows), max(map(len, written))), -100)
    for number, ids in enumerate(written):
        kept = ids[: most - 1]  # behind the token that it begins with
        targets[number, : len(kept)] = torch.tensor(kept)
    targets = targets[:, : most - 1].contiguous()
    with torch.inference_mode():
        loss = model(input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=targets).loss
    first = (tmp_path / "run" / "losses.csv").read_text().splitlines()[1]
    assert float(first.split(",")[1]) == pytest.approx(float(loss), rel=1e-5)
    assert (read["input_ids"].shape[1] != targets.shape[1]) is (most == 64)
    assert record.data.lengths is not None
    whole = tokenizer([row["text"] for row in rows])["input_ids"]
    shares = [len(ids) > most or len(ours) > most - 1 for ids, ours in zip(whole, written, strict=True)]
    assert record.data.lengths.truncated_fraction == sum(shares) / len(shares)
    assert (record.data.lengths.truncated_fraction > 0.3) is (most == 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder_start_token_id": None}, "has no decoder_start_token_id"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "cannot be loaded for text2text-generation"),
    ],
)
def test_what_cannot_learn_to_write_is_said(
    change: dict[str, Any], message: str, tiny_checkpoint: Path, retold: Path, tmp_path: Path
) -> None:
    base = writer("t5", tiny_checkpoint, tmp_path / "base")
    (base / "generation_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=message):
        learn_from(base, retold, tmp_path / "run", config={"held_out": 20})


def test_a_tokenizer_of_many_languages_says_which_it_writes(
    tiny_checkpoint: Path, retold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = writer("bart", tiny_checkpoint, tmp_path / "base")
    monkeypatch.setattr(type(AutoTokenizer.from_pretrained(base)), "tgt_lang", None, raising=False)
    with pytest.raises(UserError, match="writes many languages, and its tokenizer does not say which"):
        learn_from(base, retold, tmp_path / "run", config={"held_out": 20})


def test_small_matrices_learn_to_rewrite(tiny_checkpoint: Path, retold: Path, tmp_path: Path) -> None:
    base = writer("t5", tiny_checkpoint, tmp_path / "base")
    config = {"held_out": 20, "epochs": 4, "learning_rate": 2e-2, "lora": 4, "patience": 3}
    record = learn_from(base, retold, tmp_path / "run", config=config)
    assert record.before is not None
    assert record.value.high < record.before.low / 2
    assert record.learnt_weights < record.weights
    assert (record.best and record.best.metric) == "loss"


@pytest.mark.parametrize("target", [5, ["a", "b"], None, " "])
def test_what_is_to_be_written_is_a_text(target: Any, tiny_checkpoint: Path, lines: Write, tmp_path: Path) -> None:
    data = lines([{"text": f"a film {n}", "summary": "a film"} for n in range(8)] + [{"text": "it", "summary": target}])
    with pytest.raises(UserError, match=r"data\.jsonl, row 9"):
        learn_from(tiny_checkpoint, data, tmp_path / "run", config={"held_out": 2})


def test_a_base_that_classifies_these_labels_is_judged_before(
    trained: Trained, separable_csv: Path, tmp_path: Path
) -> None:
    record = learn_from(
        trained.out / "checkpoint", separable_csv, tmp_path / "run", config={"epochs": 1, "held_out": 40}
    )
    assert trained.record.before is None
    assert record.before is not None
    assert record.before.value == trained.record.value.value


ONE: dict[str, Any] = {"config": {"held_out": 1}}
ASKED = {"question": "what", "context": "it is"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"tokens": ["a", "film"], "tags": ["O"]}] * 3, {}, "row 1: there is not one tag for each of 2 words"),
        ([{"question": "what", "context": "it is", "answers": 3}], {}, "row 1: the answers are not texts"),
        ([{"text": "a", "label": "x"}], {"problem": Problem.REGRESSION}, "the label 'x' is not a number"),
        ([{"text": "a", "label": "x"}], {"problem": Problem.TAGS}, "text-classification is no tags problem"),
        ([{"text": "a", "label": "x"}], {"task": Task.FILL_MASK}, "fill-mask cannot be fine-tuned here"),
        ([{"text": "a"}], {}, "no column named label"),
        ([{"text": "a", "label": ["x"]}], {"problem": Problem.SINGLE_LABEL}, "is not one label"),
        ([{"text": "a", "label": "['x', 'y']"}], {}, "row 1: .* is not a JSON list"),
        ([{"text": "a", "label": [0, 1]}, {"text": "b", "label": [1, 1]}], {}, "does not say which is which"),
        ([{"text": "a", "label": [[1], 0]}, {"text": "b", "label": [1, "x"]}], {}, "cannot hold out"),
        ([{"tokens": ["a"], "tags": [0]}] * 2, {"config": {"held_out": 1}}, "cannot hold out"),
        ([{"tokens": ["a"], "tags": [0]}, {"tokens": ["b"], "tags": [1]}], ONE, "which of them is no entity"),
        ([{**ASKED, "answers": {"text": ["it"], "answer_start": [0, 3]}}], {}, "1 answers, and answer_start has 2"),
        ([{**ASKED, "answers": {"text": ["it"], "answer_start": 3}}], {}, "'it' is not where answer_start says"),
        ([{**ASKED, "answers": "{'text': ['it']}"}], {}, "is not JSON"),
        ([{**ASKED, "context": f"it {n}", "answers": "no"} for n in range(3)], ONE, "there is nothing to learn"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], {}, "row 2: column 'label' has no label"),
        ([{"text": "a", "label": "x"}], TASK, "cannot hold out"),
    ],
)
def test_bad_rows_are_named(
    tiny_checkpoint: Path, lines: Write, tmp_path: Path, rows: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        learn_from(tiny_checkpoint, lines(rows), tmp_path / "run", **options)


def test_an_answer_that_was_cut_off_or_is_not_there_teaches_nothing(base: Path, lines: Write, tmp_path: Path) -> None:
    """The loss of what is left is learnt down; 30 of 60 rows would keep it up."""
    draw = random.Random(8)
    rows = [asked(draw) for _ in range(180)]
    for row in rows[::2]:
        row["answers"] = {"text": ["nowhere"]}
    record = learn_from(base, lines(rows), tmp_path / "run", config={"epochs": 10})
    assert record.final_loss < 0.2
    assert record.value.value == pytest.approx(0.5, abs=0.15)  # of the held-out answers half are nowhere


def test_a_tag_that_only_our_own_held_out_part_has_is_known(base: Path, lines: Write, tmp_path: Path) -> None:
    rows = [{"tokens": ["film", word], "tags": ["O", f"B-{word}"]} for word in "abcdefghijklmnop"]
    record = learn_from(base, lines(rows), tmp_path / "run", config={"held_out": 4, "epochs": 1})
    assert len(record.labels) == 17


def test_interrupted_pictures_end_as_uninterrupted_ones(tiny_resnet: Path, digits: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=3, held_out=300)
    lesson = Lesson(base_model=str(tiny_resnet), data=str(digits), config=config)
    whole, again = whole_and_interrupted(lesson, tmp_path, steps_after_half=6)
    assert (again.checkpoint_sha256, again.final_loss) == (whole.checkpoint_sha256, whole.final_loss)
