"""One replicate: a fresh process of every entrant, warmed up, then measured in interleaved rounds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from measure.core_latency import CoreLatency
from measure.messages import Block, Explain, Explained, Open, Opened, Timed, WarmUp, Weigh, Weighed
from measure.plan import Plan
from measure.process import WorkerFailed, WorkerProcess
from measure.records import BlockSamples, ColdStart, Entrant, Quality, Role, WarmUpSamples
from measure.scoring import Scorer
from measure.source import ModelSource
from measure.timing import passes_for
from measure.workload import Inputs
from runtimes.base import Executed

TRIES = 2
"""Blocks that are timed for one that is kept, where CPUs move apart while they run."""

PATIENCE_S = 0.5
"""How long a block waits for CPUs to come together."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all replicates of a session share, but that `plan` is of full or of lean ones.

    `inputs_file` holds `inputs` for the workers; `step` hears what starts; `limit_at` is when the plan's `limit_s` are
    over, in seconds of `perf_counter`.
    """

    source: ModelSource
    plan: Plan
    threads: int
    inputs: Inputs
    inputs_file: Path
    random: np.random.Generator
    step: Callable[[str], None]
    cores: CoreLatency
    limit_at: float

    def open_request(self, entrant: Entrant) -> Open:
        """What a worker is told to load for an entrant."""
        return Open(
            candidate=entrant.candidate,
            model=str(self.source.model(entrant.candidate)),
            threads=self.threads,
            inputs=str(self.inputs_file),
        )

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order that the session's seed decides."""
        return [items[index] for index in self.random.permutation(len(items))]


@dataclass(slots=True)
class Finished:
    """All that one entrant's process told; filled while the replicate runs."""

    entrant: Entrant
    process: WorkerProcess
    opened: Opened
    cold_start: ColdStart
    warm_ups: list[WarmUpSamples] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    blocks: list[BlockSamples] = field(default_factory=list)
    quality: tuple[Quality, ...] = ()
    weighed: Weighed | None = None
    executed: Executed | None = None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """An entrant whose process failed, and at which stage; the others go on."""

    entrant: Entrant
    stage: str
    failed: WorkerFailed


def run_replicate(
    setting: Setting, entrants: Sequence[Entrant], name: str, scorer: Scorer | None
) -> Iterator[Finished | GaveUp]:
    """Start one process of each entrant after another, warm up, interleave the rounds, score, weigh, explain.

    Yields failures as they happen and results at the end, the anchor first. Answers are scored if there is a `scorer`.
    """
    plan = setting.plan
    with ExitStack() as stack:
        live: list[Finished] = []
        for entrant in setting.shuffled(entrants):
            setting.step(f"{name}: start {entrant.name}")
            started = _start(setting, entrant, stack)
            if isinstance(started, GaveUp):
                yield started
            else:
                live.append(started)
        for number in _rounds(setting):
            setting.step(f"{name}: round {number + 1} of {plan.rounds}")
            for gave_up in _round(setting, number, live):
                live = [item for item in live if item.entrant != gave_up.entrant]
                yield gave_up
        for item in sorted(live, key=lambda item: item.entrant.role is not Role.ANCHOR):
            try:
                if setting.inputs.writes:  # to judge takes scores of every token, which serving does not
                    item.weighed = item.process.ask(Weigh(), Weighed, plan.timeout_s)
                if scorer is not None:
                    setting.step(f"{name}: answers of {item.entrant.name}")
                    item.quality = scorer.score(item.entrant, item.process, plan.timeout_s)
                item.weighed = item.weighed or item.process.ask(Weigh(), Weighed, plan.timeout_s)
            except WorkerFailed as failed:
                yield GaveUp(item.entrant, "scoring", failed)
                continue
            if scorer is not None:
                with suppress(WorkerFailed):  # all that was asked for is measured
                    explained = item.process.ask(Explain(workload=0), Explained, plan.timeout_s)
                    item.executed = explained.executed
            yield item
            item.process.close()


def _start(setting: Setting, entrant: Entrant, stack: ExitStack) -> Finished | GaveUp:
    """Cold start, then warm-up on every workload."""
    plan = setting.plan
    process = stack.enter_context(WorkerProcess(setting.threads))
    try:
        opened = process.ask(setting.open_request(entrant), Opened, plan.timeout_s)
        cold_start = ColdStart(
            total_s=perf_counter() - process.started,
            import_s=opened.import_s,
            load_s=opened.load_s,
            first_run_s=opened.first_run_s,
        )
        item = Finished(entrant, process, opened, cold_start)
        for number, workload in enumerate(setting.inputs.workloads):
            timed = process.ask(WarmUp(workload=number, limit_s=plan.warm_up_s), Timed, plan.timeout_s)
            item.warm_ups.append(
                WarmUpSamples(workload=workload.spec.name, samples_s=timed.samples_s, level=timed.level)
            )
            item.passes.append(
                passes_for(
                    timed.samples_s,
                    len(workload.spec.sample_shapes),
                    plan.block_s,
                    max(plan.least_passes, ceil(plan.least_calls / len(workload.spec.shapes))),
                    plan.most_passes,
                )
            )
    except WorkerFailed as failed:
        return GaveUp(entrant, "start", failed)
    return item


def _rounds(setting: Setting) -> Iterator[int]:
    """Numbers of the rounds, as long as there is time for them."""
    plan = setting.plan
    for number in range(plan.rounds):
        if number >= plan.lean.rounds and perf_counter() > setting.limit_at:
            return
        yield number


def _round(setting: Setting, number: int, live: Sequence[Finished]) -> Iterator[GaveUp]:
    """One block of every candidate on every workload, both in random order."""
    gone: set[Entrant] = set()
    for index in setting.random.permutation(len(setting.inputs.workloads)):
        for item in setting.shuffled(live):
            if item.entrant in gone:
                continue
            try:
                item.blocks.append(_block(setting, item, int(index), number))
            except WorkerFailed as failed:
                gone.add(item.entrant)
                yield GaveUp(item.entrant, "timing", failed)


def _block(setting: Setting, item: Finished, index: int, number: int) -> BlockSamples:
    """One block with CPUs together, or as they lie where a wait was in vain or after `TRIES`."""
    plan, cores, started = setting.plan, setting.cores, perf_counter()
    request = Block(workload=index, passes=item.passes[index])
    tried: list[tuple[float, ...]] = []
    for _ in range(TRIES):
        before_ns = cores.settle(plan.settle_s, PATIENCE_S)
        asked = perf_counter()
        timed = item.process.ask(request, Timed, plan.timeout_s)
        after_ns = cores.look()
        tried.append(timed.samples_s)
        if cores.is_apart(before_ns) or not cores.is_apart(after_ns):
            break
    return BlockSamples(
        workload=setting.inputs.workloads[index].spec.name,
        round=number,
        primer_s=timed.primer_s or 0.0,
        samples_s=timed.samples_s,
        device_samples_s=timed.device_samples_s,
        tokenise_s=timed.tokenise_s,
        energy_j=timed.energy_j,
        core_latency_ns=tuple(ns for ns in (before_ns, after_ns) if ns is not None),
        wait_s=asked - started,
        discarded_s=tuple(chain.from_iterable(tried[:-1])),
    )
