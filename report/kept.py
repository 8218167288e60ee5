"""Sentences about half graphs: what stays in fp32, and how they were judged."""

from collections.abc import Sequence

from artifact.variant import Kept

LISTED = 5
EMULATED = "half arithmetic was emulated, because a CPU computes it in fp32 and hides overflow"


def kept_in_fp32(kept: Sequence[Kept], chosen_on: str | None) -> str:
    """The nodes by the reasons why, the first reasons alone, and the examples that they were chosen on."""
    by_reason: dict[str, list[str]] = {}
    for item in kept:
        by_reason.setdefault(item.why, []).append(item.name)
    groups = [f"{_listed(names)} ({why})" for why, names in by_reason.items()]
    more = f" and {len(groups) - LISTED} more" if len(groups) > LISTED else ""
    chosen = f" (chosen on {chosen_on})" if chosen_on else ""
    return f"kept in fp32{chosen}: {', '.join(groups[:LISTED])}{more}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{len(names)} nodes from {names[0]} to {names[-1]}"
