"""What can be chosen of an engine besides the precision: typed, spelled in a candidate's name, recorded.

An option is a field with a default. In a candidate's name stand only those that differ from it: `+autocast` and
`+no-spinning` for what is on or off, `+graph-optimization-level=basic` for a word, and
`+disabled-optimizers=A:B` or `=none` for several.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_type_hints

import msgspec

from artifact.predict.session import SessionConfig
from errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options: TypeAlias = "DataclassInstance"
NOTHING = "none"
Hint = Literal["latency", "throughput"]
AnyOptions = TypeVar("AnyOptions", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """There is nothing to choose."""


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """PyTorch: `autocast` casts inside the operators that gain by it and keeps the weights in fp32, where the default
    casts all weights once; `compile` runs the graph through TorchInductor instead of operator by operator."""

    autocast: bool = False
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class TorchLanguageOptions:
    """Language models in PyTorch: with `compile` each step behind the prompt is one graph of TorchInductor over a cache
    of fixed size, as `generate` compiles it; prompts are read operator by operator."""

    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class TorchCudaOptions(TorchOptions):
    """PyTorch on a GPU: `cuda_graphs` records the compiled graph's kernels once for each shape and replays them as one;
    it needs `compile`. `pinned` copies through page-locked buffers on the host, which are used again."""

    cuda_graphs: bool = False
    pinned: bool = True


@dataclass(frozen=True, kw_only=True)
class OrtCudaOptions(SessionConfig):
    """ONNX Runtime on a GPU: `cuda_graph` records the kernels once for each shape and replays them as one; without
    `cpu_fallback` a node that CUDA does not take is an error instead of one on the CPU."""

    cuda_graph: bool = False
    cpu_fallback: bool = True


@dataclass(frozen=True, kw_only=True)
class OpenVinoOptions:
    """OpenVINO: `hint` is its performance hint; with `bf16` what is not quantised computes in bf16 instead of fp32;
    `nncf` is int8 as OpenVINO's own quantiser makes it of the fp32 file, instead of the exporter's."""

    hint: Hint = "latency"
    bf16: bool = False
    nncf: bool = False


@dataclass(frozen=True, kw_only=True)
class OpenVinoLanguageOptions:
    """Language models on OpenVINO: `hint` and `bf16` as above; the cache is kept in `cache_precision`, by default in
    what is computed in."""

    hint: Hint = "latency"
    bf16: bool = False
    cache_precision: Literal["same", "f16", "u8"] = "same"


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions:
    """llama.cpp: the cache is kept in `cache_precision`, by its own default in f16."""

    cache_precision: Literal["f32", "f16", "q8_0"] = "f16"


NONE = NoOptions()
TORCH = TorchOptions()
TORCH_LANGUAGE = TorchLanguageOptions()
TORCH_CUDA = TorchCudaOptions()
ORT_CPU = SessionConfig()
ORT_CUDA = OrtCudaOptions(disabled_optimizers=())
ORT_CUDA_LANGUAGE = SessionConfig(disabled_optimizers=())
ORT_TENSORRT = SessionConfig(disabled_optimizers=())
OPENVINO = OpenVinoOptions()
OPENVINO_LANGUAGE = OpenVinoLanguageOptions()
LLAMA_CPP = LlamaCppOptions()
"""What each engine does when nothing is chosen."""


def parse_options(defaults: AnyOptions, words: tuple[str, ...]) -> AnyOptions:
    """The options that `words` ask for, such as `("compile", "no-spinning")`.

    Raises `UserError` for a word that these options do not have, or that stands there twice.
    """
    kinds = get_type_hints(type(defaults))
    fields = {item.name.replace("_", "-"): item for item in dataclasses.fields(defaults)}
    changes: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        is_on = not name.startswith("no-") or name in fields
        field = fields.get(name if is_on else name.removeprefix("no-"))
        if field is None or (kinds[field.name] is bool) is bool(sign):
            raise UserError(f"there is no option '+{word}'", _known(defaults))
        if field.name in changes:
            raise UserError(f"'+{word}' is given twice, or with its opposite", "give it once")
        chosen: Any = is_on if kinds[field.name] is bool else value
        if isinstance(getattr(defaults, field.name), tuple):
            chosen = () if value == NOTHING else tuple(value.split(":"))
        try:
            changes[field.name] = msgspec.convert(chosen, kinds[field.name])
        except msgspec.ValidationError as error:
            raise UserError(f"'+{word}': {error}", _known(defaults)) from error
    return dataclasses.replace(defaults, **changes)


def spell_options(options: Options, defaults: Options) -> tuple[str, ...]:
    """The words that ask for these options; `parse_options` reads them."""
    words = []
    for field in dataclasses.fields(options):
        value, name = getattr(options, field.name), field.name.replace("_", "-")
        if value == getattr(defaults, field.name):
            continue
        if isinstance(value, bool):
            words.append(name if value else f"no-{name}")
        else:
            words.append(f"{name}={(':'.join(value) or NOTHING) if isinstance(value, tuple) else value}")
    return tuple(words)


def describe_options(options: Options) -> dict[str, str]:
    """Every option by name, for the record of what ran."""
    return {
        name: ",".join(value) if isinstance(value, tuple) else str(value).lower() if value in (True, False) else value
        for name, value in dataclasses.asdict(options).items()
    }


def _known(defaults: Options) -> str:
    spellings = []
    for field in dataclasses.fields(defaults):
        value, name = getattr(defaults, field.name), field.name.replace("_", "-")
        if isinstance(value, bool):
            spellings.append(f"+no-{name}" if value else f"+{name}")
        else:
            spellings.append(f"+{name}=…")
    return f"this runtime has {', '.join(spellings) or 'none'}"
