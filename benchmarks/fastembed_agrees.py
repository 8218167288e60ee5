"""An embeddings artifact in fastembed, in an environment of its own: does it load as it is, and agree?

Run by hand, with a network:

    .venv/bin/python -m benchmarks.fastembed_agrees

Exports the real MiniLM as its folder says, packs it, and lets fastembed embed film reviews with the artifact's folder,
short ones and some that are cut. The reference is sentence-transformers.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sentence_transformers import SentenceTransformer

from artifact.predict.rows import read_rows
from models.embedded import minilm, movie_reviews

TEXTS, LONG = 200, 20
"""The first ones, and the longest, which are cut."""
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
    """sentence-transformers' own vectors, one text at a time."""
    return np.asarray(SentenceTransformer(str(minilm()), device="cpu").encode(texts, batch_size=1))


def main() -> None:
    """Print the versions and the least cosine."""
    every = [str(row["text"]) for _, row in read_rows(movie_reviews())]
    texts = [*every[:TEXTS], *sorted(every, key=len)[-LONG:]]
    with TemporaryDirectory(prefix="steelyard-") as temporary:
        folder = Path(temporary)
        steelyard = [sys.executable, "-m", "cli"]
        subprocess.run(
            [*steelyard, "export", str(minilm()), "--out", f"{folder}/run", "--precisions", "fp32"], check=True
        )
        packed = ["--precision", "fp32", "--out", f"{folder}/artifact"]
        subprocess.run([*steelyard, "pack", f"{folder}/run", *packed], check=True)
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
    print(
        f"fastembed {found['version']}: {len(texts)} texts, least cosine with sentence-transformers {cosines.min():.7f}"
    )


if __name__ == "__main__":
    main()
