"""Every runtime there is: one line each. Engines are imported only when one is probed or opened."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from artifact.precision import Precision
from errors import UserError
from runtimes.base import LOGITS, Availability, Batch, Candidate, Head, Runtime
from runtimes.language import LanguageRuntime
from runtimes.options import (
    LLAMA_CPP,
    NONE,
    OPENVINO,
    OPENVINO_LANGUAGE,
    ORT_CPU,
    ORT_CUDA,
    ORT_CUDA_LANGUAGE,
    ORT_TENSORRT,
    TORCH,
    TORCH_CUDA,
    TORCH_LANGUAGE,
    Options,
    parse_options,
    spell_options,
)


class Source(Enum):
    """What a runtime loads."""

    CHECKPOINT = auto()
    ONNX = auto()
    GGUF = auto()


@dataclass(frozen=True, slots=True)
class Language:
    """What a runtime offers of language models: `module` holds a class `EngineLanguage(model, precision, threads,
    options)`, which continues texts. `decoders_alone` are those that no encoder can stand before. The other fields are
    as `Entry` has them."""

    module: str
    precisions: tuple[Precision, ...]
    options: Options = NONE
    worthwhile: Mapping[Precision, tuple[str, ...]] = field(default_factory=dict)
    decoders_alone: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a runtime lives and what it can do.

    `module` holds a class `EngineRuntime(model, precision, threads, options)` and a function `probe() -> Availability`;
    `package` is the import that `extra` installs. `options` are the engine's options with their defaults, and
    `worthwhile` those that are worth a measurement, by precision. A precision that is only a way to compute loads the
    graph of another, as `graphs` says. Precisions `on_request` run when they are asked for, because they take long
    to load; those `refused` can be named all the same, to see the engine's own words; those `calibrated` are made
    while loading, from training examples that the constructor takes besides. An option in `makes` does the same of
    the graph of the precision named there. `portable` marks runtimes that an artifact can be packed for (CPU,
    without torch). `language` is what it offers of language models.
    """

    module: str
    package: str
    extra: str
    source: Source
    precisions: tuple[Precision, ...]
    options: Options = NONE
    worthwhile: Mapping[Precision, tuple[str, ...]] = field(default_factory=dict)
    graphs: Mapping[Precision, Precision] = field(default_factory=dict)
    on_request: tuple[Precision, ...] = ()
    refused: tuple[Precision, ...] = ()
    calibrated: tuple[Precision, ...] = ()
    makes: Mapping[str, Precision] = field(default_factory=dict)
    portable: bool = False
    language: Language | None = None

    def offer(self, *, language: bool) -> "Entry | Language | None":
        """What it offers of language models, or of models that answer in one pass; `None` where that is nothing."""
        if language:
            return self.language
        return self if self.precisions else None

    def precisions_of(self, *, language: bool) -> tuple[Precision, ...]:
        """At which precisions it runs language models, or models that answer in one pass."""
        offer = self.offer(language=language)
        return offer.precisions if offer else ()

    def graph(self, candidate: Candidate) -> Precision:
        """Which variant's file a candidate loads."""
        made = (self.makes[option] for option in candidate.options if option in self.makes)
        return next(made, self.graphs.get(candidate.precision, candidate.precision))


