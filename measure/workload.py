"""What every candidate is given to do: the same tokenised batches, made from the user's own texts."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from artifact.generate.decoder import reads
from artifact.generate.encoder import NOTHING, Given
from artifact.judged import Judged
from artifact.language import Reading
from artifact.pictures import Pictures, Prepared
from artifact.predict.readers import BATCH_VALUES
from artifact.predict.sounds import SoundSettings
from artifact.predict.tokens import TextEncoder, TextItem, TextLimits, batches_by_length, pad_rows
from artifact.recordings import Recordings
from artifact.records import sha256_file
from artifact.tokenizer import text_encoder
from errors import UserError
from measure.decisions import decisions
from runtimes.base import LOGITS, PIXELS, SEEN, Batch, Head

NATURAL = "natural"
NATURAL_BATCHES = 6
"""Batches in one pass over the natural mix."""

CALIBRATION_EXAMPLES = 128
"""Training texts that int8 ranges come from; more of them hardly move a range any more."""

CALIBRATION_ROWS = 8

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class FromText(StrEnum):
    """How a pass that starts from raw texts is done: every batch tokenised and then run, or the next ones tokenised
    while one is run."""

    IN_TURN = "text"
    OVERLAPPED = "text-overlapped"


class Phase(StrEnum):
    """What a language model does: it reads a prompt up to the first token's logits, or writes one token after another
    behind it."""

    READ = "read"
    WRITE = "write"


STEPS = 8
"""Tokens that are written in one pass, each of them a sample."""

LONGEST_JUDGED = 128
"""Tokens of a text that a language model is judged on: more texts say more than longer ones, for the same work."""

RawText = str | tuple[str, str]
"""A text or a pair of texts, as it was before it was tokenised."""

Length = int | FromText | None
"""Tokens of a row, a way to start from raw texts, or `None` for the natural mix of tokenised texts."""


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's name, its batch size, and the (batch, sequence) shape of each batch of one pass.

    `from_text` says how raw texts are tokenised inside of the timed sample; `None`: they are tokenised before. `phase`
    says what a language model does: each shape is then a sample, of which writing has `STEPS` after one prompt. A model
    that hears reads as much of every recording, `heard_s`, and the shape is that of the tokens that it begins with. One
    that sees looks at pictures of `seen` (height, width), each a row of one.
    """

    name: str
    batch_size: int
    shapes: tuple[tuple[int, int], ...]
    from_text: FromText | None = None
    phase: Phase | None = None
    heard_s: float | None = None
    seen: tuple[int, int] | None = None

    @property
    def tokens(self) -> int | None:
        """Tokens that a language model reads or writes in one sample; `None` of what it hears."""
        hears = self.heard_s is not None and self.phase is Phase.READ
        return None if self.phase is None or hears else self.shapes[0][0] * self.shapes[0][1]

    @property
    def texts(self) -> int:
        """Rows of one pass."""
        return sum(rows for rows, _ in self.shapes)

    @property
    def sample_shapes(self) -> tuple[tuple[int, int], ...]:
        """The (rows, longest row) of each timed sample of one pass: of every batch, or of all together where the pass
        starts from texts, because tokenising ahead works across batches."""
        if self.from_text is None:
            return self.shapes
        return ((self.texts, max(length for _, length in self.shapes)),)

    @property
    def is_overlapped(self) -> bool:
        """Whether texts are tokenised while the engine computes."""
        return self.from_text is FromText.OVERLAPPED


