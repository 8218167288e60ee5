"""Answer texts with a packed model.

This one file is both a module of Steelyard and, copied byte for byte, the `predict.py` of every artifact. So it imports
nothing but the standard library, numpy, tokenizers and onnxruntime, and what is measured is also what serves.

    python predict.py "A film to remember."          one line per text: label, score, text
    python predict.py --json < texts.txt             one JSON object per line of standard input
    python predict.py --selftest                     the packed examples must give the reference's answers

    from predict import Predictor
    predictor = Predictor.open("path/to/artifact")
    predictor.predict(["A film to remember."])
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

SCHEMA_VERSION = 1
MANIFEST = "steelyard.json"
BATCH_TOKENS = 2048
BATCH_ROWS = 32


class ArtifactError(Exception):
    """The artifact is damaged, incomplete or not usable here; the message names the file."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: the best label, its score, and the score of every label."""

    label: str
    score: float
    scores: dict[str, float]


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may really use: CPU affinity, then the cgroup's quota rounded down, at least one.

    Engines size their pools by the host's cores and so oversubscribe a container. `root` is where `/proc` and `/sys`
    are looked for.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(root)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """CPU quota of this process's cgroup (version 2, then 1) in cores, or `None` where there is none."""
    base = root / "sys/fs/cgroup"
    folders = [base, base / "cpu"]
    try:
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            folder = line.split(":", 2)[2].lstrip("/")
            for parent in (Path(folder), *Path(folder).parents):
                folders += [base / parent, base / "cpu" / parent]
    except (OSError, IndexError):
        pass
    quotas = []
    for limits in dict.fromkeys(folders):
        try:
            if (limits / "cpu.max").is_file():
                quota, period = (limits / "cpu.max").read_text().split()
            else:
                quota = (limits / "cpu.cfs_quota_us").read_text()
                period = (limits / "cpu.cfs_period_us").read_text()
            if quota.strip() not in ("max", "-1"):
                quotas.append(float(quota) / float(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(quotas) if quotas else None


class TextEncoder:
    """Texts to padded batches, with the ids that transformers gives.

    Padding and truncation baked into `tokenizer.json` are switched off (some files pad every text to 128 tokens);
    truncation follows `max_length_tokens`, and a batch is padded to its own longest row.
    """

    def __init__(
        self,
        tokenizer_json: str,
        *,
        max_length_tokens: int,
        pad_id: int,
        pad_type_id: int,
        pad_left: bool,
        truncate_left: bool = False,
    ) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length_tokens, direction="left" if truncate_left else "right")
        self._pad_id = pad_id
        self._pad_type_id = pad_type_id
        self._pad_left = pad_left

    def encode(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Ids of each text, unpadded: `input_ids`, `attention_mask` and `token_type_ids`, each of the text's length."""
        return [
            {"input_ids": item.ids, "attention_mask": item.attention_mask, "token_type_ids": item.type_ids}
            for item in self._tokenizer.encode_batch(list(texts))
        ]

    def pad(self, encoded: Sequence[Mapping[str, Sequence[int]]], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Stack encoded texts as `pad_rows` does, with this tokenizer's padding."""
        return pad_rows(encoded, names, pad_id=self._pad_id, pad_type_id=self._pad_type_id, pad_left=self._pad_left)


def pad_rows(
    encoded: Sequence[Mapping[str, Sequence[int]]],
    names: Sequence[str],
    *,
    pad_id: int,
    pad_type_id: int,
    pad_left: bool,
) -> dict[str, NDArray[np.int64]]:
    """Stack encoded texts into int64 arrays of shape (batch, longest row), one for each of `names`.

    Raises `ArtifactError` for a name that a tokenizer cannot fill.
    """
    fill = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": pad_type_id}
    longest = max((len(item["input_ids"]) for item in encoded), default=0)
    batch = {}
    for name in names:
        if name not in fill:
            raise ArtifactError(f"the model wants an input '{name}', which no tokenizer gives")
        array = np.full((len(encoded), longest), fill[name], dtype=np.int64)
        for row, item in enumerate(encoded):
            values = item[name]
            if pad_left:
                array[row, longest - len(values) :] = values
            else:
                array[row, : len(values)] = values
        batch[name] = array
    return batch


def scores_from_logits(logits: NDArray[np.float32], activation: str) -> NDArray[np.float64]:
    """Scores of shape (batch, labels): `softmax` over labels, `sigmoid` of each, or `none`."""
    values = logits.astype(np.float64)
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    if activation == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, -values)))
    return values


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers in batches of similar length: at most `BATCH_ROWS` rows and `BATCH_TOKENS` padded tokens each."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == BATCH_ROWS or (len(batch) + 1) * lengths[row] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; `ArtifactError` if it would lie outside or is missing."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"a file outside of {folder} is named: {name}")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; copy the folder again")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `ArtifactError` when it is missing or is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: {path.parent} is not an artifact") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} does not hold a JSON object")
    return value


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; `ArtifactError` if it is missing or was written for another version of this file."""
    manifest = read_json(folder / MANIFEST)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{folder / MANIFEST} has schema_version {manifest.get('schema_version')!r}; this predict.py reads "
            f"{SCHEMA_VERSION}: use the predict.py that came with the artifact"
        )
    return manifest


def check_hashes(folder: Path, files: Mapping[str, str]) -> None:
    """Compare every file with the SHA-256 in the manifest; `ArtifactError` names the first that differs."""
    for name, expected in files.items():
        path = inside(folder, name)
        try:
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from None
        if actual != expected:
            raise ArtifactError(
                f"{path} was changed or damaged (sha256 {actual[:12]}…, expected {expected[:12]}…); "
                "copy the artifact again"
            )


class Predictor:
    """A packed classifier, loaded. One instance may be shared by threads."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ArtifactError(f"onnxruntime cannot be loaded ({error}); pip install -r requirements.txt") from None
        limits, config = manifest["limits"], manifest["session"]
        self.folder = folder
        self.labels: tuple[str, ...] = tuple(manifest["labels"])
        self.activation: str = manifest["activation"]
        self.threads = threads
        self.encoder = TextEncoder(
            inside(folder, "tokenizer.json").read_text(encoding="utf-8"),
            max_length_tokens=limits["max_length_tokens"],
            pad_id=limits["pad_id"],
            pad_type_id=limits["pad_type_id"],
            pad_left=limits["pad_left"],
            truncate_left=limits.get("truncate_left", False),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        level = config["graph_optimization_level"]
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, "ORT_DISABLE_ALL" if level == "none" else f"ORT_ENABLE_{level.upper()}"
        )
        options.enable_cpu_mem_arena = config.get("arena", True)
        options.enable_mem_pattern = config.get("memory_pattern", True)
        spinning = "1" if config.get("spinning", True) else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        try:
            self._session = onnxruntime.InferenceSession(
                str(inside(folder, manifest["model_file"])),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=config["disabled_optimizers"],
            )
        except Exception as error:  # onnxruntime raises many types, all of them about this file
            raise ArtifactError(f"onnxruntime cannot load {manifest['model_file']}: {error}") from error
        self.input_names = [item.name for item in self._session.get_inputs()]

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None) -> "Predictor":
        """Check every file against the manifest, then load the model on `threads` (default: the usable cores).

        Raises `ArtifactError` for a changed, missing or unreadable file.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            files = manifest["sha256"]
            unproved = {manifest["model_file"], "config.json", "tokenizer.json", "golden.json"} - files.keys()
            check_hashes(folder, files)
            if unproved:
                raise ArtifactError(f"{folder / MANIFEST} has no sha256 of {min(unproved)}")
            named = read_json(folder / "config.json").get("id2label")
            if named and [named[str(number)] for number in range(len(named))] != manifest["labels"]:
                raise ArtifactError(f"{folder / MANIFEST} has other labels than config.json; copy the artifact again")
            return cls(folder, manifest, threads or usable_cores())
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{folder / MANIFEST} lacks or mistypes {error}") from error

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Raw outputs, float32 (texts, labels), in the order of `texts`."""
        encoded = self.encoder.encode(texts)
        outputs = np.zeros((len(encoded), len(self.labels)), dtype=np.float32)
        for rows in batches_by_length([len(item["input_ids"]) for item in encoded]):
            batch = self.encoder.pad([encoded[row] for row in rows], self.input_names)
            outputs[rows] = self.run(batch)
        return outputs

    def run(self, batch: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Raw outputs, float32 (batch, labels), of one padded batch that has exactly `input_names`."""
        return np.asarray(self._session.run(["logits"], dict(batch))[0])

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction for each text, in order. Raises `TypeError` for anything but a list of strings."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("predict takes a list of texts, such as ['A film to remember.']")
        scores = scores_from_logits(self.logits(texts), self.activation)
        return [
            Prediction(self.labels[best], float(row[best]), dict(zip(self.labels, map(float, row), strict=True)))
            for row, best in zip(scores, scores.argmax(axis=-1), strict=True)
        ]

    def selftest(self) -> list[str]:
        """Run the packed examples; return what differs from the reference (empty: all agree).

        Ids must be equal, each logit within the packed tolerance, and the label the same wherever the reference's own
        margin is wider than twice the tolerance.
        """
        golden = read_json(self.folder / "golden.json")
        tolerance = float(golden["tolerance"])
        problems = []
        for number, example in enumerate(golden["examples"]):
            if self.encoder.encode([example["text"]])[0]["input_ids"] != example["input_ids"]:
                problems.append(f"example {number}: the token ids differ")
                continue
            expected = np.asarray(example["logits"], dtype=np.float64)
            actual = self.logits([example["text"]])[0]
            error = float(np.abs(actual - expected).max())
            if not error <= tolerance:  # also true for NaN
                problems.append(f"example {number}: a logit is off by {error:.4g}, allowed is {tolerance:.4g}")
            ranked = np.sort(expected)
            clear = expected.size > 1 and ranked[-1] - ranked[-2] > 2 * tolerance
            if clear and actual.argmax() != expected.argmax():
                problems.append(f"example {number}: the label differs")
        if not golden["examples"]:
            problems.append("golden.json holds no example")
        return problems


def lines(predictor: Predictor, texts: Sequence[str], *, as_json: bool) -> Iterator[str]:
    """One line for each text: label, score and text between tabs, or a JSON object."""
    for text, prediction in zip(texts, predictor.predict(texts), strict=True):
        if as_json:
            yield json.dumps({"text": text, **asdict(prediction)}, ensure_ascii=False)
        else:
            yield f"{prediction.label}\t{prediction.score:.4f}\t{text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of an artifact; returns the exit code (1: a check did not confirm)."""
    parser = argparse.ArgumentParser(description="Answer texts with this artifact.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; without any, one per line of standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object per text")
    parser.add_argument("--selftest", action="store_true", help="compare with the packed reference examples")
    parser.add_argument("--threads", type=int, help="threads (default: the cores this process may use)")
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        parser.error("--threads takes a number of at least 1")
    try:
        predictor = Predictor.open(Path(__file__).resolve().parent, threads=options.threads)
        if options.selftest:
            problems = predictor.selftest()
            print("\n".join(problems) or f"selftest passed on {predictor.threads} threads")
            return 1 if problems else 0
        try:
            texts = options.texts or [line.rstrip("\n") for line in sys.stdin]
            "".join(texts).encode()
        except UnicodeError as error:
            parser.error(f"a text is not UTF-8: {error}")
        for line in lines(predictor, texts, as_json=options.json):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
