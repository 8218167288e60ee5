"""How a checkpoint's items are prepared without transformers, proved against transformers, and its golden examples."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.predict.golden import GOLDEN_VERSION, INPUT_TOLERANCE, Golden, GoldenExample, Sampled
from artifact.predict.images import ImageSettings, prepare_picture, read_picture
from artifact.predict.reads import Reads
from artifact.serving import SERVING_VERSION, Serving
from artifact.task import Task
from artifact.tokenizer import text_encoder
from errors import UserError
from exporter.recordings import compared
from exporter.samples import PASSAGES, SAMPLES
from exporter.subject import Subject
from models.checkpoint import Checkpoint, load_tokenizer, text_limits
from models.example_set import ExampleSet
from models.recordings import load_extractor, sound_settings

GOLDEN_EXAMPLES = 12
COMPARED_TEXTS = 2_000
PICTURES = ((64, 48), (48, 64), (97, 60), (40, 40))
"""Heights and widths of the pictures that a processor is compared on."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item and the inputs that transformers makes of it, without batch axis. `example` has the item's fields."""

    inputs: dict[str, NDArray[Any]]
    example: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Proof:
    """How items are prepared, golden examples of it (`None` where that is refused), and each example's inputs."""

    serving: Serving
    golden: Golden | None
    inputs: tuple[Mapping[str, NDArray[Any]], ...] = ()

    def largest_error(
        self, answer: Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]], scales: Mapping[str, float]
    ) -> float:
        """Largest error over the examples, each answered alone, as a share of each output's scale."""
        if self.golden is None:
            raise ValueError("there are no golden examples")
        return max(
            expected.error(found[name][0]) / max(scales[name], 1e-30)
            for example, inputs in zip(self.golden.examples, self.inputs, strict=True)
            for found in [answer({name: array[None] for name, array in inputs.items()})]
            for name, expected in example.outputs.items()
        )


def prove_serving(checkpoint: Checkpoint, subject: Subject, examples: ExampleSet) -> Proof:
    """Settings under which our own preparation gives what transformers' does, and examples that the subject answered.

    What cannot be prepared without transformers is `refused` with its reason, and has no examples. Raises `UserError`
    for a tokenizer whose two files disagree.
    """
    common: dict[str, Any] = {"schema_version": SERVING_VERSION, "checkpoint_sha256": checkpoint.sha256}
    try:
        settings, prepared = _prepared(checkpoint, subject, examples)
        _check_shapes(subject, prepared)
    except _RefusedError as error:
        return Proof(Serving(**common, refused=str(error)), None)
    golden = Golden(
        schema_version=GOLDEN_VERSION,
        checkpoint_sha256=checkpoint.sha256,
        tolerance={},
        examples=tuple(_golden(item, subject) for item in prepared),
    )
    return Proof(Serving(**common, **settings), golden, tuple(item.inputs for item in prepared))


class _RefusedError(Exception):
    """Says why items cannot be prepared without transformers."""


def _prepared(checkpoint: Checkpoint, subject: Subject, examples: ExampleSet) -> tuple[dict[str, Any], list[Prepared]]:
    """Fields of `Serving`, and items that prove them; `_RefusedError` where that cannot be done."""
    if checkpoint.limits is not None:
        return _texts(checkpoint, subject, examples)
    if checkpoint.task is Task.IMAGE_CLASSIFICATION:
        return _pictures(checkpoint, subject)
    if checkpoint.task is Task.AUDIO_CLASSIFICATION:
        return _recordings(checkpoint, subject)
    raise _RefusedError(f"{checkpoint.task} has no answer in an artifact yet")


def _check_shapes(subject: Subject, prepared: Sequence[Prepared]) -> None:
    """Refuse items that are prepared to a size which the graph, taking one alone, does not take."""
    for item in prepared:
        for wanted in subject.inputs:
            found = (1, *item.inputs[wanted.name].shape)
            pairs = zip(wanted.shape, found, strict=False)
            if len(wanted.shape) != len(found) or any(isinstance(a, int) and a != b for a, b in pairs):
                raise _RefusedError(
                    f"items are prepared to {wanted.name} of shape {found[1:]}, which the graph does not take"
                )