REGISTRY: Mapping[str, Entry] = {
    "torch-cpu": Entry(
        "runtimes.torch_cpu",
        "torch",
        "train",
        Source.CHECKPOINT,
        (Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT8_STATIC),
        TORCH,
        {
            Precision.FP32: ("compile",),
            Precision.BF16: ("autocast", "compile", "autocast+compile"),
            Precision.INT8_DYNAMIC: ("compile", "autocast+compile"),
            Precision.INT8_STATIC: ("compile", "autocast+compile"),
        },
        on_request=(Precision.INT8_DYNAMIC, Precision.INT8_STATIC),
        calibrated=(Precision.INT8_STATIC,),
        language=Language(
            "runtimes.torch_cpu_language",
            (Precision.FP32, Precision.BF16),
            TORCH_LANGUAGE,
            dict.fromkeys((Precision.FP32, Precision.BF16), ("compile",)),
        ),
    ),
    "torch-cuda": Entry(
        "runtimes.torch_cuda",
        "torch",
        "train",
        Source.CHECKPOINT,
        (Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16),
        TORCH_CUDA,
        {
            Precision.FP32: ("compile", "compile+cuda-graphs"),
            Precision.TF32: ("compile", "compile+cuda-graphs"),
            Precision.FP16: ("autocast", "compile", "compile+cuda-graphs"),
            Precision.BF16: ("autocast", "compile", "compile+cuda-graphs"),
        },
        language=Language(
            "runtimes.torch_cuda_language",
            (Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16),
            TORCH_LANGUAGE,
            dict.fromkeys((Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16), ("compile",)),
        ),
    ),
    "ort-cpu": Entry(
        "runtimes.ort_cpu",
        "onnxruntime",
        "cpu",
        Source.ONNX,
        (Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC, Precision.INT8_STATIC, Precision.INT4),
        ORT_CPU,
        {
            Precision.FP32: ("disabled-optimizers=none",),
            Precision.INT8_DYNAMIC: ("disabled-optimizers=none",),
        },
        portable=True,
        refused=(Precision.BF16,),
        language=Language(
            "runtimes.ort_cpu_language",
            (Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC, Precision.INT4),
            ORT_CPU,
        ),
    ),
    "ort-cuda": Entry(
        "runtimes.ort_cuda",
        "onnxruntime",
        "gpu",
        Source.ONNX,
        (Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16),
        ORT_CUDA,
        dict.fromkeys((Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16), ("cuda-graph",)),
        {Precision.TF32: Precision.FP32},
        language=Language(
            "runtimes.ort_cuda_language",
            (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT4),
            ORT_CUDA_LANGUAGE,
        ),
    ),
    "ort-tensorrt": Entry(
        "runtimes.ort_tensorrt",
        "onnxruntime",
        "gpu",
        Source.ONNX,
        (Precision.FP32, Precision.FP16),
        ORT_TENSORRT,
        graphs={Precision.FP16: Precision.FP32},
    ),
    "openvino-cpu": Entry(
        "runtimes.openvino_cpu",
        "openvino",
        "openvino",
        Source.ONNX,
        (Precision.FP32, Precision.BF16, Precision.INT8_STATIC, Precision.INT4),
        OPENVINO,
        {Precision.INT8_STATIC: ("bf16", "nncf", "bf16+nncf"), Precision.INT4: ("bf16",)},
        {Precision.BF16: Precision.FP32},
        makes={"nncf": Precision.FP32},
        language=Language(
            "runtimes.openvino_cpu_language",
            (Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT4),
            OPENVINO_LANGUAGE,
            dict.fromkeys((Precision.INT8_DYNAMIC, Precision.INT4), ("cache-precision=u8",)),
        ),
    ),
    "ort-genai": Entry(
        "runtimes.ort_genai",
        "onnxruntime_genai",
        "genai",
        Source.ONNX,
        (),
        language=Language(
            "runtimes.ort_genai",
            (Precision.FP32, Precision.INT8_DYNAMIC, Precision.INT4),
            decoders_alone=True,
        ),
    ),
    "llama-cpp": Entry(
        "runtimes.llama_cpp",
        "llama_cpp",
        "llama-cpp",
        Source.GGUF,
        (),
        language=Language(
            "runtimes.llama_cpp",
            (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT4),
            LLAMA_CPP,
            {Precision.INT4: ("cache-precision=q8_0",)},
            decoders_alone=True,
        ),
    ),
    "null": Entry("runtimes.null", "numpy", "cpu", Source.ONNX, ()),
}
"""The registered runtimes. `null` computes nothing and is no candidate: it measures the harness itself."""

CALIBRATE = "give them with --calibration FILE, or compare a run that finetune made"

REFERENCE = Candidate("torch-cpu", Precision.FP32)
"""PyTorch fp32 eager on the CPU: accuracy and parity are always against it."""


def entry(runtime: str) -> Entry:
    """The entry of a runtime; `UserError` lists the known ones."""
    if runtime not in REGISTRY:
        raise UserError(f"there is no runtime '{runtime}'", f"known are: {', '.join(REGISTRY)}")
    return REGISTRY[runtime]


def candidates(
    runtimes: tuple[str, ...] | None,
    precisions: tuple[Precision, ...] | None,
    *,
    every: bool = False,
    language: bool = False,
) -> tuple[Candidate, ...]:
    """Every pair of the asked runtimes and precisions that can exist, of language models or of others; by default all
    of them but those on request, which `every` takes in.

    Raises `UserError` for an unknown runtime, and when no pair is left.
    """
    names = runtimes or tuple(REGISTRY)
    found = tuple(
        Candidate(name, precision)
        for name in names
        for precision in entry(name).precisions_of(language=language)
        if (every or precision not in entry(name).on_request if precisions is None else precision in precisions)
    )
    if not found and precisions is None:
        kind = "language models" if language else "models that answer in one pass"
        raise UserError(f"{kind} do not run on {', '.join(names)} yet", where_runs(language=language))
    if not found:
        raise UserError(
            f"none of {', '.join(names)} runs at {', '.join(precisions or ())}",
            "; ".join(
                f"{name}: {', '.join(offered)}"
                for name in names
                if (offered := entry(name).precisions_of(language=language))
            ),
        )
    return found


def where_runs(*, language: bool) -> str:
    """Which runtimes run language models, or models that answer in one pass, as a hint."""
    return f"they run on: {', '.join(name for name, where in REGISTRY.items() if where.offer(language=language))}"


def portable() -> tuple[str, ...]:
    """The runtimes that an artifact can be packed for."""
    return tuple(name for name, where in REGISTRY.items() if where.portable)


