"""What the ONNX Runtime runtimes share: a session that is exactly what was asked for."""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import onnxruntime

from artifact.precision import Precision
from artifact.predict.session import SessionConfig, open_session
from errors import UserError
from runtimes.base import About, Availability, Batch, Executed, Outputs, RuntimeInfo, check_batch
from runtimes.options import describe_options


def refuse_two_builds() -> None:
    """`onnxruntime` and `onnxruntime-gpu` share an import name: the later install overwrites the former.

    Raises `UserError` when both are installed, because nobody can say which one would run.
    """
    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        installed.append(name)
    if len(installed) == 2:
        raise UserError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of 'steelyard[cpu]' and 'steelyard[gpu]'",
        )


def probe_provider(runtime: str, provider: str, device: str) -> Availability:
    """Whether this build of ONNX Runtime has `provider`. A missing driver shows only when a session is opened."""
    try:
        refuse_two_builds()
    except UserError as error:
        return Availability(runtime=runtime, available=False, reason=error.message, remedy=error.hint)
    present = provider in onnxruntime.get_available_providers()
    return Availability(
        runtime=runtime,
        available=present,
        engine_version=onnxruntime.__version__,
        device=device if present else None,
        reason=None if present else f"this onnxruntime {onnxruntime.__version__} has no {provider}",
        remedy=None if present else "pip install 'steelyard[gpu]' in an environment without onnxruntime",
    )


def _kernel(args: Mapping[str, Any], provider: str) -> str:
    """A kernel's name, such as `MatMulNBits float` or `Gather float on CPUExecutionProvider`."""
    computes = next((kind for item in args.get("output_type_shape", ()) for kind in item), "")
    elsewhere = "" if args["provider"] == provider else f" on {args['provider']}"
    return f"{args['op_name']} {computes}".rstrip() + elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a session runs: `provider` with its options, `companions` that may take what it cannot, and session
    `entries`."""

    provider: str
    device: str
    options: Mapping[str, str] = field(default_factory=dict)
    companions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)


def about(batch: Batch) -> About:
    """Turn what onnxruntime raises (many types, all of them about these inputs) into a `UserError`."""
    return About(batch, "onnxruntime", (Exception,))


class OrtModel:
    """An ONNX graph in a session on one target, with `threads` intra-op threads; a `Runtime`."""

    def __init__(
        self, name: str, target: Target, model: Path, precision: Precision, threads: int, config: SessionConfig
    ) -> None:
        self._name, self._target = name, target
        self._model, self._precision, self._threads, self._config = model, precision, threads, config
        self._session: Any = None

    @property
    def session(self) -> Any:
        """The open `onnxruntime.InferenceSession`."""
        if self._session is None:
            raise RuntimeError("the runtime is not open; use it in a with block")
        return self._session

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(
            runtime=self._name,
            engine="onnxruntime",
            engine_version=onnxruntime.__version__,
            device=self._target.device,
            dtype=self._precision.value,
            threads=self.session.get_session_options().intra_op_num_threads,
            input_names=self._input_names,
            options=describe_options(self._config) | self._taken(),
            nodes_by_provider=self.nodes_by_provider(),
        )

    def _taken(self) -> dict[str, str]:
        """Provider options as the session tells them; a companion's bear its name."""
        told = self.session.get_provider_options()
        of_companions = {
            f"{name}.{key}": value for name in self._target.companions for key, value in told[name].items()
        }
        return {**told[self._target.provider], **of_companions}

    def nodes_by_provider(self) -> dict[str, int]:
        """Nodes by the provider that the session assigned them to, which it does before the later fusions."""
        placed: Counter[str] = Counter()
        for subgraph in self.session.get_provider_graph_assignment_info():
            placed[subgraph.ep_name] += len(subgraph.get_nodes())
        return dict(placed)

    def providers_of(self, operator: str) -> set[str]:
        """The providers that the session assigned an operator's nodes to."""
        return {
            subgraph.ep_name
            for subgraph in self.session.get_provider_graph_assignment_info()
            if any(node.op_type == operator for node in subgraph.get_nodes())
        }

    def __enter__(self) -> Self:
        """Load the graph. Raises `UserError` when it does not load or the session got another provider."""
        refuse_two_builds()
        session = self._open(self._target, {"session.record_ep_graph_assignment_info": "1"})
        self._session = session
        self._input_names = tuple(item.name for item in session.get_inputs())
        self._output_names = [item.name for item in session.get_outputs()]
        return self

    def _open(self, target: Target, entries: Mapping[str, str], profile: Path | None = None) -> Any:
        return open_session(
            self._model,
            provider=target.provider,
            threads=self._threads,
            config=self._config,
            provider_options=target.options,
            companions=target.companions,
            entries={**target.entries, **entries},
            profile=profile,
        )

    def run(self, batch: Batch) -> Outputs:
        """Host to host; ONNX Runtime's `run` blocks until the outputs are on the host, in arrays of their own."""
        session = self.session
        self._check(batch)
        with about(batch):
            outputs = session.run(self._output_names, dict(batch))
        return {
            name: np.asarray(value, dtype=np.float32) for name, value in zip(self._output_names, outputs, strict=True)
        }

    def _check(self, batch: Batch) -> None:
        """Refuse what does not fit the graph, as far as the engine would not do so itself."""
        check_batch(batch, self._input_names)

    def bind(self, batch: Batch) -> Callable[[], None] | None:
        """`None`: on a CPU the host is the device."""
        return None

    def executed(self, batch: Batch) -> Executed | None:
        return self.profiled(lambda session: session.run(self._output_names, dict(batch)))

    def profiled(self, run: Callable[[Any], object]) -> Executed:
        """From ONNX Runtime's profile of one run in a second session: each kernel as its operator, its provider unless
        that is the asked one, and the number type it computes in. Copies between host and device are its Memcpy
        nodes."""
        target = self._watched
        with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
            session = self._open(target, {}, Path(folder) / "profile")
            run(session)
            events = msgspec.json.decode(Path(session.end_profiling()).read_bytes())
        ran = [event["args"] for event in events if event.get("name", "").endswith("_kernel_time")]
        return Executed.of(
            (_kernel(args, target.provider) for args in ran),
            conversions=sum(args["op_name"] == "Cast" for args in ran),
            copies=sum(args["op_name"].startswith("Memcpy") for args in ran),
        )

    @property
    def _watched(self) -> Target:
        """The target of the session that tells what is executed."""
        return self._target

    def peak_device_bytes(self) -> int | None:
        """Not known: ONNX Runtime does not say how much device memory its arena holds."""
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
