"""Encoder-decoders that hear: a recording is read, and what is said in it is written."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.generate.decoder import reads
from artifact.generate.encoder import Read
from artifact.language import Reading
from artifact.predict.golden import Sampled
from artifact.predict.sounds import SoundSettings
from artifact.recordings import Recordings
from errors import UserError
from exporter.language.family import Begun, Family, Sample
from exporter.language.graph_files import ENCODER, LISTENING
from exporter.language.passages import LONGEST, Passages, source_name
from exporter.language.seq2seq.traces import writer_shape
from exporter.language.seq2seq.writers import WRITTEN, trace_both
from exporter.recordings import compared, tones
from exporter.request import Source
from models.recordings import heard, load_extractor
from models.starts import never_first, start_ids

PRACTISED = 32
"""Recordings that weights are rounded by: an encoder reads each as one of thirty seconds."""


def listeners(checkpoint: Path, language: str | None) -> Family:
    """How a checkpoint that hears is exported, to write in one language.

    Raises `UserError` for one whose recordings cannot be prepared without transformers.
    """
    found = _Listening(checkpoint, heard(str(checkpoint))[1], language)
    return Family(
        files=LISTENING,
        shape=writer_shape,
        trace=trace_both,
        passages=found.passages,
        practice=found.practice,
        samples=found.samples,
        begin=found.begin,
        reading=found.reading,
    )


@dataclass(frozen=True, slots=True)
class _Listening:
    """One checkpoint, how recordings become its features, and the language that it shall write, if that is said."""

    checkpoint: Path
    sound: SoundSettings
    language: str | None

    def reading(self, model: Any) -> Reading:
        ends = model.generation_config.eos_token_id
        return Reading(
            encoder=ENCODER,
            most_read_tokens=None,
            start_ids=start_ids(model, self.language),
            never_first_ids=never_first(model),
            end_ids=() if ends is None else (int(np.atleast_1d(ends)[0]),),
            sound=self.sound,
        )

    def begin(self, model: Any, read: Read) -> Begun:
        return list(start_ids(model, self.language)[:1]), reads([read])

    def samples(self, model: Any, tokenizer: Any) -> Iterator[Sample]:
        """Tones. Raises `UserError` where transformers makes other features of them."""
        extractor = load_extractor(self.checkpoint)
        for item in compared(extractor, self.sound):
            if not item.agrees:
                raise UserError(
                    f"{type(extractor).__name__} prepares recordings otherwise than its settings say",
                    "save the checkpoint's own feature extractor beside the weights",
                )
            file = base64.b64encode(item.data).decode()
            yield Sample(item.mine, {"file": file, "features": Sampled.of(item.theirs)})

    def passages(self, source: Source | None, model: Any, tokenizer: Any, context: int) -> Passages:
        """Recordings, and what is to be written of each: as a column says, or else what PyTorch writes."""
        rows = None if source is None else source.rows(LISTENING.task)
        name, reading = source_name(source), self.reading(model)
        items = tuple(map(str, rows.texts)) if rows else tones(self.sound.rate_hz)
        read, told = Recordings(items, self.sound), len(reading.told_ids)
        if rows is None or not rows.is_labelled:
            written = [self._own(model, reading, read[place], context) for place in range(len(read))]
            name = f"{name if rows else 'tones'}, and what PyTorch writes of it"
        else:
            ids = tokenizer(list(map(str, rows.labels)), add_special_tokens=False)["input_ids"]
            written = [reading.row(row, min(LONGEST, context)) for row in ids]
        kept = [place for place, row in enumerate(written) if len(row) > told]
        if not kept:
            raise UserError(f"nothing is written of any recording of {name}", "give others with --data")
        return Passages(name, tuple(written[place] for place in kept), read.select(kept), told)

    def practice(self, source: Source | None, model: Any, tokenizer: Any, context: int) -> Passages:
        few = None if source is None else Source(source.path, source.columns, min(source.limit or PRACTISED, PRACTISED))
        return self.passages(few, model, tokenizer, context)

    def _own(self, model: Any, reading: Reading, features: NDArray[np.float32], context: int) -> tuple[int, ...]:
        """What PyTorch writes of a recording, greedily and as the checkpoint's own settings say, from start to end."""
        most = min(WRITTEN, context - len(reading.start_ids))
        said = {} if self.language is None else {"language": self.language}
        with torch.inference_mode():
            (found,) = model.generate(
                torch.from_numpy(features[None]),
                do_sample=False,
                num_beams=1,
                max_new_tokens=most,
                return_timestamps=False,
                **said,
            ).tolist()
        has_ended = len(found) < most  # transformers tells neither what it begins with nor the end
        return (*reading.start_ids, *found, *(reading.end_ids if has_ended else ()))
