"""What differs between kinds of models that write text: decoders alone, and those behind an encoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir

from artifact.generate.cache import CacheShape
from artifact.generate.encoder import Given
from artifact.language import Reading
from artifact.task import Task
from exporter.language.passages import Passages
from exporter.request import Source

Begun = tuple[list[int], Given]
"""The tokens that a decoder begins with, and what an encoder is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How models of one kind are exported.

    `decoder` and `encoder` name the graphs' files; `weights` that of a file that both keep theirs in, `None` where a
    graph keeps its own. `trace` gives the graphs by their names. `passages` are texts that a model is judged by, and
    `practice` those it is calibrated on; `begin` says how a text of these ids is gone on with, and `reading` what an
    artifact must know of a model that reads one text to write another.
    """

    task: Task
    decoder: str
    encoder: str | None
    weights: str | None
    shape: Callable[[Any], CacheShape]
    trace: Callable[[Any], Mapping[str, onnx_ir.Model]]
    passages: Callable[[Source | None, Any, Any, int], Passages]
    practice: Callable[[Source | None, Any, Any, int], Passages]
    begin: Callable[[Any, Sequence[int]], Begun]
    reading: Callable[[Any], Reading | None]

    @property
    def graphs(self) -> tuple[str, ...]:
        """The files of its graphs."""
        return (self.decoder,) if self.encoder is None else (self.encoder, self.decoder)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a variant may have."""
        return (*self.graphs, self.weights or f"{self.decoder}_data")
