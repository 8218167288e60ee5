"""Damaged manifests, golden files, graphs, tokenizers and data files by the ten thousand: none may crash or hang.

Run by hand, after `make demo`:

    .venv/bin/python -m benchmarks.fuzz_artifact runs/demo/artifact --cases 20000

A case changes a few bytes of one file, seals the folder anew as one who means harm would, and opens it, which ends in
an answer or in one sentence. Anything else is printed with its seed. What opens must still pass or fail its self-test.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from artifact.predict.golden import read_golden
from artifact.predict.graph_file import check_graph
from artifact.predict.manifest import read_manifest
from artifact.predict.predictor import Predictor
from artifact.predict.reads import Reads
from artifact.predict.rows import ItemColumns, read_items
from errors import GateFailed, UserError
from tests.artifact.damage import mutated

SLOW_S = 10.0


def seal(folder: Path, name: str, data: bytes) -> None:
    """Write a file and make the manifest's size and hash fit."""
    (folder / name).write_bytes(data)
    if name != "steelyard.json":
        manifest = json.loads((folder / "steelyard.json").read_bytes())
        manifest["files"][name] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / "steelyard.json").write_text(json.dumps(manifest))


def open_it(folder: Path, name: str) -> str:
    """What becomes of a folder whose file `name` was changed."""
    if name == "steelyard.json":
        read_manifest(folder)
    elif name == "golden.json":
        read_golden(folder)
    elif name.endswith(".onnx"):
        check_graph(folder / name)
    elif name.startswith("data."):
        for item, _ in read_items(folder / name, Reads.TEXT, ItemColumns()):
            item.encode("utf-8", "surrogatepass")
        return "read"
    return "differs" if Predictor.open(folder, threads=1).selftest() else "passes"


def main() -> None:
    """Print how each kind of file ended, and every case that is a defect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = b'text,label\n"a, film",1\nplain,0\n'
    lines = b'{"text": "a film", "label": 1}\n{"text": "\\u00e9", "label": 0}\n'
    ends: dict[str, Counter[str]] = {}
    defects = 0
    with TemporaryDirectory(prefix="steelyard-") as temporary:
        folder = Path(shutil.copytree(options.artifact, Path(temporary) / "artifact"))
        whole = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        graph = next(name for name in whole if name.endswith(".onnx"))
        names = ["steelyard.json", "golden.json", "tokenizer.json", "config.json", graph, "data.csv", "data.jsonl"]
        whole |= {"data.csv": rows, "data.jsonl": lines}
        for case in range(options.cases):
            random = np.random.default_rng((options.seed, case))
            name = names[case % len(names)]
            seal(folder, name, mutated(whole[name], random))
            began = time.monotonic()
            try:
                end = open_it(folder, name)
            except (GateFailed, UserError):
                end = "refused"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                end, defects = f"DEFECT {type(error).__name__}", defects + 1
                print(f"case {case}, {name}: {type(error).__name__}: {error}", flush=True)
            if time.monotonic() - began > SLOW_S:
                defects += 1
                print(f"case {case}, {name}: {time.monotonic() - began:.0f} s", flush=True)
            ends.setdefault(name, Counter())[end] += 1
            (folder / name).write_bytes(whole[name])
            (folder / "steelyard.json").write_bytes(whole["steelyard.json"])
    for name, counted in ends.items():
        print(f"{name}: {', '.join(f'{end} {count}' for end, count in counted.most_common())}")
    print(f"{options.cases:,} cases, {defects} defects")


if __name__ == "__main__":
    main()
