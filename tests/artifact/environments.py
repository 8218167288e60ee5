"""Real virtual environments as an artifact's user makes them, one for each set of requirements."""

import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BASE = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
"""What `pip install steelyard` brings, without any engine."""


class Environments:
    """Makes each environment once; pip takes the packages from where it takes this project's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[str, ...], Path] = {}

    def python(self, requirements: Path, *more: str) -> Path:
        """The interpreter of an environment that has what a `requirements.txt` names, `more`, and nothing else."""
        wanted = (*requirements.read_text().split(), *more)
        if wanted not in self._made:
            home = self._folder / str(len(self._made))
            venv.create(home, symlinks=True)
            python = home / "bin" / "python"
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
            subprocess.run(
                [*pip, "install", "-qq", "--no-compile", "-r", str(requirements), *more], check=True, timeout=300
            )
            self._made[wanted] = python
        return self._made[wanted]


@pytest.fixture(scope="session")
def environments() -> Iterator[Environments]:
    with tempfile.TemporaryDirectory(prefix="steelyard-environments-") as folder:
        yield Environments(Path(folder))