def _golden(item: Prepared, subject: Subject) -> GoldenExample:
    """One item with its inputs and the subject's answer to it alone."""
    outputs = subject.answer({name: array[None] for name, array in item.inputs.items()})
    return GoldenExample(
        inputs={name: Sampled.of(array, whole=array.dtype == np.int64) for name, array in item.inputs.items()},
        outputs={name: Sampled.of(array[0]) for name, array in outputs.items()},
        **item.example,
    )


def _texts(checkpoint: Checkpoint, subject: Subject, examples: ExampleSet) -> tuple[dict[str, Any], list[Prepared]]:
    tokenizer, limits = load_tokenizer(checkpoint.directory), text_limits(checkpoint)
    limits = replace(
        limits,
        pad_type_id=tokenizer.pad_token_type_id or 0,
        pad_left=tokenizer.padding_side == "left",
        truncate_left=tokenizer.truncation_side == "left",
    )
    items = examples.items or _sample_items(checkpoint)
    reads = Reads.PAIR if isinstance(items[0], tuple) else Reads.TEXT
    if checkpoint.task is Task.TOKEN_CLASSIFICATION:
        reads = Reads.WORDS
    few = items[:COMPARED_TEXTS]
    theirs = [_encoded(tokenizer, item, limits.max_length_tokens) for item in few]
    if reads is Reads.PAIR:  # a long second text is cut into windows there, and otherwise by transformers
        kept = [row for row, ids in enumerate(theirs) if len(ids["input_ids"]) < limits.max_length_tokens]
        if not kept:
            raise UserError(
                f"every pair has {limits.max_length_tokens} tokens or more, so none is left to prove the artifact with",
                "give some shorter ones with --data",
            )
        few, theirs = tuple(few[row] for row in kept), [theirs[row] for row in kept]
    ours = text_encoder(checkpoint.directory, limits).encode(few)
    names = [item.name for item in subject.inputs]
    for item, mine, expected in zip(few, ours, theirs, strict=True):
        for name in names:
            if mine.get(name) != expected[name]:
                raise UserError(
                    f"{checkpoint.directory / 'tokenizer.json'} gives the {name} {(mine.get(name) or [])[:8]} for "
                    f"'{str(item)[:40]}', transformers gives {expected[name][:8]}",
                    "save the tokenizer again with AutoTokenizer.from_pretrained(…).save_pretrained(folder)",
                )
    by_length = sorted(range(len(few)), key=lambda row: len(theirs[row]["input_ids"]))
    picks = np.linspace(0, len(by_length) - 1, min(GOLDEN_EXAMPLES, len(by_length))).round().astype(int)
    return {"reads": reads, "limits": limits, "mask_id": _mask_id(checkpoint, tokenizer)}, [
        Prepared({name: np.asarray(theirs[row][name], dtype=np.int64) for name in names}, _text_fields(few[row]))
        for row in dict.fromkeys(by_length[pick] for pick in picks)
    ]


def _sample_items(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return tuple(zip(SAMPLES, PASSAGES, strict=True)) if checkpoint.task is Task.QUESTION_ANSWERING else SAMPLES


def _mask_id(checkpoint: Checkpoint, tokenizer: Any) -> int | None:
    return tokenizer.mask_token_id if checkpoint.task is Task.FILL_MASK else None


def _encoded(tokenizer: Any, item: Any, limit: int) -> dict[str, list[int]]:
    """What transformers makes of a text, a pair or a list of words."""
    words = isinstance(item, list)
    texts = item if isinstance(item, tuple) else (item,)
    found = tokenizer(*([text] for text in texts), truncation=True, max_length=limit, is_split_into_words=words)
    return {name: list(values[0]) for name, values in found.items()}


def _text_fields(item: Any) -> dict[str, Any]:
    if isinstance(item, list):
        return {"words": tuple(item)}
    return {"text": item[0], "pair": item[1]} if isinstance(item, tuple) else {"text": item}


def _pictures(checkpoint: Checkpoint, subject: Subject) -> tuple[dict[str, Any], list[Prepared]]:
    with _refusing("its image processor cannot be loaded"):
        from PIL import Image
        from transformers import AutoImageProcessor

        processor = _load(AutoImageProcessor, checkpoint)
    channels = int(subject.inputs[0].shape[1]) if isinstance(subject.inputs[0].shape[1], int) else 3
    name = type(processor).__name__
    with _refusing(f"{name} is not known here"):
        settings = image_settings(processor, channels)
    prepared = []
    for number, (height, width) in enumerate(PICTURES):
        image, data = Image.fromarray(_picture(height, width, number)), io.BytesIO()
        image.save(data, format="PNG")
        with _refusing(f"{name} cannot prepare a picture"):
            expected = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0], dtype=np.float32)
        mine = prepare_picture(read_picture(data.getvalue(), settings), settings)
        prepared.append(_file(subject.inputs[0].name, data.getvalue(), mine, expected, name))
    return {"reads": Reads.IMAGE, "image": settings}, prepared


