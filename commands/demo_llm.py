"""The whole job on a language model that a package carries: every stage is the public command's own."""

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from artifact.precision import Precision
from artifact.task import Task
from commands.demo import predict_without_torch
from commands.stages import compare, export, export_failures, need, pack
from commands.tell import print_json, tell_export, tell_packed, tell_verdict
from errors import GateFailed, UserError
from measure.plan import Plan

if TYPE_CHECKING:
    from artifact.run_folder import RunFolder

PRECISIONS = (Precision.FP32, Precision.INT8_DYNAMIC, Precision.INT4)
TEXTS = 60
QUESTION, ANSWER = "Name the capital of France.", "Paris"
PROCESSES, ROUNDS = 3, 3
"""Of each candidate to begin with, and of each process, at most: PyTorch takes seconds to start, and the answer is
clear."""


def run_llm_demo(out: Path, texts: int | None, plan: Plan, *, as_json: bool) -> None:
    """Unpack, export, compare, pack and ask in the folder `out`; judged on so many film reviews.

    Raises `UserError` for the run of a fine-tuning, and `GateFailed` when the packed model does not know the answer.
    """
    need("gguf", "gguf")
    need("demo", "movie_reviews")
    from artifact.examples import Examples, read_texts
    from artifact.run_folder import claim_output
    from exporter.request import Request, Source
    from models.embedded import smollm2
    from models.rows import Columns
    from runtimes.registry import portable

    plan = msgspec.structs.replace(plan, replicates=min(plan.replicates, PROCESSES), rounds=min(plan.rounds, ROUNDS))
    started = time.monotonic()
    say = functools.partial(typer.secho, bold=True, err=as_json)
    model, run = smollm2(), claim_output(out)
    if run.training.is_file():
        raise UserError(f"{out} holds a fine-tuning, whose data would be replaced", "name another folder with --out")
    run.begin()
    _write_texts(run, texts or TEXTS)

    say("1/4 unpack SmolLM2-135M-Instruct, export from one trace, and judge beside PyTorch")
    exported = export(
        Request(
            model,
            out,
            PRECISIONS,
            data=Source(run.evaluation_data, Columns()),
            calibration=Source(run.training_data, Columns()),
            is_language=True,
        )
    )
    tell_export(exported, err=as_json)
    if failed := export_failures([item for item in exported if item.variant.precision is Precision.FP32]):
        raise GateFailed(failed)

    say("2/4 compare, beside PyTorch, what can be packed")
    examples = Examples.unlabelled(read_texts(run.evaluation_data), run.evaluation_data)
    verdict, _ = compare(out, examples, None, runtimes=portable(), plan=plan)  # `compare` alone takes the others, too

    say("3/4 verdict")
    if not as_json:
        tell_verdict(verdict, run)

    say("4/4 pack the winner, and ask it where torch cannot be imported")
    packed = pack(run, out / "artifact", None)
    tell_packed(packed, err=as_json)
    answer = "\n".join(predict_without_torch(out / "artifact", ("--chat", QUESTION)))
    typer.echo(f"  {QUESTION}\n  {answer}", err=as_json)
    if ANSWER not in answer:
        raise GateFailed(f"the packed model does not say {ANSWER}")
    spent = time.monotonic() - started
    say(f"done in {spent:.0f} s")
    if as_json:
        print_json({"verdict": verdict, "artifact": packed, "answer": answer, "seconds_s": spent})


def _write_texts(run: "RunFolder", count: int) -> None:
    """Film reviews: `count` to judge on, and at most twice as many others, or 50, to calibrate on."""
    from models.embedded import movie_reviews
    from models.rows import read_task_rows, write_rows

    reviews = read_task_rows(movie_reviews(), Task.TEXT_GENERATION, where={"source": "rotten_tomatoes"})
    for name, begin, most in (("evaluation", 0, count), ("train", 1, max(50, 2 * count))):
        write_rows(run.data, name, reviews.select(range(begin, len(reviews), 17)[:most]))
