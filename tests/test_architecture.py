"""Who may import whom, what must not be loaded where, and where an engine's name may stand."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from exporter.request import Source
from runtimes.registry import REGISTRY
from tests.conftest import ROOT, loaded_after

ROOMS = ("artifact", "models", "exporter", "runtimes", "measure", "report", "side_by_side", "commands")
MAY_IMPORT = {
    "errors": set[str](),
    "artifact": {"errors"},
    "models": {"errors", "artifact"},
    "exporter": {"errors", "artifact", "models"},
    "runtimes": {"errors", "artifact"},
    "measure": {"errors", "artifact", "runtimes"},
    "report": {"errors", "artifact", "runtimes", "measure"},
    "side_by_side": {"errors", "artifact", "models", "measure", "report"},
    "commands": {"errors", *ROOMS},
    "cli": {"errors", *ROOMS},
}
ENGINES_BELONG_TO = ("runtimes", "exporter", "models")
TORCH_FREE = ("artifact", "runtimes", "measure", "report", "commands")


def sources(room: str) -> Iterator[Path]:
    if (ROOT / f"{room}.py").is_file():
        yield ROOT / f"{room}.py"
    yield from sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether that happens inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in inner
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) in inner


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_lies_below_them(room: str) -> None:
    ours = {"cli", *MAY_IMPORT}
    for path in sources(room):
        allowed = MAY_IMPORT[room] | {room}
        for module, inside_function in imports(path):
            top = module.partition(".")[0]
            loads_a_checkpoint = path.match("runtimes/torch_*.py") and inside_function and top == "models"
            assert top not in ours or top in allowed or loads_a_checkpoint, f"{path.name} imports {module}"


def test_the_import_walker_sees_what_stands_in_functions(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import torch.nn\ndef load():\n    from models.checkpoint import load_model\n")
    assert list(imports(path)) == [("torch.nn", False), ("models.checkpoint", True)]


def test_measure_knows_the_runtimes_by_their_protocol_and_registry_alone() -> None:
    used = {module for path in sources("measure") for module, _ in imports(path) if module.startswith("runtimes")}
    assert used <= {"runtimes.base", "runtimes.language", "runtimes.registry"}


def test_report_reads_the_records_of_measure_and_runs_nothing() -> None:
    used = {module for path in sources("report") for module, _ in imports(path) if module.startswith("measure.")}
    records = {"measure.records", "measure.load_records", "measure.machine", "measure.plan", "measure.traffic"}
    pure = {
        "core_distance",
        "cost",
        "decisions",
        "statistics",
        "multiple",
        "proportions",
        "welch",
        "pairing",
        "percentiles",
        "search",
        "workload",
    }
    assert used <= records | {f"measure.{name}" for name in pure}  # functions of what was recorded


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (
            "export_request(Path('nowhere'), Path('new'), None, **USUAL)",
            "nowhere does not exist",
        ),
        (
            "export_request(Path('model'), Path('taken'), None, **USUAL)",
            "--out taken holds something else",
        ),
        (
            "finetune(Lesson(base_model='model', data='data.csv', config=FinetuneConfig()), Path('taken'))",
            "--out taken holds something else",
        ),
        (
            "finetune(Lesson(base_model='model', data='data.csv', config=FinetuneConfig(held_out=40)), Path('new'))",
            "cannot hold out 40 of the 40 different texts",
        ),
        (
            "finetune(Lesson(base_model='./nowhere', data='data.csv', config=FinetuneConfig(held_out=8)), Path('new'))",
            "nowhere does not exist",
        ),
        ("export(Request(Path('model'), Path('new'), FP32, data=REVIEWS))", "data.csv has no column 'review'"),
        ("export_language(Request(Path('llama'), Path('new'), FP32, data=REVIEWS))", "data.csv has no column 'review'"),
        ("export_language(Request(Path('llama'), Path('new'), FP32, language='en'))", "--language is for models that"),
    ],
)
def test_what_is_wrong_with_folders_and_data_is_said_before_torch_is_loaded(
    order: str, words: str, tmp_path: Path
) -> None:
    for path, text in {
        "taken/thesis.tex": "mine",
        "model/config.json": "{}",
        "model/model.safetensors": "",
        "llama/config.json": '{"architectures": ["LlamaForCausalLM"]}',
        "data.csv": "text,label\n" + "".join(f"text {number},{'ab'[number % 2]}\n" for number in range(40)),
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    program = f"""
import os
from pathlib import Path
from artifact.precision import Precision
from commands.stages import export_request, finetune
from errors import UserError
from exporter.export import export
from exporter.language.export import export_language
from exporter.request import Request, Source
from models.rows import Columns
from models.training import FinetuneConfig, Lesson
FP32, REVIEWS = (Precision.FP32,), Source(Path("data.csv"), Columns("review"))
USUAL = dict(module=None, data=(None, 1), calibration=None, columns=(None, None, None))
os.chdir({str(tmp_path)!r})
try:
    {order}
    raise SystemExit("it was not refused")
