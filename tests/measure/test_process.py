import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from measure.messages import Block, Opened, Probe, Probed, Timed, Weigh, Weighed
from measure.process import WorkerFailed, WorkerProcess
from tests.conftest import ROOT
from tests.measure.conftest import Opens

pytestmark = pytest.mark.usefixtures("fake_engine")


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess(1) as process:
        yield process


def gone(pid: int, within_s: float = 30) -> bool:
    """Whether a process ends (one that nobody has waited for is a zombie)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_answers_in_its_own_process(worker: WorkerProcess, opens: Opens) -> None:
    opened = worker.ask(opens("good"), Opened, 60)
    assert opened.info.input_names == ("input_ids", "attention_mask")
    assert worker.pid != os.getpid()
    assert psutil.Process(worker.pid).ppid() == os.getpid()
    assert len(worker.ask(Block(workload=1, passes=3), Timed, 60).samples_s) == 3 * 6


def test_a_worker_finds_packages_where_its_caller_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on clusters, where packages are installed into a folder that PYTHONPATH names."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("/first", "/second")))
    with WorkerProcess(1) as worker:
        found = psutil.Process(worker.pid).environ()["PYTHONPATH"].split(os.pathsep)
    assert found[-3:] == [str(ROOT), "/first", "/second"]


def test_what_an_engine_prints_does_not_reach_the_replies(worker: WorkerProcess, opens: Opens) -> None:
    worker.ask(opens("prints"), Opened, 60)
    for passes in (1, 2, 3):
        assert len(worker.ask(Block(workload=0, passes=passes), Timed, 60).samples_s) == passes


def test_a_worker_killed_by_a_signal_names_it(worker: WorkerProcess, opens: Opens) -> None:
    with pytest.raises(WorkerFailed, match=f"killed by signal {int(signal.SIGKILL)}"):
        worker.ask(opens("dies"), Opened, 60)
    with pytest.raises(WorkerFailed, match="killed by signal 9"):
        worker.ask(Weigh(), Weighed, 60)


def test_a_refusal_carries_its_reason_and_hint_and_the_worker_goes_on(worker: WorkerProcess, opens: Opens) -> None:
    with pytest.raises(WorkerFailed) as caught:
        worker.ask(opens("refuses"), Opened, 60)
    assert (caught.value.reason, caught.value.hint) == ("the fake refuses", "ask another")
    worker.ask(opens("good"), Opened, 60)


def test_an_engines_own_error_is_a_reason_too(worker: WorkerProcess, opens: Opens) -> None:
    with pytest.raises(WorkerFailed, match="ZeroDivisionError: the fake broke"):
        worker.ask(opens("breaks"), Opened, 60)


def test_a_worker_that_does_not_answer_in_time_is_killed(worker: WorkerProcess, opens: Opens) -> None:
    worker.ask(Probe(runtimes=()), Probed, 60)
    with pytest.raises(WorkerFailed, match="no answer within 1 s"):
        worker.ask(opens("hangs"), Opened, 1)
    assert gone(worker.pid)


def test_an_answer_of_another_kind_is_refused(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerFailed, match="answered Probed to Probe"):
        worker.ask(Probe(runtimes=()), Timed, 60)


def test_the_last_words_of_a_worker_that_cannot_start_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "site" / "sitecustomize.py").write_text("raise SystemExit('nothing works here')")
    with WorkerProcess(1) as worker, pytest.raises(WorkerFailed, match="nothing works here"):
        worker.ask(Probe(runtimes=()), Probed, 60)


def test_the_end_of_the_block_is_the_end_of_the_worker() -> None:
    with WorkerProcess(1) as worker:
        worker.ask(Probe(runtimes=()), Probed, 60)
    assert gone(worker.pid)


def test_every_worker_is_told_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    with WorkerProcess(3) as worker:
        worker.ask(Probe(runtimes=()), Probed, 60)
        environment = psutil.Process(worker.pid).environ()
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"  # the thread that asks is the only one that tokenises
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_the_tokenizer_stays_in_one_thread_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, text_opens: Opens
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    with WorkerProcess(1) as worker:
        worker.ask(text_opens("good"), Opened, 60)
        before = psutil.Process(worker.pid).num_threads()
        for workload in (2, 3):
            worker.ask(Block(workload=workload, passes=2), Timed, 60)
        deadline = time.monotonic() + 5
        while psutil.Process(worker.pid).num_threads() > before:  # a thread that was joined ends a little later
            assert time.monotonic() < deadline
            time.sleep(0.01)


HARNESS = """
import time
from measure.messages import Probe, Probed
from measure.process import WorkerProcess
workers = [WorkerProcess(1) for _ in range(2)]
for worker in workers:
    worker.ask(Probe(runtimes=()), Probed, 60)
print(*(worker.pid for worker in workers), flush=True)
time.sleep(600)
"""


def test_workers_end_when_their_harness_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", HARNESS], stdout=subprocess.PIPE, cwd=ROOT) as harness:
        assert harness.stdout
        pids = [int(pid) for pid in harness.stdout.readline().split()]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        harness.kill()
    assert all(gone(pid) for pid in pids)


def test_the_harness_burns_no_cpu_while_it_waits(worker: WorkerProcess, opens: Opens) -> None:
    worker.ask(Probe(runtimes=()), Probed, 60)
    wall, cpu = time.perf_counter(), time.process_time()
    with pytest.raises(WorkerFailed, match="no answer"):
        worker.ask(opens("hangs"), Opened, 1)
    assert time.process_time() - cpu < 0.05 * (time.perf_counter() - wall)
