"""How ONNX Runtime is asked to run a graph: one recorded configuration for exporting, measuring and serving."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from errors import UserError

SERVES = "CPUExecutionProvider"
"""The provider that artifacts run on."""

PROVIDERS = "onnxruntime.get_available_providers() lists what this installation has"


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Options of an ONNX Runtime session, kept with every measurement and in every artifact.

    `disabled_optimizers` leaves out fusions that cost time. ONNX Runtime's CPU kernel for SkipLayerNormalization is
    slower than the Add and LayerNormalization it replaces: leaving it out took int8 MiniLM at 8×128 from 38.7 to 30.7
    ms on a 2-core EPYC, in turn, and from 37 to 28.5 ms on a 2-core Xeon (`docs/benchmarks.md`).

    `spinning` lets idle threads of the session wait in a loop for the next operator: quicker alone, costly to whatever
    else uses the cores. `arena` keeps freed memory for the next run; `memory_pattern` plans it for a repeated shape.
    """

    graph_optimization_level: Literal["none", "basic", "extended", "all"] = "all"
    disabled_optimizers: tuple[str, ...] = ("SkipLayerNormFusion",)
    spinning: bool = True
    arena: bool = True
    memory_pattern: bool = True


def session_options(config: SessionConfig, threads: int) -> Any:
    """`onnxruntime.SessionOptions` with `threads` intra-op threads, one at a time, and only errors logged."""
    import onnxruntime

    level = config.graph_optimization_level
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, "ORT_DISABLE_ALL" if level == "none" else f"ORT_ENABLE_{level.upper()}"
    )
    options.enable_cpu_mem_arena = config.arena
    options.enable_mem_pattern = config.memory_pattern
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if config.spinning else "0")
    return options


def open_session(
    model: Path,
    *,
    provider: str,
    threads: int,
    config: SessionConfig,
    provider_options: Mapping[str, str] | None = None,
    companions: Mapping[str, Mapping[str, str]] | None = None,
    entries: Mapping[str, str] | None = None,
    profile: Path | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` on `provider` with `threads` intra-op threads.

    `companions` are the only other providers that may take what `provider` cannot, each with its options; ONNX Runtime
    adds its CPU provider itself. With `profile`, every run is written down in a file whose name begins so;
    `end_profiling` gives its name. Raises `UserError` when the file does not load, or the session got other providers
    or provider options than were asked for.
    """
    import onnxruntime

    options = session_options(config, threads)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    asked = {provider: dict(provider_options or {})}
    asked |= {name: dict(chosen) for name, chosen in (companions or {}).items()}
    try:
        session = onnxruntime.InferenceSession(
            str(model),
            options,
            providers=list(asked.items()),
            disabled_optimizers=list(config.disabled_optimizers),
            enable_fallback=0,  # else a provider that fails is replaced by the CPU, at once or in the middle of a run
        )
    except Exception as error:  # onnxruntime raises many types, all of them about this file or device
        raise UserError(f"onnxruntime cannot run {model} on {provider}: {error}", PROVIDERS) from error
    _check(session, asked)
    return session


def _check(session: Any, asked: Mapping[str, Mapping[str, str]]) -> None:
    """Compare what a session says of its providers with what it was asked for."""
    for name, got in zip(asked, session.get_providers(), strict=False):
        if got != name:
            raise UserError(f"asked onnxruntime for {name}, got {got}", PROVIDERS)
    for name, chosen in asked.items():
        taken = session.get_provider_options()[name] if chosen else {}
        for key, value in chosen.items():
            if taken.get(key) != value:
                raise UserError(f"asked onnxruntime for {key}={value} on {name}, got {taken.get(key)}", PROVIDERS)