except UserError as error:
    assert {words!r} in error.message, error.message
"""
    assert not loaded_after(program) & {"torch", "transformers"}


def test_what_was_exported_before_is_found_before_torch_is_loaded(
    tiny_checkpoint: Path, tiny_run: Path, export_texts: Source
) -> None:
    program = f"""
from pathlib import Path
from artifact.precision import Precision
from exporter.export import export
from exporter.request import Request, Source
from models.rows import Columns
both = (Precision.FP32, Precision.INT8_DYNAMIC)
data = Source(Path({str(export_texts.path)!r}), Columns())
request = Request(Path({str(tiny_checkpoint)!r}), Path({str(tiny_run)!r}), both, data=data)
assert [item.made for item in export(request)] == [False, False]
"""
    assert not loaded_after(program) & {"torch", "transformers"}


def test_help_loads_nothing_heavy() -> None:
    program = "sys.argv = ['steelyard', '--help']\nimport cli\ntry:\n    cli.main()\nexcept SystemExit:\n    pass"
    loaded = loaded_after(program)
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "onnxruntime", "onnx", "numpy", "optimum"}


@pytest.mark.parametrize("room", TORCH_FREE)
def test_rooms_that_serve_or_measure_load_no_torch(room: str) -> None:
    names = [path.relative_to(ROOT).with_suffix("") for path in sources(room) if not path.stem.startswith("torch_")]
    absent = {where.module for where in REGISTRY.values() if find_spec(where.package) is None}
    every = (".".join(name.parts).removesuffix(".__init__") for name in names)
    modules = [module for module in every if module not in absent]
    assert len(modules) > 2
    assert not loaded_after(f"import {', '.join(modules)}") & {"torch", "transformers", "optimum", "onnx"}


def test_engines_are_named_only_where_engines_live() -> None:
    """A room that branches on an engine's name would need an edit for every new engine."""
    names = {*REGISTRY, "CPUExecutionProvider", "CUDAExecutionProvider"} - {"null"}
    allowed = {
        "artifact/predict/session.py",  # serves on ONNX Runtime's CPU provider; that is what an artifact is
    }
    for room in ("artifact", "measure", "report", "commands"):
        for path in sources(room):
            if path.relative_to(ROOT).as_posix() in allowed:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert node.value not in names, f"{path.name}, line {node.lineno} names {node.value}"


def test_the_packages_that_install_are_the_rooms() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = project["tool"]["setuptools"]
    inner = ("artifact.generate", "artifact.predict", "exporter.language", "exporter.language.seq2seq")
    assert set(installed["packages"]) == {*ROOMS, *inner}
    assert set(installed["py-modules"]) == {"cli", "errors"}
    others = {room: {path.name for path in (ROOT / room).glob("*.*") if path.suffix != ".py"} for room in ROOMS}
    assert {room: set(names) for room, names in installed["package-data"].items()} == {
        room: names for room, names in others.items() if names
    }
    assert project["project"]["scripts"] == {"steelyard": "cli:main"}
    base = {requirement.split(">")[0] for requirement in project["project"]["dependencies"]}
    assert not base & {"torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu"}


def test_commands_stay_short() -> None:
    tree = ast.parse((ROOT / "cli.py").read_text(encoding="utf-8"))
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        body_starts = function.body[0].lineno
        assert (function.end_lineno or 0) - body_starts < 36, f"{function.name} does too much"


def test_no_pickle_and_no_remote_code() -> None:
    for room in MAY_IMPORT:
        for path in sources(room):
            text = path.read_text(encoding="utf-8")
            assert not {module for module, _ in imports(path)} & {"pickle", "cloudpickle", "dill", "joblib"}, path
            assert "trust_remote_code=True" not in text, path
            assert "allow_pickle=True" not in text, path
            assert "torch.load(" not in text, path
