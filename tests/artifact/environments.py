"""Real virtual environments as an artifact's user makes them, one for each set of requirements."""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT, once

BASE = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
"""What `pip install steelyard` brings, without any engine."""


ENGINE = 3
"""Lines that the requirements of every artifact begin with: onnxruntime, numpy, tokenizers."""


class Environments:
    """Makes each environment once for all workers; pip takes the packages from where it takes this project's own."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def python(self, requirements: Path, *more: str) -> Path:
        """The interpreter of an environment that has what a `requirements.txt` names, `more`, and nothing else."""
        lines = requirements.read_text().split()
        asked = ("-r", str(requirements), *more)
        return self._made((*lines, *more), asked) / "bin" / "python"

    def _made(self, wanted: tuple[str, ...], asked: tuple[str, ...]) -> Path:
        """An environment with `wanted`, for which pip is told what is `asked`."""
        begun = self._made(wanted[:ENGINE], wanted[:ENGINE]) if len(wanted) > ENGINE else None
        name = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        with once(self._factory, f"environment-{name[:12]}") as (home, is_there):
            if not is_there:
                if begun:
                    shutil.copytree(begun, home, symlinks=True, copy_function=os.link)
                else:
                    venv.create(home, symlinks=True)
                pip = [
                    sys.executable,
                    "-m",
                    "pip",
                    "--disable-pip-version-check",
                    "--python",
                    str(home / "bin" / "python"),
                ]
                subprocess.run([*pip, "install", "-qq", "--no-compile", *asked], check=True, timeout=300)
        return home


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    return Environments(tmp_path_factory)
