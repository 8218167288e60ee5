import ast
import subprocess
import sys
from pathlib import Path

import pytest

from artifact import bundle as module
from artifact.bundle import bundle

ALLOWED = {*sys.stdlib_module_names, "numpy", "tokenizers", "onnxruntime", "PIL", "soundfile", "pyarrow"}


def test_the_file_needs_nothing_of_ours() -> None:
    imported = set()
    for node in ast.walk(ast.parse(bundle())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported <= ALLOWED
    assert {"numpy", "tokenizers", "onnxruntime"} <= imported


def test_the_same_modules_give_the_same_bytes() -> None:
    program = "from artifact.bundle import bundle; import hashlib; print(hashlib.sha256(bundle().encode()).hexdigest())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(module.__file__).parents[1])},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_every_function_stands_there_once_with_its_docstring() -> None:
    tree = ast.parse(bundle())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(names) == len(set(names)) > 50
    assert {"Predictor", "UserError", "main", "check_graph"} <= set(names)
    assert str(ast.get_docstring(tree)).startswith("The command line of an artifact.")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of ours by another name, to make it wrong."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "OURS", ("parts",))
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "parts"


def test_modules_come_behind_those_that_they_need(package: Path) -> None:
    (package / "one.py").write_text('"""One."""\n\nimport os\n\nONE = os.sep\n')
    (package / "two.py").write_text('"""Two."""\n\nimport os\n\nfrom parts.one import ONE\n\nTWO = ONE * 2\n')
    found = bundle("parts.two")
    assert found.startswith('"""Two."""')
    assert found.count("import os") == 1
    assert "parts" not in found
    scope: dict[str, object] = {}
    exec(found, scope)
    assert scope["TWO"] == "//"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("from parts.one import ONE\nONE = 2\n", "ONE is given both by parts.one and by parts.two"),
        ("from parts.one import ONE as OTHER\n", "imported under another name"),
    ],
)
def test_what_cannot_be_joined_is_refused(package: Path, second: str, message: str) -> None:
    (package / "one.py").write_text('"""One."""\n\nONE = 1\n')
    (package / "two.py").write_text(f'"""Two."""\n\n{second}')
    with pytest.raises(ValueError, match=message):
        bundle("parts.two")