def unable(asked: tuple[str, ...] | None, *, language: bool) -> tuple[str, ...]:
    """Those of the asked runtimes that do not run language models, or models that answer in one pass.

    By default, of language models all that run nothing but the others so far; the reverse is none's lack.

    Raises `UserError` for an unknown runtime.
    """
    usual = tuple(name for name, where in REGISTRY.items() if where.precisions) if language else ()
    return tuple(name for name in asked or usual if entry(name).offer(language=language) is None)


def worthwhile(plain: Iterable[Candidate], *, language: bool = False) -> tuple[Candidate, ...]:
    """The candidates, each followed by those with options that are worth a measurement."""
    found: list[Candidate] = []
    for item in plain:
        offer = entry(item.runtime).offer(language=language)
        more = offer.worthwhile.get(item.precision, ()) if offer else ()
        found += [item, *(Candidate(item.runtime, item.precision, tuple(words.split("+"))) for words in more)]
    return tuple(found)


def known_candidate(text: str, *, language: bool = False) -> Candidate:
    """Read the name of a candidate for language models or for others, its options in the engine's order.

    Raises `UserError` when there is no such runtime, or it has no such precision or option.
    """
    asked = Candidate.parse(text)
    where = entry(asked.runtime)
    offer = where.offer(language=language)
    if offer is None:
        raise UserError(f"{asked.runtime} does not run such a model yet", where_runs(language=language))
    refused = () if language else where.refused
    if asked.precision not in (*offer.precisions, *refused):
        raise UserError(f"{asked.runtime} has no {asked.precision}", f"it has {', '.join(offer.precisions)}")
    try:
        options = parse_options(offer.options, asked.options)
    except UserError as error:
        raise UserError(f"{text}: {error.message}", error.hint) from error
    return Candidate(asked.runtime, asked.precision, spell_options(options, offer.options))


def probe(runtime: str) -> Availability:
    """Whether a runtime can work in this process, importing its engine if it is installed."""
    where = entry(runtime)
    if find_spec(where.package) is None:
        return Availability(
            runtime=runtime,
            available=False,
            reason=f"{where.package} is not installed",
            remedy=f"pip install 'steelyard[{where.extra}]'",
        )
    try:
        module = import_module(where.module)
    except (ImportError, OSError) as error:  # torch raises OSError for a shared library that is not there
        return Availability(
            runtime=runtime,
            available=False,
            reason=f"{where.package} is installed but cannot be loaded: {error}",
            remedy=f"pip install --force-reinstall 'steelyard[{where.extra}]'",
        )
    return cast(Availability, module.probe())


def is_calibrated(candidate: Candidate) -> bool:
    """Whether a candidate is made while loading, from training examples."""
    where = entry(candidate.runtime)
    return candidate.precision in where.calibrated or any(option in where.makes for option in candidate.options)


def open_runtime(
    candidate: Candidate, model: Path, threads: int, calibration: Sequence[Batch] = (), head: Head = LOGITS
) -> Runtime:
    """A runtime for `model`, a checkpoint folder or an ONNX file as its entry says, not yet loaded.

    `calibration` are batches of training examples, for candidates that `is_calibrated`; a checkpoint answers with its
    `head`, which a graph has inside. Raises `UserError` when the engine is not installed or has no such options, and
    when a calibrated candidate gets no batches.
    """
    where = entry(candidate.runtime)
    if find_spec(where.package) is None:
        raise UserError(
            f"{candidate.id} needs {where.package}, which is not installed", f"pip install 'steelyard[{where.extra}]'"
        )
    arguments: list[object] = [model, candidate.precision, threads, parse_options(where.options, candidate.options)]
    if is_calibrated(candidate):
        if not calibration:
            raise UserError(f"{candidate.id} needs training examples to calibrate on", CALIBRATE)
        arguments.append(calibration)
    own = {"head": head} if where.source is Source.CHECKPOINT else {}
    return cast(Runtime, import_module(where.module).EngineRuntime(*arguments, **own))


def open_language(candidate: Candidate, model: Path, threads: int) -> LanguageRuntime:
    """A language model's runtime for `model`, not yet loaded.

    Raises `UserError` when the engine is not installed, does not continue texts, or has no such precision or options.
    """
    where = entry(candidate.runtime)
    offer = where.language
    if offer is None or candidate.precision not in offer.precisions:
        offered = [name for name, item in REGISTRY.items() if candidate.precision in item.precisions_of(language=True)]
        raise UserError(
            f"{candidate.id} does not run language models yet",
            f"{candidate.precision} runs on: {', '.join(offered) or 'nothing'}",
        )
    if find_spec(where.package) is None:
        raise UserError(
            f"{candidate.id} needs {where.package}, which is not installed", f"pip install 'steelyard[{where.extra}]'"
        )
    options = parse_options(offer.options, candidate.options)
    found = import_module(offer.module).EngineLanguage(model, candidate.precision, threads, options)
    return cast(LanguageRuntime, found)
