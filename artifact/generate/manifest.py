"""`steelyard.json` of a language model: what the artifact says of itself, and the evidence it carries."""

from dataclasses import dataclass
from pathlib import Path

from artifact.precision import Precision
from artifact.predict.card import Card
from artifact.predict.folder import MANIFEST, PackedFile, beside, check_named, read_own_version
from artifact.predict.reads import Reads
from artifact.predict.session import SessionConfig
from artifact.predict.sounds import SoundSettings
from artifact.predict.typed import build, read_json
from artifact.task import REWRITES, WRITES, Task

LANGUAGE_SCHEMA_VERSION = 3
MOST_LANGUAGE_MANIFEST_BYTES = 16 * 2**20
MOST_CONTEXT_TOKENS = 2**24


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How the model predicts held-out text beside the reference; `low` and `high` bound a 95 % interval."""

    inputs: str
    texts: int
    tokens: int
    perplexity: float
    reference_perplexity: float
    ratio: float
    ratio_low: float
    ratio_high: float
    divergence_nats: float
    agreement_fraction: float


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """Of an encoder-decoder: the graph that reads, at most how many tokens (`None`: any), and the tokens that every
    text begins with, which are not told; none of `never_first_ids` comes right behind them. With `sound`, recordings
    are read, and this is how they become features."""

    encoder_file: str
    most_read_tokens: int | None
    start_ids: tuple[int, ...]
    never_first_ids: tuple[int, ...]
    sound: SoundSettings | None

    def __post_init__(self) -> None:
        if not self.start_ids:
            raise ValueError("it does not say how a text begins")


@dataclass(frozen=True, kw_only=True)
class LanguageManifest:
    """The manifest. `files` covers every file but the manifest itself; `card` is null with `card_reason` when the
    variant was packed without having been measured.

    A prompt and its continuation have at most `context_tokens`; a text ends at any of `end_ids` and has none of
    `never_ids`. With `rewriting`, a prompt is read, and another text is written.
    """

    schema_version: int
    task: Task
    precision: Precision
    model_file: str
    context_tokens: int
    end_ids: tuple[int, ...]
    never_ids: tuple[int, ...]
    rewriting: Rewriting | None
    chats: bool
    judged: Judged
    session: SessionConfig
    opset: int
    minimum_onnxruntime: str
    reference: str
    card: Card | None
    card_reason: str | None
    versions: dict[str, str]
    files: dict[str, PackedFile]

    def __post_init__(self) -> None:
        if self.task not in WRITES:
            raise ValueError(f"it is for {self.task}, not {' or '.join(WRITES)}")
        if (self.rewriting is None) is (self.task in REWRITES):
            raise ValueError(f"it is for {self.task}, and says how it rewrites, or does not")
        if (self.sound is None) is (self.task is Task.SPEECH2TEXT_GENERATION):
            raise ValueError(f"it is for {self.task}, and says how recordings are read, or does not")
        if not 2 <= self.context_tokens <= MOST_CONTEXT_TOKENS:
            raise ValueError(f"context_tokens is {self.context_tokens}")
        encoder = {} if self.rewriting is None else {"encoder_file": self.rewriting.encoder_file}
        needed = ("config.json", "golden.json", "tokenizer.json")
        check_named({"model_file": self.model_file, **encoder}, needed, self.files)

    @property
    def sound(self) -> SoundSettings | None:
        """How recordings become features; `None` where texts are read."""
        return None if self.rewriting is None else self.rewriting.sound

    @property
    def reads(self) -> Reads:
        """What one item is."""
        return Reads.TEXT if self.sound is None else Reads.SOUND

    @property
    def graphs(self) -> tuple[str, ...]:
        """The files of its graphs, in the order in which they run."""
        return (*(() if self.rewriting is None else (self.rewriting.encoder_file,)), self.model_file)

    @property
    def graph_files(self) -> dict[str, PackedFile]:
        """The graph, and what lies beside it and may hold its weights."""
        return beside(self.model_file, self.files)


def generates(folder: Path) -> bool:
    """Whether an artifact is a language model's; `GateFailed` if its manifest cannot be read."""
    return read_json(folder / MANIFEST, MOST_LANGUAGE_MANIFEST_BYTES).get("task") in WRITES


def read_language_manifest(folder: Path) -> LanguageManifest:
    """The manifest of an artifact; `GateFailed` if it is missing, damaged, or of another version than this code's."""
    value, path = read_own_version(folder, LANGUAGE_SCHEMA_VERSION, MOST_LANGUAGE_MANIFEST_BYTES)
    return build(LanguageManifest, value, str(path))
