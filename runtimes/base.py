"""The contract that every engine keeps."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from artifact.pooling import Pooling
from artifact.precision import Precision
from errors import UserError

Batch = Mapping[str, NDArray[Any]]
"""Input name to int64 array of shape (batch, sequence), all of the same; of a model that sees, `PIXELS` alone, float32
of shape (batch, channels, height, width)."""

INDEX, PIXEL = np.dtype(np.int64), np.dtype(np.float32)
PIXELS = "pixel_values"
SEEN = (PIXELS,)
"""The inputs of a model that sees."""

Outputs = Mapping[str, NDArray[np.float32]]
"""Output name to float32 array whose first axis is the batch. The arrays belong to the caller."""


class Head(msgspec.Struct, frozen=True):
    """What a model answers with: its outputs, and how they are pooled where a checkpoint gives a vector of each token.
    A graph has it all inside, and the same names."""

    outputs: tuple[str, ...] = ("logits",)
    pooling: Pooling | None = None

    def one(self, outputs: Outputs) -> NDArray[np.float32]:
        """An answer as one array, whose last axis is the outputs where these are several."""
        arrays = [outputs[name] for name in self.outputs]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)


LOGITS = Head()


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What really ran, read back from the engine after it was opened.

    `input_names` are the inputs that `run` takes, exactly these.
    `nodes_by_provider` counts graph nodes by where they were placed, or is `None` for engines without a graph.
    """

    runtime: str
    engine: str
    engine_version: str
    device: str
    dtype: str
    threads: int
    input_names: tuple[str, ...]
    options: dict[str, str]
    nodes_by_provider: dict[str, int] | None = None


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """What one run executes, by the engine's own names: how often each kernel, most often first.

    `conversions` counts those that only change a number type, which a precision without kernels of its own needs many
    of, and `copies` those that only move data between host and device; `None` where the engine hides them.
    """

    kernels: dict[str, int]
    conversions: int | None
    copies: int | None = None

    @classmethod
    def of(cls, names: Iterable[str], conversions: int | None, copies: int | None = None) -> Self:
        """Count the kernels of a run."""
        return cls(kernels=dict(Counter(names).most_common()), conversions=conversions, copies=copies)


class Runtime(Protocol):
    """A model on one engine and device: cheap to construct, acquired on entry, released on exit."""

    @property
    def info(self) -> RuntimeInfo:
        """What really ran; only valid between entry and exit."""

    def __enter__(self) -> Self:
        """Load the model. Raises `UserError` if the engine cannot give exactly what was asked for."""

    def run(self, batch: Batch) -> Outputs:
        """Compute one batch. Returns when the result is on the host and the device has finished.

        Raises `UserError` for inputs that do not fit the model.
        """

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        """Copy a batch to the device once and return a call that computes it there, for the clock of the device alone.

        The call returns when the device has finished; its outputs stay on the device. `None` where host and device
        share one memory: `run` is that clock there. The call is good until the runtime is released, and leaves what
        `run` answers as it is. Raises `UserError` as `run` does.
        """

    def executed(self, batch: Batch) -> Executed | None:
        """What runs for a batch, watched with the engine's own means; never inside of a timed call. `None` where the
        engine cannot tell."""

    def peak_device_bytes(self) -> int | None:
        """Most accelerator memory held so far, or `None` where there is no accelerator or it cannot be known."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the model and its memory."""


class OnCpu:
    """What every runtime without an accelerator says."""

    def peak_device_bytes(self) -> int | None:
        """`None`: there is no accelerator."""
        return None


class Candidate(msgspec.Struct, frozen=True, order=True):
    """A runtime, a precision and chosen options: one thing that could serve the model."""

    runtime: str
    precision: Precision
    options: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name in tables and files, such as `ort-cpu/int8-dynamic` or `torch-cpu/bf16+autocast+compile`."""
        return "+".join((f"{self.runtime}/{self.precision}", *self.options))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a candidate's name; `UserError` when it is none. Whether its runtime has such options is not looked at:
        `registry.known_candidate` does."""
        name, *options = text.split("+")
        runtime, slash, precision = name.partition("/")
        if not slash or not runtime or precision not in {member.value for member in Precision} or "" in options:
            raise UserError(
                f"'{text}' is not a candidate",
                "write RUNTIME/PRECISION and options, such as ort-cpu/int8-dynamic or torch-cpu/bf16+compile",
            )
        return cls(runtime, Precision(precision), tuple(options))


