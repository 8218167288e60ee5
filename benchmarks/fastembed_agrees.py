"""An embeddings artifact in fastembed, in an environment of its own: does it load as it is, and agree?

Run by hand, with a network:

    .venv/bin/python -m benchmarks.fastembed_agrees

Exports the real MiniLM with mean pooling and normalisation in the graph, packs it, and lets fastembed embed film
reviews with the folder. The reference is PyTorch: transformers' model, pooled and normalised here.
"""

import json
import subprocess
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from artifact.pack import pack
from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from artifact.predict.rows import read_rows
from artifact.run_folder import RunFolder
from artifact.task import Task
from exporter.export import export
from exporter.request import Request
from models.embedded import minilm, movie_reviews

TEXTS = 200
PROGRAM = """
import json, sys
from importlib.metadata import version
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
TextEmbedding.add_custom_model(
    model="local/minilm",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="local/minilm"),
    dim=384,
    model_file="onnx/model.onnx",
)
model = TextEmbedding("local/minilm", specific_model_path=sys.argv[1], local_files_only=True)
vectors = [vector.tolist() for vector in model.embed(json.load(sys.stdin))]
print(json.dumps({"version": version("fastembed"), "vectors": vectors}))
"""


def reference(texts: list[str]) -> np.ndarray:
    """PyTorch's vectors, one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(minilm()), AutoModel.from_pretrained(minilm()).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            mean = model(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
            rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


def main() -> None:
    """Print the versions and the least cosine."""
    texts = [str(row["text"]) for _, row in read_rows(movie_reviews())][:TEXTS]
    with TemporaryDirectory(prefix="steelyard-") as temporary:
        folder = Path(temporary)
        pooling = Pooling(PoolingMode.MEAN, normalize=True)
        export(Request(minilm(), folder / "run", (Precision.FP32,), task=Task.FEATURE_EXTRACTION, pooling=pooling))
        pack(RunFolder(folder / "run"), Precision.FP32, folder / "artifact", card=None, card_reason="a benchmark")
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv/bin/python")
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "fastembed"], check=True)
        done = subprocess.run(
            [python, "-c", PROGRAM, str(folder / "artifact")],
            input=json.dumps(texts),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    vectors, expected = np.asarray(found["vectors"]), reference(texts)
    cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    print(f"fastembed {found['version']}: {len(texts)} texts, least cosine with PyTorch {cosines.min():.7f}")


if __name__ == "__main__":
    main()
