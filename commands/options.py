"""What was typed behind an option, as what it means."""

from collections.abc import Collection

import typer

from artifact.pooling import Pooling, PoolingMode
from artifact.precision import Precision
from errors import UserError
from report.policy import Objective, Policy


def policy_of(
    objective: Objective,
    max_accuracy_drop: str,
    max_p95_ms: float | None,
    max_memory_mb: float | None,
    max_size_mb: float | None,
) -> Policy:
    """Limits in seconds and bytes. Raises `UserError` for a share that is not per cent."""
    return Policy(
        objective=objective,
        max_accuracy_drop=percent_of("--max-accuracy-drop", max_accuracy_drop),
        max_p95_s=None if max_p95_ms is None else max_p95_ms / 1e3,
        max_memory_bytes=None if max_memory_mb is None else round(max_memory_mb * 1e6),
        max_size_bytes=None if max_size_mb is None else round(max_size_mb * 1e6),
    )


def pooling_of(mode: PoolingMode | None, *, normalize: bool, refused: bool) -> Pooling | None:
    """`--pooling`, `--normalize` and `--no-pooling`. Raises `UserError` where they contradict each other."""
    if normalize and not mode:
        raise UserError("--normalize is about the vector that --pooling makes", "say how with --pooling, such as mean")
    if mode and refused:
        raise UserError("--pooling and --no-pooling exclude each other", "give one of them")
    return Pooling(mode, normalize) if mode else None


def names_of(text: str | None) -> tuple[str, ...] | None:
    """What commas part; `None` for nothing."""
    return tuple(name.strip() for name in text.split(",")) if text else None


def precisions_of(text: str | None) -> tuple[Precision, ...] | None:
    """The precisions that commas part, each once; `UserError` for one that there is not."""
    if text is None:
        return None
    known = {member.value: member for member in Precision}
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--precisions has '{unknown[0]}'", f"known are: {', '.join(known)}")
    return tuple(dict.fromkeys(known[name] for name in names))


def batch_sizes_of(text: str) -> tuple[int, ...]:
    """The numbers that commas part, each once, from the smallest; `UserError` for what is none from 1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--batch-sizes has '{text}'", "write whole numbers from 1, such as 1,8")
    return tuple(sorted({int(part) for part in parts}))


def check_compared(context: typer.Context, *, of_runs: bool) -> None:
    """Refuse options about measuring where runs are compared, and the other way round."""
    about_runs = {"runs", "max_slowdown", "strict"}
    for parameter in context.command.params:
        name, flag = parameter.name or "", max(parameter.opts, key=len)
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in ("out", "max_accuracy_drop", "as_json"):
            continue
        if of_runs and name not in about_runs:
            what = "RUN_OR_CHECKPOINT" if name == "model" else flag
            raise UserError(f"{what} is for measuring, and --from measures nothing", "leave one of them out")
        if not of_runs and name in about_runs:
            raise UserError(f"{flag} is for runs that were measured before", "name them: --from RUN --from RUN")


def refuse_given(context: typer.Context, names: Collection[str], why: str) -> None:
    """Raise `UserError` for an option of these that was given."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise UserError(f"{max(parameter.opts, key=len)} {why}", "leave it out")


def percent_of(flag: str, text: str) -> float:
    """A share from per cent; `UserError` names the flag where the sign is missing."""
    number = text.strip().removesuffix("%")
    if number == text.strip() or not number.replace(".", "", 1).isdecimal():
        raise UserError(f"{flag} has '{text}'", "write per cent, such as 5% or 0.5%")
    return float(number) / 100


def conditions_of(conditions: list[str] | None) -> dict[str, str] | None:
    """The value that each column must have; `UserError` for a condition without a sign."""
    if not conditions:
        return None
    pairs = [condition.partition("=") for condition in conditions]
    if not all(sign and column for column, sign, _ in pairs):
        raise UserError(f"--where has '{conditions[0]}'", "write COLUMN=VALUE")
    return {column: value for column, _, value in pairs}
