"""What is run of the user's examples, and what is right of each: one function for each kind of model."""

from collections.abc import Sequence
from typing import Any

from artifact.examples import Examples
from artifact.judged import Judged
from artifact.pictures import Pictures
from artifact.predict.images import ImageSettings
from artifact.predict.tokens import TextItem
from artifact.recordings import Recordings
from measure.judging import truth_of
from measure.source import ModelSource
from measure.spans import check_room
from measure.workload import (
    CALIBRATION_EXAMPLES,
    Inputs,
    Length,
    Written,
    build_heard_inputs,
    build_inputs,
    build_language_inputs,
    build_picture_inputs,
)

Work = tuple[Inputs, list[Any]]
"""Inputs, and what is right, as `assess_of` takes it."""


def prepared(
    source: ModelSource,
    examples: Examples,
    batch_sizes: Sequence[int],
    lengths: Sequence[Length],
    calibration: Sequence[TextItem],
) -> Work:
    """The examples as a model of this source takes them. Raises `UserError` where nothing that it answers is right or
    wrong, and for an example that it cannot take."""
    if source.writes:
        return _written(source, examples, batch_sizes, lengths)
    inputs = (
        _texts(source, examples, batch_sizes, lengths, calibration[:CALIBRATION_EXAMPLES])
        if source.image is None
        else _pictures(source, source.image, examples, batch_sizes)
    )
    return inputs, truth_of(examples, source, inputs)


def _written(source: ModelSource, examples: Examples, batch_sizes: Sequence[int], lengths: Sequence[Length]) -> Work:
    """Of a language model the tokens that come next are right."""
    texts, encoder, limits = tuple(map(str, examples.texts)), source.encoder(), source.text_limits
    written = None if source.reading is None else Written([str(text) for text in examples.labels], source.reading)
    if written is not None and written.reading.sound is not None:
        inputs = build_heard_inputs(Recordings(texts, written.reading.sound), encoder, limits, batch_sizes, written)
    else:
        inputs = build_language_inputs(texts, encoder, limits, batch_sizes, lengths, written)
    return inputs, inputs.following


def _pictures(source: ModelSource, image: ImageSettings, examples: Examples, batch_sizes: Sequence[int]) -> Inputs:
    files = Pictures(tuple(map(str, examples.texts)), image)
    return build_picture_inputs(files, batch_sizes, source.decided(), source.head)


def _texts(
    source: ModelSource,
    examples: Examples,
    batch_sizes: Sequence[int],
    lengths: Sequence[Length],
    calibration: Sequence[TextItem],
) -> Inputs:
    judged, encoder = source.decided(), source.encoder()
    if judged is Judged.SPAN:
        check_room(examples, encoder)
    return build_inputs(
        examples.texts,
        encoder,
        source.text_limits,
        batch_sizes,
        lengths,
        source.tokenizer,
        calibration,
        judged,
        source.head,
    )
