"""What a folder of sentence-transformers says of its pooling; sentence-transformers itself writes the folders."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from artifact.pooling import Pooling as Declared
from artifact.pooling import PoolingMode, asking_for
from artifact.sentences import declared_pooling
from errors import UserError
from models.embedded import minilm


@pytest.fixture(scope="module")
def saved(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder that sentence-transformers wrote with this pooling, and modules after it."""

    def save(mode: str | tuple[str, ...], *after: Any) -> Path:
        folder = tmp_path_factory.mktemp("sentences")
        body = Transformer(str(tiny_checkpoint))
        model = SentenceTransformer(modules=[body, Pooling(32, pooling_mode=mode), *after], device="cpu")
        model.save(str(folder))
        return folder

    return save


@pytest.mark.parametrize("mode", PoolingMode)
@pytest.mark.parametrize("normalize", [False, True])
def test_what_sentence_transformers_saves_is_read(
    saved: Callable[..., Path], mode: PoolingMode, normalize: bool
) -> None:
    folder = saved(mode.value, *([Normalize()] if normalize else []))
    assert declared_pooling(folder) == Declared(mode, normalize)


def test_what_it_saved_before_is_read() -> None:
    assert declared_pooling(minilm()) == Declared(PoolingMode.MEAN, normalize=True)


def test_what_is_not_known_is_no_pooling(saved: Callable[..., Path], tiny_checkpoint: Path) -> None:
    assert declared_pooling(tiny_checkpoint) is None
    assert declared_pooling(saved("weightedmean")) is None
    assert declared_pooling(saved(("mean", "max"))) is None
    assert declared_pooling(saved("mean", Dense(32, 8))) is None


@pytest.mark.parametrize(
    ("name", "text"), [("modules.json", "{"), ("modules.json", "[{}]"), ("1_Pooling/config.json", ""), ("gone", "")]
)
def test_a_damaged_folder_is_an_error(name: str, text: str, tmp_path: Path) -> None:
    for part in ("modules.json", "1_Pooling/config.json"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        shutil.copy(minilm() / part, tmp_path / part)
    if name == "gone":
        (tmp_path / "1_Pooling" / "config.json").unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError):
        declared_pooling(tmp_path)


@pytest.mark.parametrize("path", ["../1_Pooling", "/etc", "1_Pooling/../../1_Pooling"])
def test_a_path_that_leaves_the_folder_is_not_read(path: str, tmp_path: Path) -> None:
    shutil.copytree(minilm() / "1_Pooling", tmp_path / "1_Pooling")
    folder = tmp_path / "model"
    folder.mkdir()
    modules = json.loads((minilm() / "modules.json").read_bytes())
    modules[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="outside of"):
        declared_pooling(folder)


def test_flags_disagree_with_several_poolings(tmp_path: Path) -> None:
    shutil.copytree(minilm() / "1_Pooling", tmp_path / "1_Pooling")
    shutil.copy(minilm() / "modules.json", tmp_path)
    path = tmp_path / "1_Pooling" / "config.json"
    config = json.loads(path.read_bytes()) | {"pooling_mode_max_tokens": True}
    path.write_text(json.dumps(config))
    assert declared_pooling(tmp_path) is None


def test_the_options_that_ask_for_it() -> None:
    assert asking_for(Declared(PoolingMode.CLS, normalize=True)) == "--pooling cls --normalize"
    assert asking_for(Declared(PoolingMode.LAST)) == "--pooling lasttoken"
    assert "such as --pooling mean" in asking_for(None)
