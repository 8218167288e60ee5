"""Encoder-decoders exported by the command: what is judged, stored once, kept, and refused."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from artifact.generate.decoder import Decoder
from artifact.generate.encoder import Encoder
from artifact.language import LanguageVariant, Reading
from artifact.precision import Precision
from errors import UserError
from exporter.language.export import export_language
from exporter.language.gate import continuation, greedy, prediction, reasons
from exporter.language.reference import Reference
from exporter.language.seq2seq.writers import ENCODER_DECODERS
from exporter.request import Request, Source
from exporter.save import load_graph, save_together
from models.checkpoint import load_model, load_tokenizer
from models.rows import Columns
from models.starts import start_id
from tests.conftest import SENTENCES, within
from tests.exporter.conftest import session

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT4)


def variant(run: Path, precision: Precision) -> LanguageVariant:
    return msgspec.json.decode((run / "variants" / precision / "variant.json").read_bytes(), type=LanguageVariant)


def test_fp32_is_pytorch(rewriting_run: Path) -> None:
    found = variant(rewriting_run, Precision.FP32)
    assert found.passed
    assert (found.task, found.file) == ("text2text-generation", "decoder.onnx")
    assert found.reading == Reading(encoder="encoder.onnx", most_read_tokens=None, start_ids=(0,))
    assert set(found.files) == {"encoder.onnx", "decoder.onnx", "weights.onnx_data"}
    assert found.prediction.error_fraction < 1e-5
    assert found.golden_error_fraction < 1e-5
    assert (found.continuation.equal, found.continuation.prompts) == (len(SENTENCES), len(SENTENCES))
    assert found.continuation.cached_error_fraction < 1e-5
    assert "text2text-generation" in (rewriting_run / "variants.md").read_text()


def test_the_perplexity_is_the_one_that_transformers_computes(
    rewriting_run: Path, learnt_t5: Path, rewritten: Path
) -> None:
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(learnt_t5), AutoTokenizer.from_pretrained(learnt_t5)
    total, tokens = 0.0, 0
    for line in rewritten.read_text().splitlines()[1:]:
        text, target = line.split(",")
        labels = tokenizer(text_target=target, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            loss = model(input_ids=tokenizer(text, return_tensors="pt")["input_ids"], labels=labels).loss
        total += float(loss) * labels.shape[1]
        tokens += labels.shape[1]
    found = variant(rewriting_run, Precision.FP32).prediction
    assert (found.tokens, found.inputs) == (tokens, rewritten.name)
    assert found.perplexity == pytest.approx(np.exp(total / tokens), rel=1e-4)


@pytest.mark.parametrize(("precision", "bits"), [(Precision.INT8_DYNAMIC, 8), (Precision.INT4, 4)])
def test_rounded_weights_predict_nearly_the_same(rewriting_run: Path, precision: Precision, bits: int) -> None:
    found = variant(rewriting_run, precision)
    # of layers that read, what all others attend to, of layers that write, and the head; what reads the same is one
    products = 2 * 4 + 1 + 2 * (2 + 2 + 2) + 1
    assert (found.weight_bits, found.operators["MatMulNBits"]) == (bits, products)
    assert found.operators["GatherBlockQuantized"] == 2
    assert 1e-8 < found.prediction.divergence_nats.value < (1e-4 if bits == 8 else 1e-2)
    assert found.continuation.cached_error_fraction < 1e-2


def test_every_weight_is_stored_once(rewriting_run: Path, learnt_t5: Path) -> None:
    """The table is the encoder's, the decoder's and the head's; two graphs name one place for it."""
    head = AutoTokenizer.from_pretrained(learnt_t5).vocab_size * 64
    for precision in PRECISIONS:
        found, folder = variant(rewriting_run, precision), rewriting_run / "variants" / precision
        tensors = [
            tensor
            for name in ("encoder.onnx", "decoder.onnx")
            for tensor in onnx.load(folder / name, load_external_data=False).graph.initializer
        ]
        told = [{item.key: item.value for item in tensor.external_data} for tensor in tensors]
        places = {int(place["offset"]): int(place["length"]) for place in told if place}
        assert len(places) < sum(map(bool, told))  # some place is read by both
        inside = sum(len(tensor.raw_data) for tensor in tensors)
        bytes_each = {32: 4.0, 16: 2.0, 8: 1 + 3 / 32, 4: 0.5 + 2.5 / 32}
        expected = (found.weights - head) * bytes_each[found.weight_bits] + head * bytes_each[found.head_bits]
        assert 0.95 * expected < sum(places.values()) + inside < 1.05 * expected
        end = max(offset + length for offset, length in places.items())
        assert (folder / "weights.onnx_data").stat().st_size == end  # and nothing else but the rest of pages


