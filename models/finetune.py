"""From data and a base model to a run that is fine-tuned; what is there already is not made again (light: no torch)."""

from pathlib import Path

from artifact.identity import checkpoint_sha256
from artifact.progress import Progress, silent
from artifact.records import read_if_present
from artifact.run_folder import RunFolder, claim_output
from models.assignment import Assignment, assign
from models.processes import join, launched
from models.quiet import ON_IMPORT, hushed
from models.rows import TaskRows
from models.training import FinetuneConfig, Problem, Teacher, Told, TrainingRecord
from models.turns import Turn, always


def finetune(
    base_model: str,
    data: TaskRows,
    out: Path,
    *,
    evaluation: TaskRows | None = None,
    labels: tuple[str, ...] | None = None,
    problem: Problem | None = None,
    config: FinetuneConfig | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    told: Told = lambda summary: None,
    turn: Turn = always,
    teacher: Teacher | None = None,
    tensorboard: bool = False,
) -> tuple[TrainingRecord, bool]:
    """Fine-tune `base_model` (a folder, a GGUF file or a Hub id); `data/`, `checkpoint/`, `training.json` go to `out`.

    Returns the record and whether it was made now (`False`: the same training was already there). An interrupted run
    goes on from its last saved step. `labels` names the classes in the sorted order of the labels in the data, and
    `problem` says what these are where it does not follow from them. `told` hears of the data before anything is
    learnt. `turn` is called before each step and may wait; with `tensorboard` the run gets event files. Under torchrun
    or accelerate's launcher the processes train one model, and the first of them writes. Raises `UserError` for bad
    data, a base model or teacher that cannot be loaded, a folder that holds another training, a loss that is no number,
    or when memory runs out.
    """
    assignment = assign(base_model, data, evaluation, labels, problem, teacher, config or FinetuneConfig())
    run = claim_output(out)
    if not launched() and (earlier := _made_before(run, assignment)):
        return earlier, False
    with hushed(*ON_IMPORT):
        from models.job import Job
        from models.trainer import choose_device, spare_memory

    processes = join(choose_device(assignment.config))
    earlier = processes.first(_made_before(run, assignment))  # what one finds, all go by
    if earlier is not None:
        return earlier, False
    processes.share(assignment.config.batch_size)
    job = Job(assignment, run, progress, told, turn, tensorboard, processes)
    job.begin(overwrite=overwrite)
    spare_memory()
    return job.train(), True


def _made_before(run: RunFolder, assignment: Assignment) -> TrainingRecord | None:
    """The record of the same training, if its checkpoint is still whole."""
    record = read_if_present(run.training, TrainingRecord)
    if record is None or record.fingerprint != assignment.mark or not run.own_checkpoint.is_dir():
        return None
    return record if checkpoint_sha256(run.own_checkpoint) == record.checkpoint_sha256 else None
