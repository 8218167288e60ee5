"""The process in which one setting is trained: it trains while it is told to, and waits in between."""

import ctypes
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from errors import UserError
from measure.energy import Meter, find_domains
from measure.messages import ENCODER, Failed, Reply
from measure.streams import leave, own_streams
from models.lesson import learn as train
from models.turns import Steps
from side_by_side.messages import REQUESTS, Begin, Go, Learnt, Paused

LONGEST_METERED_S = 60.0
"""A processor's counter may wrap after that."""

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Let Linux end this process when the harness is killed: in the middle of a turn nobody else would tell it, and the
    same command, started again, would find it at work. Elsewhere it ends with its turn."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Turns:
    """Trains as far as the harness lets it, then says how long that took and waits for the next turn."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests, self._replies = requests, replies
        self._until = 0
        self._domains = find_domains()
        self._meter, self._begun = Meter(self._domains), time.monotonic()

    def hear(self) -> Begin | Go:
        """The next request. Ends the process when there is none any more, as when the harness was killed."""
        line = self._requests.readline()
        if not line:
            sys.exit("the harness is gone")
        request: Begin | Go = REQUESTS.decode(line)
        return request

    def say(self, reply: Reply) -> None:
        """Send a reply."""
        self._replies.write(ENCODER.encode(reply) + b"\n")
        self._replies.flush()

    def __call__(self, steps: Steps) -> None:
        if steps.done < self._until and not steps.over:
            return
        energy_j = self._meter.joules() if time.monotonic() - self._begun < LONGEST_METERED_S else None
        self.say(
            Paused(
                training=steps.training,
                done=steps.done,
                total=steps.total,
                seconds_s=steps.seconds_s,
                energy_j=energy_j,
            )
        )
        request = self.hear()
        if not isinstance(request, Go):
            raise TypeError(f"{type(request).__name__} in the middle of a training")
        self._until = steps.done + request.steps
        self._meter, self._begun = Meter(self._domains), time.monotonic()


def learn(request: Begin, turns: Turns) -> Learnt:
    """Fine-tune, in turns. Raises what fine-tuning raises."""
    record, made = train(request.lesson, Path(request.out), overwrite=request.overwrite, turn=turns)
    return Learnt(
        record=record,
        made=made,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        device_peak_bytes=_device_peak_bytes() if record.device != "cpu" else None,
    )


def _device_peak_bytes() -> int:
    import torch

    return torch.cuda.max_memory_allocated()


def main() -> None:
    """Train once. A failure is a reply: it ends one setting and not the comparison."""
    end_with_parent()
    requests, replies = own_streams()
    turns = Turns(requests, replies)
    request = turns.hear()
    if not isinstance(request, Begin):
        raise TypeError(f"{type(request).__name__} before the beginning")
    try:
        turns.say(learn(request, turns))
    except UserError as error:
        turns.say(Failed(reason=error.message, hint=error.hint, ours=False))
    except Exception as error:
        traceback.print_exc()
        turns.say(Failed(reason=f"{type(error).__name__}: {error}", hint="", ours=True))
    leave(replies)


if __name__ == "__main__":
    main()
