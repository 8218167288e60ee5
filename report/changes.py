"""What is not the same in two runs: machine, plan, data, versions, environment, weights and engines."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from measure.records import Measurement, Session

ABSENT = "–"
HASH_DIGITS = 12


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs: its value in each run, `–` where a run does not have it."""

    what: str
    base: str
    later: str


def changes(
    base: Session, later: Session, measured: Mapping[str, tuple[Measurement, Measurement]]
) -> tuple[Change, ...]:
    """Everything recorded that differs. `measured` holds a measurement of each run for each candidate of both."""
    return (
        *_fields("", {"measured": base.started_utc}, {"measured": later.started_utc}),
        *_fields("", _machine(base), _machine(later)),
        *_fields("", {"threads": str(base.threads)}, {"threads": str(later.threads)}),
        *_plan(base, later),
        *_fields("", _work(base), _work(later)),
        *_fields("", base.versions, later.versions),
        *_fields("environment ", base.environment, later.environment),
        *_of_candidates(measured),
    )


def _fields(prefix: str, base: Mapping[str, str], later: Mapping[str, str]) -> Iterable[Change]:
    """What differs between two mappings of names to texts."""
    for name in dict.fromkeys((*base, *later)):
        one, other = base.get(name, ABSENT), later.get(name, ABSENT)
        if one != other:
            yield Change(what=f"{prefix}{name}", base=one, later=other)


def _machine(session: Session) -> dict[str, str]:
    machine = session.machine
    return {
        "CPU": machine.cpu_model,
        "instruction sets": ", ".join(machine.cpu_features) or ABSENT,
        "cores": str(machine.cores),
        "usable cores": str(machine.usable_cores),
        "quota of cores": ABSENT if machine.cpu_quota_cores is None else f"{machine.cpu_quota_cores:g}",
        "governor": machine.governor or ABSENT,
        "memory": f"{machine.memory_bytes / 1e9:.1f} GB",
        "system": machine.system,
        "Python": machine.python,
    }


def _plan(base: Session, later: Session) -> Iterable[Change]:
    """The fields of the plan that differ, in one line."""
    pairs = zip(msgspec.structs.asdict(base.plan).items(), msgspec.structs.asdict(later.plan).items(), strict=True)
    unlike = [(name, one, other) for (name, one), (_, other) in pairs if one != other]
    if unlike:
        yield Change(
            what="plan",
            base=", ".join(f"{name} {one}" for name, one, _ in unlike),
            later=", ".join(f"{name} {other}" for name, _, other in unlike),
        )


def _work(session: Session) -> dict[str, str]:
    lengths = {spec.name: " ".join(f"{rows}×{tokens}" for rows, tokens in spec.shapes) for spec in session.workloads}
    shapes = {f"batches of {name}": text for name, text in lengths.items() if text != name}
    return {
        "workloads": ", ".join(lengths),
        **shapes,
        "data": f"{session.data}, {session.examples} examples, sha256 {session.data_sha256[:HASH_DIGITS]}",
        "reference": session.reference,
    }


def _of_candidates(measured: Mapping[str, tuple[Measurement, Measurement]]) -> Iterable[Change]:
    """Weights, engine and settings; what changed alike for several candidates is one line that names them."""
    found: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, (base, later) in measured.items():
        for change in _fields("", _candidate(base), _candidate(later)):
            found[change.what, change.base, change.later].append(name)
    for (what, base_text, later_text), names in found.items():
        yield Change(what=f"{what} of {', '.join(names)}", base=base_text, later=later_text)


def _candidate(measurement: Measurement) -> dict[str, str]:
    info = measurement.info
    return {
        "weights": f"sha256 {measurement.model_sha256[:HASH_DIGITS]}",
        "engine": f"{info.engine} {info.engine_version}",
        "device": info.device,
        "number type": info.dtype,
        **{f"setting {name}": value for name, value in info.options.items()},
    }
