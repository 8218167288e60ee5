"""The command line: parse, build one typed configuration, call one function, print, exit code."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from artifact.layout import Extras, Layout
from artifact.pooling import PoolingMode
from artifact.precision import Precision
from artifact.task import Task
from commands import stages, tell, writing
from commands.options import (
    batch_sizes_of,
    check_compared,
    conditions_of,
    names_of,
    percent_of,
    policy_of,
    pooling_of,
    precisions_of,
    refuse_given,
)
from commands.reading import read_compared
from errors import GateFailed, UserError
from exporter.options import EXAMPLES, Options, Profile, Target, Weights
from measure.plan import Budget, find_plan
from models.training import Device, FinetuneConfig, Lesson, Optimizer, Problem, Schedule, TrainingPrecision
from report.policy import Objective

P = ParamSpec("P")
DEFAULT = FinetuneConfig()
PRECISIONS = "fp32,int8-dynamic"
CHOSEN = Options()

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
TextColumn = Annotated[str | None, typer.Option(help="Column that holds the text.")]
PairColumn = Annotated[str | None, typer.Option(help="Column that holds the second text.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column that holds the label.")]
Where = Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Keep only rows with this value.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another training in --out.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
BudgetOption = Annotated[
    str, typer.Option(metavar="|".join([*Budget, "SECONDS"]), help="How long to measure; undecided pairs get the rest.")
]
ObjectiveOption = Annotated[
    Objective,
    typer.Option(help="What the winner is best at: every workload, small batches, large ones, or size."),
]
MaxDrop = Annotated[
    str,
    typer.Option(
        "--max-accuracy-drop",
        metavar="P%",
        help="How much of the reference's accuracy (with --from: of the base's) may be lost.",
    ),
]
Language = Annotated[str | None, typer.Option(help="What a model writes that hears many languages, such as en.")]
MaxP95 = Annotated[float | None, typer.Option("--max-p95-ms", min=0, help="Limit on the p95 of a call.")]
MaxMemory = Annotated[float | None, typer.Option("--max-memory-mb", min=0, help="Limit on the process's memory.")]
MaxSize = Annotated[float | None, typer.Option("--max-size-mb", min=0, help="Limit on the weight files.")]


WRITES: dict[str, Any] = {"rich_help_panel": "Language models"}
WRITING = ("chat", "system", "max_new_tokens", "temperature", "top_p", "min_p", "repetition_penalty", "seed", "stop")


@app.callback()
def steelyard(
    version: Annotated[
        bool, typer.Option("--version", callback=tell.tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Export a fine-tuned model, weigh every runtime that could serve it, and ship the lightest that stays true."""


