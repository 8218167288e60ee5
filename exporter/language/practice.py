"""What a model does on the texts that derivations learn from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from artifact.generate.cache import CacheShape
from artifact.generate.encoder import IDS, MASK, READ_MASK, Given
from exporter.language.derivations import Derivation
from exporter.language.derive import Seen
from exporter.language.family import Family
from exporter.language.moments import Moments, alike, second_moments
from exporter.language.passages import Passages
from exporter.observe import largest_values
from exporter.request import Source
from exporter.save import load_graph
from exporter.sessions import open_file


@dataclass(frozen=True)
class Practice:
    """Texts of `source`, which an fp32 model in eval mode and its traced graphs in the folder `traced` are told as soon
    as a derivation asks what they show."""

    source: Source | None
    family: Family
    model: Any
    tokenizer: Any
    shape: CacheShape
    traced: Path

    def seen(self, derivation: Derivation, graph: str) -> Seen:
        """As much as a derivation asks for, of the graph of this name."""
        moments = self.moments if derivation.is_calibrated else {}
        return Seen(moments, self.largest[graph] if derivation.overflows else {})

    @cached_property
    def passages(self) -> Passages:
        return self.family.practice(self.source, self.model, self.tokenizer, self.shape.context)

    @cached_property
    def moments(self) -> Moments:
        return second_moments(self.model, self.passages)

    @cached_property
    def largest(self) -> Mapping[str, Mapping[str, float]]:
        """The largest magnitude of each value of each graph."""
        batches = {self.family.files.decoder: self._told()}
        if self.family.files.encoder is not None:
            batches[self.family.files.encoder] = (inputs for _, inputs in self._batches())
        return {name: largest_values(load_graph(self.traced / name), given) for name, given in batches.items()}

    def _told(self) -> Iterator[Given]:
        """What the decoder's graph is given: each text at once, with nothing before it."""
        encoder = self.family.files.encoder
        reader = None if encoder is None else open_file(self.traced / encoder)
        for ids, inputs in self._batches():
            past = {kept.past: np.zeros(kept.size(len(ids), 0), dtype=np.float32) for kept in self.shape.kept}
            read = {} if reader is None else reader.answer(inputs)
            masked = {READ_MASK: inputs[MASK]} if MASK in inputs else {}
            yield {IDS: ids, MASK: np.ones_like(ids), **past, **read, **masked}

    def _batches(self) -> Iterator[tuple[np.ndarray, Given]]:
        for places, tokens in alike(self.passages):
            yield np.array([self.passages.rows[place][:tokens] for place in places]), self.passages.inputs(places)
