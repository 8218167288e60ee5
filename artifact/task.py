"""What a model is for, and how its raw outputs become an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """Tasks in the field's usual names; `MODULE` is a plain PyTorch module, whose outputs are what they are.

    Models that recognise speech answer in one pass (`SPEECH_RECOGNITION`, by CTC) or write token by token what they
    hear (`SPEECH2TEXT_GENERATION`); model hubs have one name for both.
    """

    TEXT_CLASSIFICATION = "text-classification"
    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105  the field's name of a task
    QUESTION_ANSWERING = "question-answering"
    FILL_MASK = "fill-mask"
    FEATURE_EXTRACTION = "feature-extraction"
    IMAGE_CLASSIFICATION = "image-classification"
    OBJECT_DETECTION = "object-detection"
    IMAGE_SEGMENTATION = "image-segmentation"
    AUDIO_CLASSIFICATION = "audio-classification"
    SPEECH_RECOGNITION = "automatic-speech-recognition"
    TEXT_GENERATION = "text-generation"
    TEXT2TEXT_GENERATION = "text2text-generation"
    SPEECH2TEXT_GENERATION = "speech2text-generation"
    MODULE = "module"


class Activation(StrEnum):
    """What turns logits into scores."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a task's answer lies in its outputs.

    `outputs` are those a graph must give, in order (empty: all that the model gives). `choices` are the outputs where
    the answer is a choice, with the axis of the classes. `per_token` outputs have a value for each token, and those at
    padded positions mean nothing. Where classes are `independent`, each is a choice between itself and nothing.
    """

    outputs: tuple[str, ...]
    choices: Mapping[str, int]
    per_token: bool = False
    independent: bool = False


REWRITES = (Task.TEXT2TEXT_GENERATION, Task.SPEECH2TEXT_GENERATION)
"""Tasks in which a text or a recording is read, and another text is written."""

WRITES = (Task.TEXT_GENERATION, *REWRITES)
"""Tasks that are answered token by token."""

ANSWERS: Mapping[Task, Answer] = {
    Task.TEXT_CLASSIFICATION: Answer(("logits",), {"logits": -1}),
    Task.TOKEN_CLASSIFICATION: Answer(("logits",), {"logits": -1}, per_token=True),
    Task.QUESTION_ANSWERING: Answer(
        ("start_logits", "end_logits"), {"start_logits": -1, "end_logits": -1}, per_token=True
    ),
    Task.FILL_MASK: Answer(("logits",), {"logits": -1}, per_token=True),
    Task.FEATURE_EXTRACTION: Answer(("last_hidden_state",), {}, per_token=True),
    Task.IMAGE_CLASSIFICATION: Answer(("logits",), {"logits": -1}),
    Task.OBJECT_DETECTION: Answer(("logits", "pred_boxes"), {"logits": -1}),
    Task.IMAGE_SEGMENTATION: Answer(("logits",), {"logits": 1}),
    Task.AUDIO_CLASSIFICATION: Answer(("logits",), {"logits": -1}),
    Task.SPEECH_RECOGNITION: Answer(("logits",), {"logits": -1}),
    Task.TEXT_GENERATION: Answer(("logits",), {"logits": -1}, per_token=True),
    Task.TEXT2TEXT_GENERATION: Answer(("logits",), {"logits": -1}, per_token=True),
    Task.SPEECH2TEXT_GENERATION: Answer(("logits",), {"logits": -1}, per_token=True),
    Task.MODULE: Answer((), {}),
}
"""The answer of each task."""

ENDINGS = {
    "ForSequenceClassification": Task.TEXT_CLASSIFICATION,
    "ForTokenClassification": Task.TOKEN_CLASSIFICATION,
    "ForQuestionAnswering": Task.QUESTION_ANSWERING,
    "ForMaskedLM": Task.FILL_MASK,
    "ForImageClassification": Task.IMAGE_CLASSIFICATION,
    "ForObjectDetection": Task.OBJECT_DETECTION,
    "ForSemanticSegmentation": Task.IMAGE_SEGMENTATION,
    "ForAudioClassification": Task.AUDIO_CLASSIFICATION,
    "ForCTC": Task.SPEECH_RECOGNITION,
    "Model": Task.FEATURE_EXTRACTION,
}
"""What the ends of transformers' class names say of their tasks."""