def command(run: Callable[P, None]) -> Callable[P, None]:
    """Register a command whose failures are one sentence on standard error: exit 2 for input, 1 for a failed check."""

    @app.command()
    @functools.wraps(run)
    def reported(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except UserError as error:
            raise _exit(error, 2) from None
        except GateFailed as error:
            raise _exit(error, 1) from None
        except KeyboardInterrupt:
            typer.echo("\ninterrupted; what was finished is kept, and the same command goes on from there", err=True)
            raise typer.Exit(130) from None

    return reported


@command
def finetune(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="Base model: a local folder, a .gguf file, or a Hub id where there is network.")
    ],
    data: Annotated[Path, typer.Option(help="Examples: .csv, .tsv, .jsonl or .parquet, or a folder of `datasets`.")],
    out: Out,
    eval_data: Annotated[Path | None, typer.Option(help="Examples to evaluate on (default: a part of --data).")] = None,
    task: Annotated[Task | None, typer.Option(help="Default: what the data's columns are for.")] = None,
    problem: Annotated[Problem | None, typer.Option(help="Default: what the labels look like.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="How many examples of --data to hold out.")] = DEFAULT.held_out,
    labels: Annotated[str | None, typer.Option(help="Names for the labels, in the sorted order of the data's.")] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    where: Where = None,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULT.batch_size,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches that one step learns from.")] = DEFAULT.accumulate,
    learning_rate: Annotated[float, typer.Option(min=0)] = DEFAULT.learning_rate,
    optimizer: Optimizer = DEFAULT.optimizer,
    schedule: Annotated[Schedule, typer.Option(help="How the learning rate falls.")] = DEFAULT.schedule,
    warmup_fraction: Annotated[
        float, typer.Option("--warmup", min=0, max=1, help="Share of the steps in which it rises.")
    ] = DEFAULT.warmup_fraction,
    weight_decay: Annotated[float, typer.Option(min=0)] = DEFAULT.weight_decay,
    clip_norm: Annotated[float, typer.Option(min=0, help="Longest gradient; 0 clips none.")] = DEFAULT.clip_norm,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.99, help="Instead of the model's own.")] = None,
    label_smoothing: Annotated[float, typer.Option(min=0, max=0.99)] = DEFAULT.label_smoothing,
    balance: Annotated[bool, typer.Option("--balance", help="Weigh rare labels more.")] = False,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations twice instead of keeping them.")
    ] = False,
    compile: Annotated[  # noqa: A002  the option's name
        bool, typer.Option("--compile", help="Compile the model with TorchInductor.")
    ] = False,
    layers: Annotated[int | None, typer.Option(min=1, help="Keep only the first layers of the model.")] = None,
    lora: Annotated[
        int, typer.Option(min=0, metavar="RANK", help="Learn small matrices beside the weights; 0: the weights.")
    ] = DEFAULT.lora,
    patience: Annotated[
        int, typer.Option(min=0, help="End when a tenth of --data that validates got no better so often; 0: never.")
    ] = DEFAULT.patience,
    teacher: Annotated[Path | None, typer.Option(help="A checkpoint whose answers are learnt as well.")] = None,
    teacher_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Their part of the loss (default: 0.5).")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.01, help="What softens them (default: 2).")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files into the run.")] = False,
    max_length_tokens: Annotated[
        int, typer.Option("--max-length", min=2, help="Tokens; longer texts are cut.")
    ] = DEFAULT.max_length_tokens,
    language: Language = None,
    precision: Annotated[TrainingPrecision, typer.Option(help="Arithmetic of training.")] = DEFAULT.precision,
    device: Annotated[Device, typer.Option(help="Where to train.")] = DEFAULT.device,
    side_by_side: Annotated[
        str | None,
        typer.Option(
            "--compare", metavar="D/P,D/P", help="Train in each of these, such as cpu/fp32,cuda/bf16, and compare."
        ),
    ] = None,
    seed: int = DEFAULT.seed,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model in PyTorch; an interrupted run goes on from its last saved step.

    Texts, pairs of texts, pictures, tagged words, questions, texts to continue or to rewrite, recordings to write down:
    the task follows from the columns, or is named. With --compare, the same training runs in several settings, in
    turns, and --out holds a run of each.
    """
    lesson = Lesson(
        base_model=model,
        data=str(data),
        evaluation=str(eval_data) if eval_data else None,
        task=task,
        problem=problem,
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        where=conditions_of(where) or {},
        labels=names_of(labels),
        config=FinetuneConfig(**{name: context.params[name] for name in FinetuneConfig.__struct_fields__}),
        teacher=stages.name_teacher(teacher, teacher_share, temperature),
        tensorboard=tensorboard,
    )
    if side_by_side is not None:
        found = stages.finetune_side_by_side(lesson, out, side_by_side, overwrite=overwrite)
        tell.print_json(found) if as_json else tell.tell_side_by_side(found, out)
        return
    record, made = stages.finetune(lesson, out, overwrite=overwrite)
    if stages.speaks():
        tell.print_json(record) if as_json else tell.tell_training(record, out, made=made)


@command
def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A folder written by save_pretrained, or a run; weights of --module.")
    ] = None,
    *,
    out: Out,
    precisions: Annotated[str, typer.Option(metavar="P,P", help="Precisions to export, or 'all'.")] = PRECISIONS,
    data: Annotated[Path | None, typer.Option(help="Real examples that variants are judged by.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Training examples for int8-static's ranges (default: the run's).")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many of --data to compare on.")] = EXAMPLES,
    module: Annotated[
        str | None, typer.Option(metavar="FILE:FUNC", help="A function that returns a module and its sample inputs.")
    ] = None,
    task: Annotated[Task | None, typer.Option(help="Default: what the checkpoint's class is for.")] = None,
    pooling: Annotated[
        PoolingMode | None, typer.Option(help="Make one vector of each text (default: as sentence-transformers says).")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale that vector to length 1.")] = False,
    no_pooling: Annotated[bool, typer.Option("--no-pooling", help="Give the vectors of tokens.")] = False,
    profile: Annotated[Profile, typer.Option(help="Standard operators, or fused ones.")] = CHOSEN.profile,
    target: Annotated[Target, typer.Option(help="CPUs that int8 is for.")] = CHOSEN.target,
    opset: Annotated[int | None, typer.Option(min=18, help="Default: the tracer's.")] = None,
    weights: Annotated[Weights, typer.Option(help="How int8 weights are stored.")] = CHOSEN.weights,
    block_size: Annotated[int, typer.Option(min=16, help="Weights that share a scale in int4.")] = CHOSEN.block_size,
    accuracy_level: Annotated[
        int, typer.Option(min=0, max=4, help="4: int4 kernels may round to int8.")
    ] = CHOSEN.accuracy_level,
    head_bits: Annotated[
        int, typer.Option(metavar="4|8", help="Of the table of tokens and the head of a language model's int4.")
    ] = CHOSEN.head_bits,
    selective: Annotated[bool, typer.Option(help="Give layers back to fp32 when a gate fails.")] = True,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load weights that are not safetensors.")
    ] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="Write language models for llama.cpp, too.")] = False,
    language: Language = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    as_json: Json = False,
) -> None:
    """Trace a model once, derive each precision from it, and check each against PyTorch."""
    request = stages.export_request(
        checkpoint,
        out,
        precisions_of(None if precisions == "all" else precisions),
        module=module,
        task=task,
        pooling=pooling_of(pooling, normalize=normalize, refused=no_pooling),
        pooled=not no_pooling,
        opset=opset,
        options=Options(profile, target, weights, block_size, accuracy_level, head_bits),
        selective=selective,
        allow_pickle=allow_pickle,
        gguf=gguf,
        language=language,
        data=(data, examples),
        calibration=calibration,
        columns=(text_column, pair_column, label_column),
    )
    exported = stages.export(request)
    tell.print_json([item.variant for item in exported]) if as_json else tell.tell_export(exported)
    if failed := stages.export_failures(exported):
        raise GateFailed(failed, "variants.md says more; leave a precision out with --precisions")


@command
def compare(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, a checkpoint or an artifact.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled texts (default: what the run held out).")] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="C,C", help="Candidates by name, such as torch-cpu/bf16+compile; 'all' tries every useful option."
        ),
    ] = None,
    runtimes: Annotated[str | None, typer.Option(metavar="R,R", help="Runtimes (default: all).")] = None,
    precisions: Annotated[str | None, typer.Option(metavar="P,P", help="Precisions (default: all).")] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(metavar="N,N", help="Default: 1,8; of a language model: 1.")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="L,L",
            help="Tokens, and 'natural' for the data's (default: 128,natural); 'text' starts from raw texts, "
            "'text-overlapped' tokenises them while the engine computes. Of a language model: tokens of prompts.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of every engine (default: the usable cores).")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Training texts for what is quantised while loading (default: the run's).")
    ] = None,
    budget: BudgetOption = Budget.QUICK,
    objective: ObjectiveOption = Objective.BALANCED,
    max_accuracy_drop: MaxDrop = "1%",
    max_p95_ms: MaxP95 = None,
    max_memory_mb: MaxMemory = None,
    max_size_mb: MaxSize = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results (default: the run); with --from, a Markdown file.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    where: Where = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="RUN", help="Compare runs that were measured before with the first of them."),
    ] = None,
    max_slowdown: Annotated[
        str, typer.Option(metavar="P%", help="With --from: how much more time a batch may take.")
    ] = "5%",
    strict: Annotated[
        bool, typer.Option("--strict", help="With --from: fail for what is not shown to be within the bounds, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure every candidate on this machine and this data; what is measured already is not measured again.

    With --from, measure nothing: put runs beside each other, and exit with 1 when something regressed.
    """
    from commands.between import compare_runs

    check_compared(context, of_runs=bool(runs))
    if runs:
        slowdown, drop = (
            percent_of("--max-slowdown", max_slowdown),
            percent_of("--max-accuracy-drop", max_accuracy_drop),
        )
        compare_runs(runs, slowdown, drop, out, strict=strict, as_json=as_json)
        return
    if model is None:
        raise UserError("there is nothing to compare", "name a run or a checkpoint, or measured runs with --from")
    examples = read_compared(model, data, (text_column, pair_column, label_column), conditions_of(where))
    verdict, run = stages.compare(
        model,
        examples,
        out,
        named=names_of(candidates),
        runtimes=names_of(runtimes),
        precisions=precisions_of(precisions),
        batch_sizes=batch_sizes_of(batch_sizes) if batch_sizes else None,
        lengths=lengths,
        threads=threads,
        calibration=calibration,
        plan=find_plan(budget),
        policy=policy_of(objective, max_accuracy_drop, max_p95_ms, max_memory_mb, max_size_mb),
    )
    tell.print_json(verdict) if as_json else tell.tell_verdict(verdict, run)


