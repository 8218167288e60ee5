"""The modules of `artifact.predict` joined into the one file that every artifact carries."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ENTRY = "artifact.predict.command"
OURS = ("artifact", "errors")


def bundle(entry: str = ENTRY) -> str:
    """One Python file with the source of `entry` and of every module of ours that it needs, those first.

    Sources stay as they are but for their imports, which come first and once, and their docstrings, of which the
    entry's becomes the file's. Raises `ValueError` where two modules give a name at their top level to different
    things, or one of ours is imported under another name.
    """
    order = _in_order(entry)
    sources = {name: _source(name) for name in order}
    imports = sorted({line for name in order for line in _foreign(sources[name])}, key=_import_order)
    _check_names(sources)
    trees = {name: ast.parse(sources[name]) for name in order}
    title = ast.get_docstring(trees[entry], clean=False)
    parts = [f'"""{title}"""', "\n".join(imports)]
    for name in order:
        parts.append(f"# {'-' * 8} {ast.get_docstring(trees[name], clean=True)}".splitlines()[0])
        parts.append(_body(sources[name], trees[name]))
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


def _source(name: str) -> str:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {name}")
    return Path(spec.origin).read_text(encoding="utf-8")


def _is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] in OURS


def _in_order(entry: str) -> list[str]:
    """The modules that `entry` needs, each behind those that it needs itself."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for node in ast.parse(_source(name)).body:
            if isinstance(node, ast.ImportFrom) and _is_ours(node.module):
                visit(str(node.module))
        order.append(name)

    visit(entry)
    return order


def _foreign(source: str) -> Iterator[str]:
    """Imports at the top level of modules that are not ours, one name to a line."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (f"import {_spelled(name)}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not _is_ours(node.module):
            yield from (f"from {node.module} import {_spelled(name)}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and any(name.asname for name in node.names):
            raise ValueError(f"{node.module} is imported under another name")


def _spelled(name: ast.alias) -> str:
    return name.name if name.asname is None else f"{name.name} as {name.asname}"


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _body(source: str, tree: ast.Module) -> str:
    """A module's source without its docstring and its imports."""
    lines = source.splitlines()
    for number, node in enumerate(tree.body):
        is_docstring = number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            for line in range(node.lineno - 1, (node.end_lineno or node.lineno)):
                lines[line] = ""
    return "\n".join(lines).strip("\n")


def _check_names(sources: dict[str, str]) -> None:
    owners: dict[str, str] = {}
    for module, source in sources.items():
        for name in _given(ast.parse(source)):
            if owners.setdefault(name, module) != module:
                raise ValueError(f"{name} is given both by {owners[name]} and by {module}")


def _given(tree: ast.Module) -> Iterator[str]:
    """Names that a module gives to functions, classes and values at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