def test_without_a_column_pytorch_says_what_is_written(learnt_t5: Path, sentences: Path, tmp_path: Path) -> None:
    request = Request(learnt_t5, tmp_path / "run", (Precision.FP32,), data=Source(sentences, Columns()))
    (exported,) = export_language(request)
    assert exported.variant.passed
    model, tokenizer = load_model(learnt_t5), load_tokenizer(learnt_t5)
    passages = ENCODER_DECODERS.passages(Source(sentences, Columns()), model, tokenizer, 2048)
    for place, row in enumerate(passages.rows):
        said = model.generate(torch.tensor([passages.read[place]]), do_sample=False, num_beams=1, max_new_tokens=64)
        assert said[0].tolist() == list(row)
    assert exported.variant.prediction.inputs == f"{sentences.name}, and what PyTorch writes of it"
    assert not export_language(request)[0].made


def test_a_damaged_graph_is_caught(rewriting_run: Path, learnt_t5: Path, rewritten: Path, tmp_path: Path) -> None:
    """The keys of one layer scaled by a half more: what is written gives it away."""
    source = rewriting_run / "variants" / "fp32"
    graphs = {tmp_path / name: load_graph(source / name) for name in ("encoder.onnx", "decoder.onnx")}
    encoder = graphs[tmp_path / "encoder.onnx"].graph
    name = next(name for name in encoder.initializers if "EncDecAttention" in name)
    value = encoder.initializers[name]
    assert value.const_value is not None
    value.const_value = onnx_ir.tensor(1.5 * value.const_value.numpy(), name=name)
    save_together(graphs, "weights.onnx_data")
    model, source_of = load_model(learnt_t5), Source(rewritten, Columns())
    passages = ENCODER_DECODERS.passages(source_of, model, load_tokenizer(learnt_t5), 2048)
    decoder = Decoder(session(tmp_path / "decoder.onnx"), 2048, Encoder(session(tmp_path / "encoder.onnx")))
    found = prediction(decoder, Reference(model, passages))
    said = reasons(Precision.FP32, found, continuation(decoder, passages, greedy(model, passages, 2048)))
    assert any("a logit differs" in reason for reason in said)


def test_what_cannot_be_exported_is_said(learnt_t5: Path, rewritten: Path, tmp_path: Path) -> None:
    model = load_model(learnt_t5)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(UserError, match="no decoder_start_token_id"):
        start_id(model)
    asked = ("--precisions", "int8-static", "--calibration", rewritten)
    done = within("export", learnt_t5, "--out", tmp_path / "run", *asked)
    assert (done.returncode, "int8-static is not made of language models yet" in done.stderr) == (2, True)
    done = within("export", learnt_t5, "--out", tmp_path / "run", "--task", "text-classification")
    assert (done.returncode, "is for text2text-generation" in done.stderr) == (2, True)


def test_a_bare_checkpoint_is_exported_before_it_is_measured(learnt_t5: Path, rewritten: Path, tmp_path: Path) -> None:
    done = within("compare", learnt_t5, "--data", rewritten, "--out", tmp_path / "compared")
    assert (done.returncode, "steelyard export it, then compare the run" in done.stderr) == (2, True), done.stderr
