"""Which files a variant of a model that writes text has, by the model's kind."""

from dataclasses import dataclass, replace
from pathlib import Path

from artifact.records import sha256_file
from artifact.task import Task
from artifact.tokenizer import read_config
from models.checkpoint import hears


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """What a kind of model is for, and the files of its graphs: that of the decoder, that of the encoder where there is
    one, and that in which both keep their weights; a graph alone keeps its own."""

    task: Task
    decoder: str
    encoder: str | None = None
    weights: str | None = None

    @property
    def graphs(self) -> tuple[str, ...]:
        """The files of its graphs."""
        return (self.decoder,) if self.encoder is None else (self.encoder, self.decoder)

    def sha256s(self, folder: Path) -> dict[str, str]:
        """SHA-256 of each file of a variant in this folder."""
        names = (*self.graphs, self.weights or f"{self.decoder}_data")
        return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


ENCODER, DECODER = "encoder.onnx", "decoder.onnx"

ALONE = GraphFiles(Task.TEXT_GENERATION, "model.onnx")
REWRITING = GraphFiles(Task.TEXT2TEXT_GENERATION, DECODER, ENCODER, "weights.onnx_data")
LISTENING = replace(REWRITING, task=Task.SPEECH2TEXT_GENERATION)


def graph_files_of(checkpoint: Path) -> GraphFiles:
    """Of a checkpoint, by its configuration."""
    if not (checkpoint.is_dir() and read_config(checkpoint, "config.json").get("is_encoder_decoder")):
        return ALONE
    return LISTENING if hears(checkpoint) else REWRITING
