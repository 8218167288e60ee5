"""`steelyard.json`: what an artifact says of itself, and the evidence it carries."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artifact.precision import Precision
from artifact.predict.card import Card
from artifact.predict.folder import PackedFile, beside, check_named, read_own_version
from artifact.predict.images import ImageSettings
from artifact.predict.reads import Reads
from artifact.predict.session import SessionConfig
from artifact.predict.sounds import SoundSettings
from artifact.predict.tokens import TextLimits
from artifact.predict.typed import build
from artifact.task import Activation, Task

SCHEMA_VERSION = 2
MOST_MANIFEST_BYTES = 16 * 2**20
NEEDED = ("config.json", "golden.json")

READS_OF: Mapping[Task, tuple[Reads, ...]] = {
    Task.TEXT_CLASSIFICATION: (Reads.TEXT, Reads.PAIR),
    Task.TOKEN_CLASSIFICATION: (Reads.WORDS,),
    Task.QUESTION_ANSWERING: (Reads.PAIR,),
    Task.FILL_MASK: (Reads.TEXT,),
    Task.FEATURE_EXTRACTION: (Reads.TEXT,),
    Task.IMAGE_CLASSIFICATION: (Reads.IMAGE,),
    Task.AUDIO_CLASSIFICATION: (Reads.SOUND,),
}
"""The tasks that an artifact answers, and what each can be asked with."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest. `files` covers every file but the manifest itself; `card` is null with `card_reason` when the
    variant was packed without having been measured.

    `reads` says what one item is; `limits`, `image` or `sound` how it becomes inputs. `reference` says whose outputs
    the golden examples hold.
    """

    schema_version: int
    task: Task
    reads: Reads
    labels: tuple[str, ...]
    activation: Activation
    precision: Precision
    model_file: str
    outputs: tuple[str, ...]
    limits: TextLimits | None
    image: ImageSettings | None
    sound: SoundSettings | None
    mask_id: int | None
    session: SessionConfig
    opset: int
    ir_version: int
    domains: tuple[str, ...]
    minimum_onnxruntime: str
    reference: str
    card: Card | None
    card_reason: str | None
    versions: dict[str, str]
    files: dict[str, PackedFile]

    def __post_init__(self) -> None:
        if self.reads not in READS_OF.get(self.task, ()):
            raise ValueError(f"nothing answers {self.task} from a {self.reads}")
        told = {Reads.IMAGE: self.image, Reads.SOUND: self.sound, Reads.TEXT: self.limits}
        needed = self.reads if self.reads.is_file else Reads.TEXT
        if [name for name, settings in told.items() if settings is not None] != [needed]:
            raise ValueError(f"it reads a {self.reads}, and does not say how, or says more than that")
        if self.task is Task.FILL_MASK and self.mask_id is None:
            raise ValueError("it fills masks, and does not say which token is one")
        if not self.outputs:
            raise ValueError("it names no output")
        tokenizer = ("tokenizer.json",) if self.limits else ()
        check_named({"model_file": self.model_file}, (*NEEDED, *tokenizer), self.files)

    @property
    def graph_files(self) -> dict[str, PackedFile]:
        """The graph, and what lies beside it and may hold its weights."""
        return beside(self.model_file, self.files)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact; `GateFailed` if it is missing, damaged, or of another version than this code's."""
    value, path = read_own_version(folder, SCHEMA_VERSION, MOST_MANIFEST_BYTES)
    return build(Manifest, value, str(path))