@command
def load_test(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, a checkpoint or an artifact.")],
    candidate: Annotated[
        list[str] | None,
        typer.Option(metavar="C,C", help="Candidates by name (default: the one that the run's verdict recommends)."),
    ] = None,
    scenarios: Annotated[
        str, typer.Option(metavar="S,S", help="How requests come, of these four.")
    ] = "single-stream,multi-stream,offline,server",
    max_p99_ms: Annotated[float, typer.Option(help="What 99 % of the server's answers must keep.")] = 100,
    duration_s: Annotated[float, typer.Option(help="The least that each test lasts.")] = 10,
    rate: Annotated[
        float | None, typer.Option(help="The server's requests a second (default: search for the highest).")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Waiting requests that the server runs together.")] = 8,
    threads: Annotated[int | None, typer.Option(help="Threads of every engine (default: the usable cores).")] = None,
    data: Annotated[Path | None, typer.Option(help="Texts (default: what the run held out).")] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results (default: the run).")] = None,
    as_json: Json = False,
) -> None:
    """Drive candidates with MLPerf LoadGen: latency when requests do not wait, and the highest rate that keeps p99."""
    report, run = stages.load_test(
        model,
        tuple(name for part in candidate for name in names_of(part) or ()) if candidate else None,
        data,
        out,
        scenarios=scenarios,
        duration_s=duration_s,
        max_p99_ms=max_p99_ms,
        rate_per_s=rate,
        max_batch=max_batch,
        threads=threads,
        columns=(text_column, pair_column),
    )
    tell.print_json(report) if as_json else tell.tell_load(report, run)


@command
def pack(
    run: Annotated[Path, typer.Argument(help="A run that was exported, and perhaps compared.")],
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    candidate: Annotated[str | None, typer.Option(help="Such as ort-cpu/fp32 (default: the recommended one).")] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Pack this variant as it was exported, without a comparison.")
    ] = None,
    layout: Annotated[Layout, typer.Option(help="How the files lie: for predict.py, or for a Triton server.")] = (
        Layout.STEELYARD
    ),
    dockerfile: Annotated[bool, typer.Option("--dockerfile", help="Add a Dockerfile that proves itself.")] = False,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Pin every package by its hash, for this platform; pip needs a network.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Pack the winner, or any variant, as a folder that predicts on CPUs without torch."""
    from artifact.run_folder import RunFolder

    if candidate and precision:
        raise UserError("both --candidate and --precision are given", "give one of them")
    extras = Extras(layout=layout, dockerfile=dockerfile, hashes=hashes)
    packed = stages.pack(RunFolder(run), out, candidate, precision, extras)
    tell.print_json(packed) if as_json else tell.tell_packed(packed)


@command
def verify(
    artifact: Annotated[Path, typer.Argument(help="A folder made by pack.")],
    as_json: Json = False,
) -> None:
    """Check an artifact on this machine: hashes, golden examples, then its speed beside its card's."""
    found = stages.verify(artifact)
    tell.print_json(found) if as_json else tell.tell_verified(found)


@command
def predict(
    context: typer.Context,
    artifact: Annotated[Path, typer.Argument(help="A folder made by pack.")],
    items: Annotated[
        list[str] | None, typer.Argument(metavar="ITEM …", help="Texts, or files of pictures or recordings.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A .csv, .tsv, .jsonl or .parquet file with a row for each item.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .jsonl or .csv file for the answers to --data; resumed after a kill.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Carry this column of --data over.")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Tell only so many labels or tokens; of a language model: draw from them.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Score from which one of several labels applies.")
    ] = 0.5,
    chat: Annotated[
        bool, typer.Option("--chat", help="An item is what a user says, and is answered.", **WRITES)
    ] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: what the model is told first.", **WRITES)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest text that is written.", **WRITES)] = 128,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token each time.", **WRITES)] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest with this share.", **WRITES)] = 1.0,
    min_p: Annotated[float, typer.Option(help="None below this share of the likeliest.", **WRITES)] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="1: none.", **WRITES)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", **WRITES)] = 0,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text.", **WRITES)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: the usable cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each item.")] = False,
) -> None:
    """Answer texts, pictures or recordings, or write text: from the command line, a file, or standard input."""
    if writing.is_language_artifact(artifact):
        refuse_given(context, ("pair_column", "threshold"), "is not for an artifact that writes text")
        asked = writing.asked_text(
            max_new_tokens,
            tuple(stop or ()),
            is_chat=chat,
            system=system,
            temperature=temperature,
            top_k=top_k or 0,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        pieces = writing.write(
            artifact, items or [], data, out, text_column, keep or [], asked, threads=threads, as_json=as_json
        )
        for piece in pieces:
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        return
    refuse_given(context, WRITING, "is for an artifact that writes text")
    columns = (text_column, pair_column)
    lines = stages.predict(
        artifact, items or [], data, out, columns, keep or [], top_k, threshold, threads=threads, as_json=as_json
    )
    for line in lines:
        typer.echo(line)


@command
def report(
    run: Annotated[Path, typer.Argument(help="A run that was compared.")],
    markdown: Annotated[Path | None, typer.Option(help="Write the report here too, as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here too, as a page with its drawings.")] = None,
    objective: ObjectiveOption = Objective.BALANCED,
    max_accuracy_drop: MaxDrop = "1%",
    max_p95_ms: MaxP95 = None,
    max_memory_mb: MaxMemory = None,
    max_size_mb: MaxSize = None,
    as_json: Json = False,
) -> None:
    """Derive verdict and report again from the raw measurements, perhaps with other limits or another objective."""
    from artifact.records import write_bytes
    from artifact.run_folder import RunFolder
    from report.files import write_verdict

    folder = RunFolder(run)
    policy = policy_of(objective, max_accuracy_drop, max_p95_ms, max_memory_mb, max_size_mb)
    verdict = write_verdict(folder, policy)
    if markdown:
        write_bytes(markdown, folder.report.read_bytes())
    if html:
        write_bytes(html, folder.page.read_bytes())
    tell.print_json(verdict) if as_json else tell.tell_verdict(verdict, folder)


@command
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run, why not, and how evenly it works now (takes some seconds)."""
    from commands.doctor import examine, tell_diagnosis

    found = examine()
    tell.print_json(found) if as_json else tell_diagnosis(found)


@command
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/demo or runs/demo-llm).")] = None,
    examples: Annotated[
        int | None, typer.Option(min=20, help="Use only so many reviews (default: all; with --llm: 60).")
    ] = None,
    budget: BudgetOption = Budget.QUICK,
    llm: Annotated[
        bool, typer.Option("--llm", help="Of a language model instead: unpack, export, compare, pack, ask.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The whole job on a model and reviews that packages carry: fine-tune, export, compare, pack, predict."""
    from commands.demo import run_demo
    from commands.demo_llm import run_llm_demo

    if llm:
        run_llm_demo(out or Path("runs/demo-llm"), examples, find_plan(budget), as_json=as_json)
    else:
        run_demo(out or Path("runs/demo"), examples, find_plan(budget), as_json=as_json)


def _exit(error: UserError | GateFailed, code: int) -> typer.Exit:
    typer.secho(f"error: {error.message}", fg="red", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)
    return typer.Exit(code)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