class TokenizerFile(msgspec.Struct, frozen=True, kw_only=True):
    """The folder in which a worker finds `tokenizer.json`, and the hash of that file."""

    folder: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Workload:
    """A pass of batches; each is every input a text tokenizer can give, or the pixels of pictures.

    `texts` are the rows of these batches as they were before they were tokenised, if a pass starts from them.
    """

    spec: WorkloadSpec
    batches: tuple[Batch, ...]
    texts: tuple[tuple[RawText, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Inputs:
    """All a worker needs to run: workloads, the encoded evaluation and calibration texts, how to pad them, and the
    tokenizer if a workload starts from texts. A model that sees has `pictures` for them.

    Of an encoder-decoder `written` is what it writes of each evaluation text, from the token it begins with to the end;
    the first `told_tokens` of it are told and not judged. One that hears has `recordings` for evaluation texts.
    A checkpoint answers with its `head`, of which something is `judged`. Of words `places` are the tokens that speak
    for them, each word's first, and -1 for a word that was cut off; of questions the tokens of their contexts.
    """

    workloads: tuple[Workload, ...]
    evaluation: tuple[Mapping[str, Sequence[int]], ...]
    limits: TextLimits | None
    tokenizer: TokenizerFile | None = None
    calibration: tuple[Mapping[str, Sequence[int]], ...] = ()
    written: tuple[tuple[int, ...], ...] = ()
    told_tokens: int = 1
    recordings: Recordings | None = None
    judged: Judged = Judged.TEXT
    places: tuple[tuple[int, ...], ...] = ()
    head: Head = LOGITS
    pictures: Pictures | Prepared | None = None

    def __len__(self) -> int:
        """How many texts or pictures answers are judged on."""
        return len(self.evaluation) if self.pictures is None else len(self.pictures)

    def decided(self, row: int, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """An evaluation text's decisions, from its row of a padded batch's answer; see `decisions`."""
        if not self.places:
            return decisions(self.judged, answer, ())
        length = len(self.evaluation[row]["input_ids"])
        own = answer[-length:] if self.text_limits.pad_left else answer[:length]
        return decisions(self.judged, own, [place for place in self.places[row] if place >= 0])

    def evaluation_rows(self, batch_size: int | None) -> list[list[int]]:
        """Which evaluation texts or pictures share a batch: `batch_size` in their order, or as an artifact serves them
        (`None`), texts by their length."""
        if batch_size is None and self.pictures is None:
            return list(batches_by_length([len(item["input_ids"]) for item in self.evaluation]))
        every, size = range(len(self)), batch_size or self._served_together
        return [list(every[start : start + size]) for start in every[::size]]

    def batch(self, rows: Sequence[int], names: Sequence[str]) -> Batch:
        """These evaluation texts as one batch, padded to its longest row, or these pictures."""
        if self.pictures is not None:
            return {PIXELS: self.pictures.stack(rows)}
        return self._padded([self.evaluation[row] for row in rows], names)

    def calibration_batches(self) -> list[Batch]:
        """The calibration texts in their order, `CALIBRATION_ROWS` to a batch, with every input there can be."""
        rows = self.calibration
        parts = [rows[start : start + CALIBRATION_ROWS] for start in range(0, len(rows), CALIBRATION_ROWS)]
        return [self._padded(part, INPUTS) for part in parts]

    @property
    def _served_together(self) -> int:
        """How many pictures of one size an artifact answers at once."""
        return max(1, BATCH_VALUES // int(self.workloads[0].batches[0][PIXELS][0].size))

    @property
    def text_limits(self) -> TextLimits:
        """How rows of tokens are filled."""
        if self.limits is None:
            raise RuntimeError("texts come with limits")
        return self.limits

    def _padded(
        self, encoded: Sequence[Mapping[str, Sequence[int]]], names: Sequence[str]
    ) -> dict[str, NDArray[np.int64]]:
        limits = self.text_limits
        return pad_rows(encoded, names, pad_id=limits.pad_id, pad_type_id=limits.pad_type_id, pad_left=limits.pad_left)

    @property
    def writes(self) -> bool:
        """Whether the workloads are a language model's."""
        return self.workloads[0].spec.phase is not None

    @property
    def told(self) -> list[Sequence[int]]:
        """The texts whose next tokens are guessed: the evaluation texts, or what is written of them."""
        return list(self.written) or [item["input_ids"] for item in self.evaluation]

    @property
    def following(self) -> list[int]:
        """The tokens of these texts that are guessed, text after text."""
        return [token for row in self.told for token in row[self.told_tokens :]]

    def begun(self, ids: NDArray[np.int64]) -> tuple[list[list[int]], Given]:
        """What a language model is prompted with for these rows, and what its encoder reads, where it has one."""
        if not self.written:
            return ids.tolist(), NOTHING
        if self.recordings is not None:
            return ids.tolist(), self.read([row % len(self.recordings) for row in range(len(ids))])
        return [[self.written[0][0]]] * len(ids), reads(ids.tolist())

    def read(self, places: Sequence[int]) -> Given:
        """What an encoder reads before the texts at these places; nothing where there is none."""
        if self.recordings is not None:
            return reads([self.recordings[place] for place in places])
        return reads([self.evaluation[place]["input_ids"] for place in places]) if self.written else NOTHING

    @property
    def calibration_sha256(self) -> str:
        """Hash of the calibration texts as they are run."""
        digest = hashlib.sha256()
        for batch in self.calibration_batches():
            for name in INPUTS:
                digest.update(np.ascontiguousarray(batch[name]).tobytes() + b"|")
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        """Hash of every number that will be run, and of how rows are padded; where it starts from texts, of them
        and of the tokenizer too. Calibration has a hash of its own."""
        digest = hashlib.sha256()
        for workload in self.workloads:
            digest.update(workload.spec.name.encode())
            for batch in workload.batches:
                for array in batch.values():
                    digest.update(np.ascontiguousarray(array).tobytes())
            if workload.texts:
                digest.update(msgspec.json.encode(workload.texts))
        for item in self.evaluation:
            for name in INPUTS:
                digest.update(np.asarray(item[name], dtype=np.int64).tobytes() + b"|")
        digest.update(msgspec.json.encode(self.limits))
        for more in filter(None, (self.written, self.places, None if self.head == LOGITS else self.head)):
            digest.update(msgspec.json.encode(more))
        files = self.recordings or self.pictures
        if isinstance(files, Recordings | Pictures):
            digest.update(files.sha256.encode())
        if self.tokenizer:
            digest.update(self.tokenizer.sha256.encode())
        return digest.hexdigest()


def tokenizing(tokenizer: Path, limits: TextLimits, judged: Judged | None) -> TextEncoder:
    """What makes token ids of texts, with the tokenizer of a folder; a question is never cut, its context is."""
    return text_encoder(tokenizer, limits, window_overlap=0 if judged is Judged.SPAN else None)


def parse_lengths(text: str) -> tuple[Length, ...]:
    """Read `--lengths`: comma-separated numbers of tokens, `natural` (`None`), `text` and `text-overlapped`.

    Raises `UserError`.
    """
    words: dict[str, Length] = {NATURAL: None, **{way.value: way for way in FromText}}
    lengths: list[Length] = []
    for part in text.split(","):
        part = part.strip()
        if part not in words and not (part.isdecimal() and int(part) > 0):
            raise UserError(
                f"--lengths has '{part}'",
                f"write numbers of tokens and the words {', '.join(words)}, such as 128,natural",
            )
        lengths.append(words[part] if part in words else int(part))
    return tuple(dict.fromkeys(lengths))


def usual_lengths(context_tokens: int, *, writes: bool) -> str:
    """What `--lengths` is where it is not given, for a model that reads so many tokens."""
    if writes:
        return str(max(1, min(128, context_tokens - STEPS)))
    return f"{min(128, context_tokens)},{NATURAL}"


def build_inputs(
    texts: Sequence[TextItem],
    encoder: TextEncoder,
    limits: TextLimits,
    batch_sizes: Sequence[int],
    lengths: Sequence[Length],
    tokenizer: Path | None = None,
    calibration: Sequence[TextItem] = (),
    judged: Judged = Judged.TEXT,
    head: Head = LOGITS,
) -> Inputs:
    """Tokenise once and cut the workloads: every batch size at every fixed length, and the natural mix at the largest,
    tokenised or as raw texts.

    Fixed lengths are filled with the ids of real texts one after another, nothing padded. `tokenizer` is the folder of
    the encoder's file, for workers that start from texts. Raises `UserError` for a length beyond the model's and for
    words that shall be tokenised from raw texts, and `ValueError` where that folder is needed and not given.
    """
    encoded = encoder.encode(texts)
    workloads = []
    for length in lengths:
        if isinstance(length, int) and length > limits.max_length_tokens:
            raise UserError(
                f"--lengths has {length}, the model takes at most {limits.max_length_tokens} tokens", "choose less"
            )
        if isinstance(length, int):
            workloads += [_fixed(encoded, size, length) for size in batch_sizes]
            continue
        if length is not None and judged is Judged.WORD:
            raise UserError(
                f"--lengths has {length}, and these texts are lists of words, which are split already", "leave it out"
            )
        natural = _natural(encoded, limits, max(batch_sizes))
        workloads.append(natural if length is None else _from_text(texts, natural, length))
    found = None
    if any(workload.texts for workload in workloads):
        if tokenizer is None:
            raise ValueError("a workload that starts from texts needs the tokenizer's folder")
        found = TokenizerFile(folder=str(tokenizer), sha256=sha256_file(tokenizer / "tokenizer.json"))
    return Inputs(
        tuple(workloads),
        tuple(encoded),
        limits,
        found,
        tuple(encoder.encode(calibration)),
        judged=judged,
        places=PLACES[judged](texts, encoder) if judged in PLACES else (),
        head=head,
    )


def _words(texts: Sequence[TextItem], encoder: TextEncoder) -> tuple[tuple[int, ...], ...]:
    """Where each word's first token is, -1 for one without a token, which was cut off."""
    found = []
    for text, encoding in zip(texts, encoder.encodings(texts), strict=True):
        first: dict[int, int] = {}
        for place, word in enumerate(encoding.word_ids):
            if word is not None:
                first.setdefault(word, place)
        found.append(tuple(first.get(word, -1) for word in range(len(text))))
    return tuple(found)


def _contexts(texts: Sequence[TextItem], encoder: TextEncoder) -> tuple[tuple[int, ...], ...]:
    """Where the tokens of each pair's second text are."""
    return tuple(
        tuple(place for place, part in enumerate(encoding.sequence_ids) if part == 1)
        for encoding in encoder.encodings(texts)
    )


PLACES: Mapping[Judged, Callable[[Sequence[TextItem], TextEncoder], tuple[tuple[int, ...], ...]]] = {
    Judged.WORD: _words,
    Judged.SPAN: _contexts,
}
"""The tokens that a decision is read from, where that is not the whole answer."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an encoder-decoder is to write of each text or recording, and how it begins."""

    texts: Sequence[str]
    reading: Reading


def build_language_inputs(
    texts: Sequence[str],
    encoder: TextEncoder,
    limits: TextLimits,
    batch_sizes: Sequence[int],
    lengths: Sequence[Length],
    written: Written | None = None,
) -> Inputs:
    """Tokenise once and cut the workloads: reading and writing, for every batch size after every length of a prompt.

    Prompts are filled with the ids of real texts one after another. Of an encoder-decoder `written` says what it writes
    of each text. Raises `UserError` for a length that is no number of tokens, or that leaves no room in the model's
    context, and for texts of a single token.
    """
    every = [{name: item[name][:LONGEST_JUDGED] for name in INPUTS} for item in encoder.encode(texts)]
    rows: list[Sequence[int]] = [item["input_ids"] for item in every]
    if written is not None:
        targets = (item["input_ids"] for item in encoder.encode(written.texts))
        rows = [written.reading.row(ids, LONGEST_JUDGED) for ids in targets]
    kept = [place for place, row in enumerate(rows) if len(row) > 1 and every[place]["input_ids"]]
    encoded = [every[place] for place in kept]
    if not encoded:
        raise UserError("no text has two tokens", "give longer texts with --data")
    workloads = []
    for length in lengths:
        if not isinstance(length, int):
            raise UserError("--lengths are numbers of tokens for a language model", "write such as 16,128,512")
        if length + STEPS > limits.max_length_tokens:
            raise UserError(
                f"--lengths has {length}, and behind it {STEPS} tokens are written, of "
                f"{limits.max_length_tokens} that the model has room for",
                "choose less",
            )
        for size in batch_sizes:
            prompt = _fixed(encoded, size, length)
            for phase, shapes in ((Phase.READ, ((size, length),)), (Phase.WRITE, ((size, 1),) * STEPS)):
                name = f"{phase} {prompt.spec.name}"
                spec = WorkloadSpec(name=name, batch_size=size, shapes=shapes, phase=phase)
                workloads.append(Workload(spec, prompt.batches))
    told = () if written is None else tuple(tuple(rows[place]) for place in kept)
    return Inputs(tuple(workloads), tuple(encoded), limits, written=told)


def build_heard_inputs(
    recordings: Recordings, encoder: TextEncoder, limits: TextLimits, batch_sizes: Sequence[int], written: Written
) -> Inputs:
    """Cut the workloads of a model that hears: for every batch size, reading, from a recording's features to the logits
    of its first own token, and writing behind that. All recordings are filled up to the same length.

    Raises `UserError` where nothing is written of any recording, or one cannot be read.
    """
    recordings.check()
    begun, heard_s = written.reading.told_ids, recordings.sound.longest_s
    rows = [written.reading.row(ids, LONGEST_JUDGED) for ids in encoder.plain(written.texts)]
    kept = [place for place, row in enumerate(rows) if len(row) > len(begun)]
    if not kept:
        raise UserError("nothing is written of any recording", "give transcripts with --data")
    workloads = []
    for size in batch_sizes:
        ids = np.tile(np.array(begun, dtype=np.int64), (size, 1))
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        for phase, shapes in ((Phase.READ, ((size, len(begun)),)), (Phase.WRITE, ((size, 1),) * STEPS)):
            name = f"{phase} {size}×{heard_s:g}s"
            spec = WorkloadSpec(name=name, batch_size=size, shapes=shapes, phase=phase, heard_s=heard_s)
            workloads.append(Workload(spec, (batch,)))
    told = tuple(rows[place] for place in kept)
    return Inputs(
        tuple(workloads), (), limits, written=told, told_tokens=len(begun), recordings=recordings.select(kept)
    )


def build_picture_inputs(pictures: Pictures, batch_sizes: Sequence[int], judged: Judged, head: Head = LOGITS) -> Inputs:
    """Cut the workloads of a model that sees: the first pictures, over and over where there are fewer, in every batch
    size. Raises `UserError` for one of these that is no picture, and for a model to which pictures differ in size."""
    shape = pictures.settings.shape
    if shape is None:
        raise UserError(
            "this model takes pictures as large as they come, and such are not compared so far",
            "give its checkpoint a processor that cuts them to one size",
        )
    workloads = []
    for size in batch_sizes:
        batch = {PIXELS: pictures.stack([place % len(pictures) for place in range(size)])}
        name = f"{size}×{shape[0]}×{shape[1]}"
        workloads.append(Workload(WorkloadSpec(name=name, batch_size=size, shapes=((size, 1),), seen=shape), (batch,)))
    return Inputs(tuple(workloads), (), None, judged=judged, head=head, pictures=pictures)


def _fixed(encoded: Sequence[Mapping[str, Sequence[int]]], batch_size: int, length: int) -> Workload:
    tokens = cycle(chain.from_iterable(item["input_ids"] for item in encoded))
    ids = np.fromiter(islice(tokens, batch_size * length), dtype=np.int64).reshape(batch_size, length)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    spec = WorkloadSpec(name=f"{batch_size}×{length}", batch_size=batch_size, shapes=((batch_size, length),))
    return Workload(spec, (batch,))


def _natural(encoded: Sequence[Mapping[str, Sequence[int]]], limits: TextLimits, batch_size: int) -> Workload:
    """Texts in the order they come, as a server would meet them."""
    rows = list(islice(cycle(encoded), NATURAL_BATCHES * batch_size))
    inputs = Inputs((), tuple(rows), limits)
    batches = tuple(inputs.batch(part, INPUTS) for part in inputs.evaluation_rows(batch_size))
    shapes = tuple((batch["input_ids"].shape[0], batch["input_ids"].shape[1]) for batch in batches)
    return Workload(WorkloadSpec(name=f"{batch_size}×{NATURAL}", batch_size=batch_size, shapes=shapes), batches)


def _from_text(texts: Sequence[TextItem], natural: Workload, way: FromText) -> Workload:
    """The natural mix once more, and the very texts that its batches were made of."""
    size = natural.spec.batch_size
    spec = msgspec.structs.replace(natural.spec, name=f"{size}×{way}", from_text=way)
    rows = cycle(text if isinstance(text, str) else (text[0], text[1]) for text in texts)
    return Workload(spec, natural.batches, tuple(tuple(islice(rows, count)) for count, _ in spec.shapes))


class _Header(msgspec.Struct):
    specs: tuple[WorkloadSpec, ...]
    texts: tuple[tuple[tuple[RawText, ...], ...], ...]
    names: tuple[str, ...]
    limits: TextLimits | None
    tokenizer: TokenizerFile | None
    written: tuple[tuple[int, ...], ...]
    told_tokens: int
    files: tuple[str, ...]
    sound: SoundSettings | None
    pictures: int
    judged: Judged
    places: tuple[tuple[int, ...], ...]
    head: Head


def save_inputs(path: Path, inputs: Inputs) -> None:
    """Write inputs for the workers as plain arrays (no pickle), pictures beside them. Raises `UserError` when the disk
    is full, and for what is no picture."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, workload in enumerate(inputs.workloads):
        for position, batch in enumerate(workload.batches):
            for name, array in batch.items():
                arrays[f"{number}.{position}.{name}"] = array
    arrays |= _flat("evaluation", inputs.evaluation) | _flat("calibration", inputs.calibration)
    header = msgspec.json.encode(
        _Header(
            specs=tuple(workload.spec for workload in inputs.workloads),
            texts=tuple(workload.texts for workload in inputs.workloads),
            names=INPUTS if inputs.pictures is None else SEEN,
            limits=inputs.limits,
            tokenizer=inputs.tokenizer,
            written=inputs.written,
            told_tokens=inputs.told_tokens,
            files=() if inputs.recordings is None else tuple(map(str, inputs.recordings.items)),
            sound=None if inputs.recordings is None else inputs.recordings.sound,
            pictures=0 if inputs.pictures is None else len(inputs.pictures),
            judged=inputs.judged,
            places=inputs.places,
            head=inputs.head,
        )
    )
    try:
        if isinstance(inputs.pictures, Pictures):
            inputs.pictures.write(_pixels(path))
        np.savez(path, header=np.frombuffer(header, dtype=np.uint8), **arrays)  # type: ignore[arg-type]  # numpy's stub
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}", "free some space there, or set TMPDIR to another folder"
        ) from error


def _pixels(path: Path) -> Path:
    """Where pictures lie that belong to inputs."""
    return path.with_suffix(".pixels.npy")


def load_inputs(path: Path) -> Inputs:
    """Read what `save_inputs` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        header = msgspec.json.decode(arrays["header"].tobytes(), type=_Header)
        workloads = tuple(
            Workload(
                spec,
                tuple(
                    {name: arrays[f"{number}.{position}.{name}"] for name in header.names}
                    for position in range(1 if spec.phase else len(spec.shapes))
                ),
                texts,
            )
            for number, (spec, texts) in enumerate(zip(header.specs, header.texts, strict=True))
        )
        evaluation, calibration = _rows("evaluation", arrays), _rows("calibration", arrays)
    recordings = None if header.sound is None else Recordings(header.files, header.sound)
    return Inputs(
        workloads,
        evaluation,
        header.limits,
        header.tokenizer,
        calibration,
        header.written,
        header.told_tokens,
        recordings,
        header.judged,
        header.places,
        header.head,
        Prepared(_pixels(path), header.pictures) if header.pictures else None,
    )


def _flat(kind: str, encoded: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, NDArray[np.int64]]:
    """Rows of unlike lengths as one array for each input, and the lengths."""
    arrays = {
        f"{kind}.{name}": np.fromiter(chain.from_iterable(item[name] for item in encoded), dtype=np.int64)
        for name in INPUTS
    }
    return arrays | {f"{kind}.lengths": np.array([len(item["input_ids"]) for item in encoded], dtype=np.int64)}


def _rows(kind: str, arrays: Mapping[str, NDArray[np.int64]]) -> tuple[dict[str, list[int]], ...]:
    """What `_flat` laid flat."""
    if not arrays[f"{kind}.lengths"].size:
        return ()
    edges = np.cumsum(arrays[f"{kind}.lengths"])[:-1]
    columns = [np.split(arrays[f"{kind}.{name}"], edges) for name in INPUTS]
    return tuple(
        {name: values.tolist() for name, values in zip(INPUTS, row, strict=True)} for row in zip(*columns, strict=True)
    )
