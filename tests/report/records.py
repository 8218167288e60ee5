"""Hand-made records, so that a verdict's figures can be worked out on paper."""

from collections.abc import Mapping, Sequence

import msgspec

from artifact.precision import Precision
from measure.machine import Load, Machine
from measure.memory import MemoryReading
from measure.plan import Plan
from measure.records import (
    SCHEMA_VERSION,
    BlockSamples,
    ColdStart,
    Failure,
    Measurement,
    Quality,
    Record,
    Role,
    Session,
    WarmUpSamples,
)
from measure.workload import FromText, WorkloadSpec
from runtimes.base import RuntimeInfo

MACHINE = Machine(
    cpu_model="Test CPU",
    cpu_features=("avx2",),
    cores=4,
    usable_cores=2,
    cpu_quota_cores=2.0,
    memory_bytes=8_000_000_000,
    system="Linux 6.1 x86_64",
    python="3.11.7",
)
PLAN = Plan(
    name="test",
    replicates=4,
    most_replicates=4,
    limit_s=60.0,
    rounds=2,
    block_s=0.1,
    warm_up_s=0.1,
    settle_s=0.0,
    least_passes=1,
    most_passes=2,
    timeout_s=10,
    seed=7,
)
ASKED = ("torch-cpu/fp32", "torch-cpu/bf16", "ort-cpu/fp32", "ort-cpu/int8-dynamic")
QUIET = Load(watched_s=1.0, busy_fraction=0.01, steal_fraction=0.0)


def fingerprint(name: str, role: Role = Role.CANDIDATE, work: str = "") -> str:
    return f"{name} {role} {work}".strip()


def session(
    name: str = "s1", *, load: Load | None = QUIET, asked: Sequence[str] = ASKED, anchor: str = ASKED[0], work: str = ""
) -> Session:
    fingerprints = {candidate: fingerprint(candidate, Role.CANDIDATE, work) for candidate in asked}
    fingerprints[anchor] = fingerprint(anchor, Role.ANCHOR, work)
    fingerprints[f"{anchor} (A/A)"] = fingerprint(anchor, Role.CONTROL, work)
    return Session(
        schema_version=SCHEMA_VERSION,
        session=name,
        asked=fingerprints,
        started_utc="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        load=load,
        plan=PLAN,
        threads=2,
        workloads=(
            WorkloadSpec(name="1×16", batch_size=1, shapes=((1, 16),)),
            WorkloadSpec(name="8×natural", batch_size=8, shapes=((8, 20), (8, 30))),
        ),
        labels=("negative", "positive"),
        reference="torch-cpu/fp32",
        data="reviews.csv",
        data_sha256="d",
        inputs_sha256="i",
        examples=1000,
        score_batch_sizes=(1, 8),
        harness_floor_s=5e-7,
        versions={"torch": "2.13.0"},
        environment={},
    )


def quality(accuracy: float, *, wins: int = 0, losses: int = 0, batch_size: int | None = None) -> Quality:
    return Quality(
        reference="torch-cpu/fp32",
        batch_size=batch_size,
        examples=1000,
        accuracy_fraction=accuracy,
        reference_accuracy_fraction=0.83,
        agreement_fraction=1 - (wins + losses) / 1000,
        wins=wins,
        losses=losses,
        max_error=0.1,
        flip_margins=(),
        seconds_s=1.0,
    )


def measurements(
    name: str,
    seconds: Mapping[str, float],
    *,
    role: Role = Role.CANDIDATE,
    scores: Sequence[Quality] = (),
    replicates: Sequence[int] = range(4),
    noise: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    portable: bool = False,
    session_name: str = "s1",
    work: str = "",
    level: bool = True,
    rss_bytes: int = 160_000_000,
    device_share: float | None = None,
) -> list[Measurement]:
    """One candidate that takes `seconds[workload]` for each call, times its replicate's `noise`; `device_share` of it
    on a device."""
    runtime, _, precision = name.partition("/")
    calls = {"1×16": 3, "8×natural": 4}
    baseline = MemoryReading(rss_bytes=60_000_000, uss_bytes=50_000_000, pss_bytes=52_000_000)
    return [
        Measurement(
            schema_version=SCHEMA_VERSION,
            session=session_name,
            fingerprint=fingerprint(name, role, work),
            replicate=replicate,
            runtime=runtime,
            precision=Precision(precision),
            role=role,
            portable=portable,
            info=RuntimeInfo(
                runtime=runtime,
                engine="engine",
                engine_version="1",
                device="cpu",
                dtype=precision,
                threads=2,
                input_names=("input_ids",),
                options={},
            ),
            model_bytes=23_000_000,
            model_sha256=f"sha of {name}",
            cold_start=ColdStart(total_s=1.0 + replicate, import_s=0.1, load_s=0.1, first_run_s=0.1),
            warm_ups=(WarmUpSamples(workload="1×16", samples_s=(1.0,), level=level),),
            blocks=tuple(
                BlockSamples(
                    workload=workload,
                    round=number,
                    primer_s=9.0,
                    samples_s=(seconds[workload] * noise[replicate],) * count,
                    device_samples_s=(seconds[workload] * device_share,) * count if device_share else (),
                )
                for number in range(PLAN.rounds)
                for workload, count in calls.items()
            ),
            quality=tuple(scores) if replicate == 0 else (),
            baseline_memory=baseline,
            memory=MemoryReading(rss_bytes=rss_bytes, uss_bytes=90_000_000, pss_bytes=160_000_000),
            peak_device_bytes=None,
            finished_utc="2026-01-01T00:00:01+00:00",
        )
        for replicate in replicates
    ]


