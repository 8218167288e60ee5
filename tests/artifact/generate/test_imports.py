"""Text is generated where little is installed."""

import sys

from tests.conftest import loaded_after
from tests.test_architecture import imports, sources

LIBRARIES = {"numpy", "jinja2", "tokenizers", "onnxruntime", "errors"}


def test_it_imports_no_more_than_it_says() -> None:
    paths = [path for path in sources("artifact") if path.parent.name == "generate"]
    assert len(paths) == 13
    packed = ("artifact.generate.", "artifact.predict.", "artifact.precision", "artifact.task")
    for path in paths:
        used = {module for module, _ in imports(path) if not module.startswith(packed)}
        tops = {module.partition(".")[0] for module in used}
        assert tops <= LIBRARIES | sys.stdlib_module_names, path


def test_it_loads_neither_torch_nor_an_engine() -> None:
    loaded = loaded_after("import artifact.generate.command")
    assert loaded >= {"numpy", "jinja2", "tokenizers"}
    assert not loaded & {"torch", "transformers", "msgspec", "onnxruntime"}
