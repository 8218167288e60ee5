"""What rounding costs a language model here, and what it costs where onnxruntime-genai's model builder rounds.

Run by hand, after `make demo` and `make demo-llm`, with a folder that its builder made of the same checkpoint:

    .venv/bin/python -m onnxruntime_genai.models.builder -i runs/demo-llm/checkpoint -o built -p int4 -e cpu
    .venv/bin/python -m benchmarks.genai_quality runs/demo-llm --built built --data runs/demo/data/evaluation.csv

Both read the same held-out texts, told every word, beside PyTorch fp32: the gate's own figures, with 95 % intervals.
"""

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from artifact.generate.cache import PAST
from artifact.generate.decoder import LOGITS, Decoder
from artifact.generate.encoder import IDS, MASK, NOTHING, Given
from artifact.intervals import Estimate
from artifact.run_folder import RunFolder
from exporter.language.gate import prediction
from exporter.language.passages import read_passages
from exporter.language.reference import Reference
from exporter.request import Source
from exporter.sessions import file_session, open_file
from models.checkpoint import load_model, load_tokenizer
from models.rows import Columns

CONTEXT = 2048


class Built:
    """The model builder's graph, told whole texts as a `Decoder` is."""

    def __init__(self, folder: Path, heads: int, head_size: int) -> None:
        self._session = open_file(folder / "model.onnx")
        self._past = [name for name in self._session.inputs if name.startswith(PAST)]
        self._cache = heads, head_size

    def every(self, ids: NDArray[np.int64], mask: NDArray[np.int64], inputs: Given = NOTHING) -> NDArray[np.float32]:
        """Logits of every token, float32 (rows, tokens, vocabulary)."""
        heads, size = self._cache
        empty = np.zeros((len(ids), heads, 0, size), dtype=np.float32)
        given: dict[str, Any] = {IDS: ids, MASK: mask, **dict.fromkeys(self._past, empty)}
        return self._session.run([LOGITS], given)[0]


def told(value: Estimate) -> str:
    """With its interval."""
    return f"{value.value:.3f} [{value.low:.3f}–{value.high:.3f}]"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with an int4 decoder")
    parser.add_argument("--built", type=Path, required=True, help="a folder of the model builder's")
    parser.add_argument("--data", type=Path, required=True, help="held-out texts")
    parser.add_argument("--texts", type=int, default=200)
    asked = parser.parse_args()
    checkpoint = RunFolder(asked.run).checkpoint
    if checkpoint is None:
        parser.error(f"{asked.run} has no checkpoint")
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    passages = read_passages(Source(asked.data, Columns(), asked.texts), tokenizer, CONTEXT)
    session = file_session(asked.run / "variants" / "int4" / "model.onnx")
    config = model.config
    head_size = config.hidden_size // config.num_attention_heads
    sides = {
        "steelyard int4": Decoder(session, CONTEXT),
        "onnxruntime-genai's builder": cast(Decoder, Built(asked.built, config.num_key_value_heads, head_size)),
    }
    print(f"{len(passages.rows)} texts, {passages.tokens:,} tokens of {passages.name}, beside PyTorch fp32")
    for name, decoder in sides.items():
        found = prediction(decoder, Reference(model, passages))
        print(
            f"{name:<28} perplexity {told(found.perplexity_ratio)} times, divergence {told(found.divergence_nats)} "
            f"nats, agrees {told(found.agreement_fraction)}"
        )


if __name__ == "__main__":
    main()