def failure(runtime: str, precision: Precision | None, *, stage: str, reason: str, hint: str = "") -> Failure:
    return Failure(
        schema_version=SCHEMA_VERSION,
        session="s1",
        runtime=runtime,
        precision=precision,
        role=Role.CANDIDATE,
        stage=stage,
        reason=reason,
        hint=hint,
    )


SLOW = {"1×16": 0.010, "8×natural": 0.080}
TWICE = {"1×16": 0.005, "8×natural": 0.040}
NOISE = (1.0, 1.004, 0.997, 1.001)


def usual(
    *, int8_scores: Sequence[Quality] | None = None, int8_seconds: Mapping[str, float] | None = None
) -> list[Record]:
    """A comparison as the demo makes it: int8 takes a quarter of the baseline's time, bf16 half, ORT fp32 0.8."""
    fp32 = quality(0.83)
    scores = int8_scores or (
        quality(0.828, wins=9, losses=11),
        quality(0.829, wins=10, losses=11, batch_size=1),
    )
    return [
        session(),
        *measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(fp32,)),
        *measurements("torch-cpu/fp32", SLOW, role=Role.CONTROL, noise=NOISE),
        *measurements("torch-cpu/bf16", TWICE, scores=(quality(0.831, wins=2, losses=1),), noise=NOISE),
        *measurements(
            "ort-cpu/fp32",
            {"1×16": 0.008, "8×natural": 0.064},
            scores=(fp32,),
            portable=True,
            noise=NOISE,
        ),
        *measurements(
            "ort-cpu/int8-dynamic",
            int8_seconds or {"1×16": 0.0025, "8×natural": 0.020},
            scores=scores,
            portable=True,
            noise=NOISE,
        ),
        failure("torch-cuda", None, stage="probe", reason="torch finds no CUDA GPU", hint="check the driver"),
    ]


def two_fixed(seconds: Mapping[str, float]) -> list[Record]:
    """The usual comparison with a second workload of a fixed shape, `8×16`, for each call of which the named candidates
    take so many seconds, and the others as many as of `1×16`."""
    asked, *others = usual()
    assert isinstance(asked, Session)
    spec = WorkloadSpec(name="8×16", batch_size=8, shapes=((8, 16),))
    return [
        msgspec.structs.replace(asked, workloads=(asked.workloads[0], spec, asked.workloads[1])),
        *(_at_8(item, seconds.get(item.entrant.name)) if isinstance(item, Measurement) else item for item in others),
    ]


def _at_8(item: Measurement, seconds: float | None) -> Measurement:
    """A measurement whose blocks of `1×16` are there once more as `8×16`, of `seconds` with the usual noise."""
    more = (
        msgspec.structs.replace(
            block,
            workload="8×16",
            samples_s=(seconds * NOISE[item.replicate],) * len(block.samples_s) if seconds else block.samples_s,
        )
        for block in item.blocks
        if block.workload == "1×16"
    )
    return msgspec.structs.replace(item, blocks=(*item.blocks, *more))


def from_text(
    *, plain_s: Sequence[float] = (0.2, 0.2), overlapped_s: Sequence[float] = (0.16, 0.16), share: float = 0.25
) -> list[Record]:
    """A baseline whose passes over 16 texts take so many seconds in each round; a `share` of it tokenises."""
    shapes = ((8, 20), (8, 30))
    names = ("8×text", "8×text-overlapped")
    specs = tuple(
        WorkloadSpec(name=name, batch_size=8, shapes=shapes, from_text=way)
        for name, way in zip(names, FromText, strict=True)
    )
    told = [
        BlockSamples(
            workload=name,
            round=number,
            primer_s=1.0,
            samples_s=(sample_s,) * 3,
            tokenise_s=(share * sample_s,) * 3,
        )
        for name, seconds_s in zip(names, (plain_s, overlapped_s), strict=True)
        for number, sample_s in enumerate(seconds_s)
    ]
    anchor = measurements("torch-cpu/fp32", SLOW, role=Role.ANCHOR, scores=(quality(0.83),))
    asked = session(asked=ASKED[:1])
    return [
        msgspec.structs.replace(asked, workloads=(*asked.workloads, *specs), tokenizer_floor_s=0.008),
        *(msgspec.structs.replace(item, blocks=(*item.blocks, *told)) for item in anchor),
    ]


def of_one_process(records: Sequence[Record]) -> list[Record]:
    """The same with a plan of one process of each, and only the first of each measured."""
    found = list[Record]()
    for item in records:
        if isinstance(item, Session):
            plan = msgspec.structs.replace(item.plan, replicates=1, most_replicates=1)
            item = msgspec.structs.replace(item, plan=plan)
        if not isinstance(item, Measurement) or item.replicate == 0:
            found.append(item)
    return found