class Lack(msgspec.Struct, frozen=True, kw_only=True):
    """A precision or an option that a runtime does not have on this machine: why, and what would help."""

    word: str
    reason: str
    remedy: str


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a runtime can work here. When it cannot: why, and what would help.

    `lacks` are the precisions and options that it cannot offer although it works.
    """

    runtime: str
    available: bool
    engine_version: str | None = None
    device: str | None = None
    reason: str | None = None
    remedy: str | None = None
    lacks: tuple[Lack, ...] = ()

    def require(self) -> None:
        """Raise `UserError` when the runtime cannot work here."""
        if not self.available:
            raise UserError(self.reason or f"{self.runtime} cannot run here", self.remedy or "")

    def lack_of(self, candidate: Candidate) -> Lack | None:
        """What keeps a candidate of this runtime from running here, or `None`."""
        words = {candidate.precision.value, *candidate.options}
        return next((lack for lack in self.lacks if lack.word in words), None)


def check_batch(batch: Batch, names: tuple[str, ...]) -> None:
    """Refuse a batch whose inputs are missing, extra, of the wrong type or shape, or empty.

    Raises `UserError`; engines would crash, broadcast silently or answer nonsense. It stands before every call of an
    engine, whose weights have emptied the caches: a batch that fits is let through with few steps.
    """
    shape = next(iter(batch.values())).shape if batch else ()
    axes, kind = (4, PIXEL) if names == SEEN else (2, INDEX)
    fits = len(batch) == len(names) and len(shape) == axes and 0 not in shape
    for name in names:
        array = batch.get(name)
        fits = fits and array is not None and array.shape == shape and array.dtype == kind
    if not fits:
        raise _misfit(batch, names)


def _misfit(batch: Batch, names: tuple[str, ...]) -> UserError:
    """What is wrong with a batch."""
    missing, extra = set(names) - set(batch), set(batch) - set(names)
    sees = names == SEEN
    if missing or extra:
        return UserError(
            f"the batch has inputs {sorted(batch)}, the model takes {sorted(names)}",
            f"{'prepare pictures' if sees else 'tokenise'} with the checkpoint's own "
            f"{'processor' if sees else 'tokenizer'}",
        )
    shapes = {name: array.shape for name, array in batch.items()}
    first = next(iter(shapes.values()))
    if any(shape != first for shape in shapes.values()):
        return UserError(f"the inputs of a batch differ in shape: {shapes}", "pad all of them alike")
    axes = ("batch", "channels", "height", "width") if sees else ("batch", "sequence")
    if len(first) != len(axes) or 0 in first:
        return UserError(f"a batch has shape ({', '.join(axes)}), each at least 1; this one has {first}")
    kind = PIXEL if sees else INDEX
    wrong = {name: str(array.dtype) for name, array in batch.items() if array.dtype != kind}
    return UserError(f"inputs are {kind}; these are not: {wrong}")


class About:
    """A context that turns what an engine raises of a batch into a `UserError` with the first line of its words.

    A class, because it stands around every call: a generator takes several times as long.
    """

    __slots__ = ("_batch", "_engine", "_kinds")

    def __init__(self, batch: Batch, engine: str, kinds: tuple[type[Exception], ...]) -> None:
        self._batch, self._engine, self._kinds = batch, engine, kinds

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._kinds) and not isinstance(error, UserError):
            shape = next(iter(self._batch.values())).shape
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self._engine} cannot run a batch of shape {shape}: {reason}") from error


def check_indices(batch: Batch, rows: Mapping[str, int], engine: str) -> None:
    """Refuse numbers that a table of the model has no row for; `rows` says how many there are, by input name.

    For engines that do not look themselves. Raises `UserError`.
    """
    for name, count in rows.items():
        numbers = batch.get(name)
        if numbers is None:
            continue
        codes = numbers.view(np.uint64)  # a negative number is huge without its sign
        if codes.item(codes.argmax()) >= count:  # max() takes ten times as long with cold caches
            raise UserError(
                f"{engine} cannot run a batch of shape {numbers.shape}: {name} has numbers outside 0 to {count - 1}",
                "tokenise with the checkpoint's own tokenizer",
            )