def _recordings(checkpoint: Checkpoint, subject: Subject) -> tuple[dict[str, Any], list[Prepared]]:
    with _refusing("its feature extractor cannot be loaded"):
        extractor = load_extractor(checkpoint.directory)
    name = type(extractor).__name__
    with _refusing(f"{name} is not known here"):
        settings = sound_settings(extractor, subject.inputs[0].name)
    with _refusing(f"{name} cannot prepare a recording"):
        both = compared(extractor, settings)
    prepared = [_file(settings.input_name, item.data, item.mine, item.theirs, name) for item in both]
    return {"reads": Reads.SOUND, "sound": settings}, prepared


def _load(kind: Any, checkpoint: Checkpoint) -> Any:
    if not (checkpoint.directory / "preprocessor_config.json").is_file():
        raise ValueError("the checkpoint has no preprocessor_config.json, which says how items are prepared")
    return kind.from_pretrained(checkpoint.directory, local_files_only=True)


def _file(name: str, data: bytes, mine: NDArray[np.float32], expected: NDArray[np.float32], processor: str) -> Prepared:
    """A file that transformers' processor prepares as we do; `_RefusedError` when it does not."""
    if mine.shape != expected.shape or not np.abs(mine - expected).max() <= INPUT_TOLERANCE:
        raise _RefusedError(f"{processor} prepares items otherwise than its settings say")
    return Prepared({name: expected}, {"file": base64.b64encode(data).decode()})


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Refuse with the first line of whatever transformers raises: many types, all of them about this checkpoint."""
    try:
        yield
    except Exception as error:
        raise _RefusedError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def image_settings(processor: Any, channels: int) -> ImageSettings:
    """What a processor of transformers says that it does; `ValueError` for what settings have no place for."""

    def does(name: str) -> bool:
        return bool(getattr(processor, name, False))

    size, crop = processor.size, getattr(processor, "crop_size", None)
    resize, target, cut = "none", tuple[int, ...](), tuple[int, ...]()
    if does("do_resize"):
        if size.height and size.width:
            resize, target = "exact", (size.height, size.width)
        elif size.shortest_edge and not size.longest_edge:
            edge, share = size.shortest_edge, getattr(processor, "crop_pct", None)
            resize, target = "shortest", (edge,)
            if share:  # ConvNeXt's own rule: cut the middle out of a larger one, but from 384 pixels on warp
                resize, target = ("exact", (edge, edge)) if edge >= 384 else ("shortest", (int(edge / share),))
                cut = () if edge >= 384 else (edge, edge)
        else:
            raise ValueError(f"resizes pictures in a way that is not known here ({size})")
    if does("do_center_crop") and crop is not None:
        cut = (crop.height, crop.width)
    return ImageSettings(
        channels=channels,
        resize=resize,  # type: ignore[arg-type]
        size=tuple(int(edge) for edge in target),
        resample=int(processor.resample if processor.resample is not None else 2),
        crop=tuple(int(edge) for edge in cut),
        scale=float(processor.rescale_factor) if does("do_rescale") else 1.0,
        mean=_channels(processor.image_mean, channels) if does("do_normalize") else (),
        std=_channels(processor.image_std, channels) if does("do_normalize") else (),
    )


def _channels(values: Any, channels: int) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),) * channels


def _picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A gradient, a bright square and a little noise, so that a wrong filter, edge or channel shows."""
    down, across = np.mgrid[0:height, 0:width]
    picture = np.stack((255 * down / height, 255 * across / width, 127 + 127 * np.sin(across / 5 + seed)), axis=-1)
    picture[height // 4 : height // 2, width // 4 : width // 2] = 250
    noise = np.random.default_rng(seed).integers(-8, 8, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255), dtype=np.uint8)
