"""Train every setting in its own process, a few steps of each in turn, so that all meet the same machine."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np

from artifact.predict.cores import usable_cores
from artifact.progress import Progress, silent
from artifact.records import append_line, read_if_present, read_lines, write_bytes, write_json
from artifact.run_folder import RunFolder, claim_output
from errors import UserError
from measure.machine import read_machine
from measure.messages import Reply
from measure.process import WorkerFailed, WorkerProcess
from models.training import Device, Lesson, TrainingPrecision
from side_by_side.curves import draw
from side_by_side.judge import judge, losses
from side_by_side.messages import REPLIES, Begin, Go, Learnt, Paused
from side_by_side.records import SCHEMA_VERSION, Place, SideBySide, TurnRecord
from side_by_side.report import render
from side_by_side.setting import Setting, folder

TURNS = 40
"""Into so many turns a training is divided."""

TIMEOUT_S = 24 * 3600.0


def train_side_by_side(
    lesson: Lesson,
    settings: Sequence[Setting],
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> SideBySide:
    """Fine-tune `lesson` in every setting and compare them with the first that can be trained.

    Each setting's run lies in `out`, in a folder named after it. What is trained already is not trained again, and an
    interrupted comparison goes on from the last saved steps. Raises `UserError` when `out` holds something else, or
    nothing could be trained; what was there before is kept then.
    """
    claim_output(out).begin()
    place, anywhere = Place(out), {"device": Device.AUTO, "precision": TrainingPrecision.AUTO}
    lesson = msgspec.structs.replace(lesson, config=msgspec.structs.replace(lesson.config, **anywhere))
    session = uuid4().hex
    with ExitStack() as stack:
        pupils = [_Pupil(setting, lesson, place, session) for setting in settings]
        for number, pupil in enumerate(pupils):
            progress("start", number, len(pupils), pupil.setting.name)
            stack.enter_context(pupil.process())
            pupil.begin(overwrite=overwrite)
        rounds = np.random.default_rng(lesson.config.seed)
        while waiting := [pupil for pupil in pupils if pupil.waits]:
            for number in rounds.permutation(len(waiting)):
                pupil = waiting[number]
                progress("train", sum(pupil.done for pupil in pupils), sum(pupil.total for pupil in pupils), pupil.note)
                pupil.go_on()
    outcomes = [pupil.learnt for pupil in pupils if pupil.learnt is not None]
    if not outcomes:
        first = pupils[0].failure or WorkerFailed("no process ran")
        raise UserError(f"nothing could be trained: {first.reason}", first.hint)
    trainings = {found.record.fingerprint for found in outcomes}
    turns = [turn for turn in read_lines(place.turns, _turn) if turn.training in trainings]
    rows, baseline = judge([(pupil.setting, pupil.learnt or pupil.failure) for pupil in pupils], turns, place)
    found = SideBySide(
        schema_version=SCHEMA_VERSION,
        lesson=lesson,
        baseline=baseline,
        metric=outcomes[0].record.metric,
        rows=rows,
        examples=outcomes[0].record.data.examples,
        machine=read_machine(),
        versions=outcomes[0].record.versions,
    )
    write_json(place.record, found)
    write_bytes(place.report, render(found).encode())
    trained = {row.setting: losses(RunFolder(place.run(folder(row.setting)))) for row in rows if row.reason is None}
    write_bytes(place.curves, draw(trained).encode())
    return found


def _turn(line: bytes) -> TurnRecord:
    return msgspec.json.decode(line, type=TurnRecord)


@dataclass(slots=True)
class _Pupil:
    """One setting in training: how far it is, and what became of it."""

    setting: Setting
    lesson: Lesson
    place: Place
    session: str
    training: str = ""
    opening: bool = True
    done: int = 0
    total: int = 0
    seconds_s: float = 0.0
    learnt: Learnt | None = None
    failure: WorkerFailed | None = None
    _process: WorkerProcess | None = field(default=None, repr=False)

    @contextmanager
    def process(self) -> Iterator[None]:
        """The process that trains it, ended with the block."""
        with WorkerProcess(usable_cores(), "side_by_side.trainee", REPLIES, offline=False) as self._process:
            yield

    @property
    def waits(self) -> bool:
        """Whether it has not ended, one way or the other."""
        return self.learnt is None and self.failure is None

    @property
    def steps_per_turn(self) -> int:
        return max(1, -(-self.total // TURNS))

    @property
    def note(self) -> str:
        return f"{self.setting.name}, {self.done} of {self.total} steps"

    def begin(self, *, overwrite: bool) -> None:
        """Load it, until it waits before its first step; or take what was trained before."""
        config = msgspec.structs.replace(
            self.lesson.config, device=self.setting.device, precision=self.setting.precision
        )
        lesson = msgspec.structs.replace(self.lesson, config=config)
        self._ask(Begin(lesson=lesson, out=str(self.place.run(self.setting.folder)), overwrite=overwrite))

    def go_on(self) -> None:
        """One turn; at the end, save and evaluate."""
        before = self.done, self.seconds_s
        energy_j = self._ask(Go(steps=self.steps_per_turn))
        if self.done > before[0]:
            turn = TurnRecord(
                session=self.session,
                training=self.training,
                setting=self.setting.name,
                opening=self.opening,
                first=before[0] + 1,
                last=self.done,
                seconds_s=self.seconds_s - before[1],
                energy_j=energy_j,
            )
            append_line(self.place.turns, turn)
            self.opening = False

    def _ask(self, request: Begin | Go) -> float | None:
        if self._process is None:
            raise RuntimeError("its process is not running")
        kept = self.place.learnt(self.setting.folder)
        try:
            reply = self._process.ask(request, Reply, TIMEOUT_S)
        except WorkerFailed as failure:
            self.failure = failure
            return None
        if isinstance(reply, Paused):
            self.training = reply.training
            self.done, self.total, self.seconds_s = reply.done, reply.total, reply.seconds_s
            return reply.energy_j
        if not isinstance(reply, Learnt):
            raise TypeError(f"{type(reply).__name__} from a training process")
        self.learnt = reply
        if reply.made:
            write_json(kept, reply)
        else:
            earlier = read_if_present(kept, Learnt)
            known = earlier is not None and earlier.record == reply.record
            self.learnt = earlier if known else msgspec.structs.replace(reply, peak_bytes=None, device_peak_bytes=None)
        return None
