"""Recurrences of state-space layers, traced as one ONNX Scan over the positions each.

Whether a modelling file computes one of them is not read from its name alone but tried with random numbers.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import silu, softplus

from exporter.language.attention import Attending, Pass

Found = tuple[torch.Tensor, torch.Tensor]
"""What a recurrence gives of each position, and the state that it leaves."""

Run = Callable[[torch.Tensor, Sequence[torch.Tensor], torch.Tensor], Found]
"""Takes a step at every position, from a state on, with inputs whose first axis is the positions, and the decay."""


def step(
    state: torch.Tensor,
    time: torch.Tensor,
    added: torch.Tensor,
    into: torch.Tensor,
    out: torch.Tensor,
    decay: torch.Tensor,
) -> list[torch.Tensor]:
    """hₜ = exp(timeₜ · decay) · hₜ₋₁ + intoₜ · addedₜ and yₜ = outₜ · hₜ (Gu and Dao, 2023): the next state, and yₜ.

    States are (batch, ..., size, channels), so that what is multiplied has long rows; `time`, `added` and yₜ (batch,
    ..., 1, channels), `into` (batch, ..., size, 1) and `out` (batch, ..., 1, size).
    """
    state = torch.exp(time * decay) * state + into * added
    return [state, out @ state]


def one_by_one(state: torch.Tensor, inputs: Sequence[torch.Tensor], decay: torch.Tensor) -> Found:
    """The steps themselves, for numbers."""
    found = []
    for time, added, into, out in zip(*inputs, strict=True):
        state, output = step(state, time, added, into, out, decay)
        found.append(output)
    return torch.stack(found), state


def scanned(state: torch.Tensor, inputs: Sequence[torch.Tensor], decay: torch.Tensor) -> Found:
    """The steps as one operator of a trace."""
    left, found = torch.ops.higher_order.scan(step, [state], list(inputs), (decay,))
    return found, left


@dataclass(frozen=True, slots=True)
class Begun:
    """How a recurrence is run, and the state that it begins with; `told`, (batch, tokens), is 0 where a token only
    fills a row up: no time passes there, so the state stays as it is."""

    run: Run
    state: torch.Tensor
    told: torch.Tensor


def selective_scan(
    begun: Begun,
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,  # noqa: N803  # as the papers call them, and callers by name
    B: torch.Tensor,  # noqa: N803
    C: torch.Tensor,  # noqa: N803
    D: torch.Tensor | None = None,  # noqa: N803
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    **more: Any,
) -> Found:
    """That of Mamba: states and times are (batch, channels, tokens), `B` and `C` (batch, size, tokens), `A` (channels,
    size)."""
    time = dt if delta_bias is None else dt + delta_bias[:, None]
    time = (softplus(time) if delta_softplus else time) * begun.told[:, None]
    wide = [part.permute(2, 0, 1)[:, :, None] for part in (time, time * hidden_states)]
    into, out = B.permute(2, 0, 1)[..., None], C.permute(2, 0, 1)[:, :, None]
    found, state = begun.run(begun.state, (*wide, into, out), A.T.contiguous())
    found = found.squeeze(2).permute(1, 2, 0)
    found = found if D is None else found + hidden_states * D[:, None]
    return (found if z is None else found * silu(z)), state


def chunk_scan(
    begun: Begun,
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,  # noqa: N803
    B: torch.Tensor,  # noqa: N803
    C: torch.Tensor,  # noqa: N803
    D: torch.Tensor | None = None,  # noqa: N803
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    **more: Any,
) -> Found:
    """That of Mamba 2 (Dao and Gu, 2024), whose heads decay as a whole: states are (batch, tokens, heads, channels),
    times (batch, tokens, heads), `B` and `C` (batch, tokens, groups of heads, size), `A` (heads)."""
    time = dt if dt_bias is None else dt + dt_bias
    time = ((softplus(time) if dt_softplus else time).clamp(*dt_limit) * begun.told[..., None])[..., None]
    shared = A.shape[0] // B.shape[2]
    into, out = (part[:, :, :, None].expand(-1, -1, -1, shared, -1).flatten(2, 3).transpose(0, 1) for part in (B, C))
    wide = [part.transpose(0, 1)[..., None, :] for part in (time, time * hidden_states)]
    found, state = begun.run(begun.state, (*wide, into[..., None], out[..., None, :]), A[:, None, None])
    found = found.squeeze(3).transpose(0, 1)
    return (found if D is None else found + hidden_states * D[:, None]), state


@dataclass(frozen=True, slots=True)
class Recurrence:
    """One of them: ours, the flag that asks for its state, and sizes to try it with: of a state, and by the names of
    inputs."""

    ours: Callable[..., Found]
    asked: str
    state: tuple[int, ...]
    tokens: int
    sizes: Mapping[str, tuple[int, ...]]
    more: Mapping[str, Any]

    def is_that_of(self, own: Callable[..., Any]) -> bool:
        """Whether a function of a modelling file computes the same, from an empty state on."""
        random = torch.Generator().manual_seed(0)
        given = {name: torch.randn(size, generator=random) for name, size in self.sizes.items()}
        given["A"] = -given["A"].exp()
        begun = Begun(one_by_one, torch.zeros(self.state), torch.ones(self.state[0], self.tokens))
        try:
            with torch.inference_mode():
                found = own(**given, **self.more, **{self.asked: True})
        except (TypeError, RuntimeError, IndexError):
            return False
        said, state = self.ours(begun, **given, **self.more)
        wanted = said, state.mT  # modelling files have channels before sizes
        return isinstance(found, tuple) and all(
            one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=1e-4)
            for one, other in zip(found, wanted, strict=True)
        )


RECURRENCES: Mapping[str, Recurrence] = {
    "mamba_selective_scan": Recurrence(
        selective_scan,
        "return_last_state",
        (2, 3, 4),
        5,
        {
            **dict.fromkeys(("hidden_states", "dt", "z"), (2, 4, 5)),
            "A": (4, 3),
            **dict.fromkeys("BC", (2, 3, 5)),
            **dict.fromkeys(("D", "delta_bias"), (4,)),
        },
        {"delta_softplus": True},
    ),
    "mamba2_chunk_scan": Recurrence(
        chunk_scan,
        "return_final_states",
        (2, 4, 3, 6),
        5,
        {
            "hidden_states": (2, 5, 4, 6),
            "dt": (2, 5, 4),
            **dict.fromkeys("BC", (2, 5, 2, 3)),
            **dict.fromkeys(("A", "D", "dt_bias"), (4,)),
        },
        {"dt_softplus": True, "chunk_size": 2},
    ),
}
"""By the names of modelling files' functions."""


@contextmanager
def recurring(model: Any, attending: Attending) -> Iterator[int]:
    """Let the recurrences of a model be traced so inside the block; tells how many functions were replaced."""
    files = {sys.modules[type(module).__module__] for module in model.modules()}
    replaced = 0
    with ExitStack() as stack:
        for file in files:
            for name, recurrence in RECURRENCES.items():
                own = getattr(file, name, None)
                if own is not None and recurrence.is_that_of(own):
                    stack.enter_context(patch.object(file, name, _traced(recurrence, attending)))
                    replaced += 1
        yield replaced


def _traced(recurrence: Recurrence, attending: Attending) -> Callable[..., Found]:
    def run(*given: Any, **more: Any) -> Found:
        now = attending.current
        if not isinstance(now, Pass) or now.state is None:
            raise RuntimeError("this recurrence is for a trace")
        found, now.left = recurrence.ours(Begun(scanned, now.state, now.told), *given, **more)
        return found, now.left

    return run
