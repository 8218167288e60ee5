"""Make one precision's variant: derive it, judge it, rescue it if it fails, and record what it is."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from artifact.precision import Precision
from artifact.records import sha256_file, write_json
from artifact.run_folder import RunFolder
from artifact.task import Task
from artifact.variant import SCHEMA_VERSION, Coverage, Kept, Recipe, Variant
from errors import UserError
from exporter.calibrate import Calibration
from exporter.derive import DERIVATIONS, Choice, Material, derive
from exporter.fuse import fusions
from exporter.gate import Gate, Judged
from exporter.half import emulate
from exporter.inspect import inspect_graph
from exporter.options import Profile
from exporter.parity import Case, Run, example_outputs
from exporter.request import CALIBRATED, Request, versions
from exporter.rescue import fewest, most_to_return, rank_by_damage, returned
from exporter.save import copy_graph, load_graph, save_graph
from exporter.serving import Proof
from exporter.sessions import GraphSession, open_file, open_graph
from exporter.subject import Batch, Outputs
from exporter.support import support
from models.example_set import ExampleSet

SELECTION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Training:
    """Training examples: batches that ranges come from, and others that ways to calibrate are compared on."""

    calibration: tuple[Batch, ...]
    selection: ExampleSet | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A variant on disk, how it was made and how it was judged. `kept` are layers that went back to fp32."""

    choice: Choice
    recipe: Recipe
    judged: Judged
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True)
class Maker:
    """What all variants of one export have in common."""

    request: Request
    run: RunFolder
    material: Material
    gate: Gate
    training: Training
    proof: Proof | None
    task: Task
    source_sha256: str

    def make(self, precision: Precision, mark: str, spent_s: float, tell: Callable[[str], None]) -> Variant:
        """Write a variant's graph and `variant.json`; `spent_s` is added to its seconds.

        `tell` hears what is being done whenever that is long work.
        """
        started = time.perf_counter()
        derivation = DERIVATIONS[precision]
        layers = self.material.layers(derivation.kinds) if derivation.kinds else ()
        choice, tried = Choice(layers), dict[str, float]()
        if precision in CALIBRATED:
            calibration, tried = self._best_calibration(precision, layers)
            choice = Choice(layers, calibration)
        attempt = self._attempt(precision, choice)
        runs = bool(attempt.judged.parity.shapes)
        if not attempt.judged.passed and runs and layers and self.request.selective:
            attempt = self._rescued(precision, attempt, tell)
        if precision is Precision.FP16 and attempt.judged.parity.flipped and runs:
            tell("with its norms in fp32")
            attempt = self._widened(precision, attempt)
        variant = self._record(precision, mark, attempt, tried, layers)
        variant = msgspec.structs.replace(variant, seconds_s=round(time.perf_counter() - started + spent_s, 3))
        write_json(self._path(precision).parent / "variant.json", variant)
        return variant

    def _path(self, precision: Precision) -> Path:
        return self.run.variant(precision) / "model.onnx"

    def _attempt(self, precision: Precision, choice: Choice, kept: tuple[Kept, ...] = ()) -> Attempt:
        """Derive and save a variant, then judge the file."""
        path, derivation = self._path(precision), DERIVATIONS[precision]
        if precision is Precision.FP32 and self.material.options.profile is Profile.PORTABLE:
            recipe = Recipe(profile=Profile.PORTABLE)
            copy_graph(self.material.fp32, path)
        else:
            graph, recipe = derive(precision, self.material, choice)
            save_graph(
                graph,
                path,
                data_name=f"model{precision.file_suffix}.onnx_data",
                external_data_bytes=self.request.external_data_bytes,
            )
            del graph
        if derivation.half is None:
            judged = self.gate.judge(_run(path), precision)
        else:
            emulated = open_graph(emulate(load_graph(path), derivation.half))
            judged = self.gate.judge(emulated.answer, precision, emulated=True)
        if not inspect_graph(path).is_of(precision):
            judged = judged.failed(f"it is called {precision}, but none of its weights is")
        return Attempt(choice, recipe, judged, kept)

    def _best_calibration(self, precision: Precision, layers: tuple[str, ...]) -> tuple[Calibration, dict[str, float]]:
        """The way to find ranges that does best on training examples which the ranges do not come from.

        The task's metric decides where these are labelled; of those that it cannot tell apart (by the paired interval),
        the one with the least error against the fp32 graph is taken.
        """
        selection = self.training.selection
        if selection is None:  # one training example: nothing is left to compare on, and the record shows no scores
            return Calibration.PERCENTILE, {}
        batches = [
            Case(selection.batch(rows), {}, rows)
            for start in range(0, len(selection), SELECTION_BATCH)
            for rows in [tuple(range(start, min(start + SELECTION_BATCH, len(selection))))]
        ]

        answer = self.gate.reference.answer

        def answers(session: GraphSession) -> list[Outputs]:
            return [row for case in batches for row in example_outputs(answer, session.answer(case.batch), case)]

        expected = answers(open_file(self.material.fp32))
        found = {
            calibration: answers(open_graph(derive(precision, self.material, Choice(layers, calibration))[0]))
            for calibration in Calibration
        }
        errors = {calibration: _mean_error(outputs, expected) for calibration, outputs in found.items()}
        metrics = {name: self.gate.metric_of(outputs, selection.truth) for name, outputs in found.items()}
        scores = {name: -errors[name] if metric is None else metric for name, metric in metrics.items()}
        best = max(scores, key=lambda name: scores[name])
        rivals = [name for name in found if not self.gate.is_worse(found[name], found[best], selection.truth)]
        return min(rivals, key=lambda name: errors[name]), {name.value: score for name, score in scores.items()}

    def _widened(self, precision: Precision, attempt: Attempt) -> Attempt:
        """With norms and the last layers in fp32 too, if that leaves every answer as it was; else `attempt` again."""
        wider = self._attempt(precision, replace(attempt.choice, widened=True))
        if wider.judged.passed and not wider.judged.parity.flipped:
            return wider
        return self._attempt(precision, attempt.choice)

    def _rescued(self, precision: Precision, failed: Attempt, tell: Callable[[str], None]) -> Attempt:
        """Give the layers that do most damage back to fp32 until the gate passes; `failed` again if it never does."""
        damages = rank_by_damage(precision, self.material, failed.choice, tell)
        tried: dict[int, Attempt] = {}

        def passes(count: int) -> bool:
            tell(f"judged with {count} layers in fp32")
            kept = returned(damages, count)
            names = {item.name for item in kept}
            layers = tuple(layer for layer in failed.choice.layers if layer not in names)
            tried[count] = self._attempt(precision, replace(failed.choice, layers=layers), kept)
            return tried[count].judged.passed

        most = most_to_return(damages, self.material.macs)
        count = fewest(passes, most) if most else None
        best = failed if count is None else tried[count]
        on_disk = list(tried.values())[-1] if tried else failed
        return best if best is on_disk else self._attempt(precision, best.choice, best.kept)

    def _record(
        self, precision: Precision, mark: str, attempt: Attempt, tried: dict[str, float], layers: tuple[str, ...]
    ) -> Variant:
        path = self._path(precision)
        facts, graph = inspect_graph(path), load_graph(path)
        found = fusions(graph)
        parity, golden_error_fraction = attempt.judged.parity, None
        names = [path.name] + [file.name for file in path.parent.glob("*.onnx_data")]
        supported = support(path, self.material.batches[0])
        if self.proof is not None and self.proof.golden is not None:
            golden_error_fraction = parity.max_error_fraction
            if attempt.judged.parity.passed and supported[0].runs:
                golden_error_fraction = self.proof.largest_error(open_file(path).answer, parity.scales)
        return Variant(
            schema_version=SCHEMA_VERSION,
            fingerprint=mark,
            checkpoint_sha256=self.source_sha256,
            task=self.task,
            precision=precision,
            file=path.name,
            size_bytes=sum((path.parent / name).stat().st_size for name in names),
            files={name: sha256_file(path.parent / name) for name in names},
            opset=facts.opset,
            ir_version=facts.ir_version,
            domains=facts.domains,
            minimum_onnxruntime=facts.minimum_onnxruntime,
            inputs=facts.inputs,
            outputs=facts.outputs,
            nodes=facts.nodes,
            operators=facts.operators,
            fused=found.fused,
            unfused=found.unfused,
            weight_elements=facts.weight_elements,
            coverage=self._coverage(attempt, layers) if layers else None,
            recipe=self._recipe(attempt, tried),
            parity=parity,
            metric=attempt.judged.metric,
            support=supported,
            golden_error_fraction=golden_error_fraction,
            pooling=self.request.pooling,
            seconds_s=0.0,
            versions=versions(),
        )

    def _recipe(self, attempt: Attempt, tried: dict[str, float]) -> Recipe:
        recipe = msgspec.structs.replace(attempt.recipe, calibrations=tried)
        if not attempt.kept:
            return recipe
        return msgspec.structs.replace(recipe, kept=attempt.kept, chosen_on=self.material.chosen_on)

    def _coverage(self, attempt: Attempt, layers: tuple[str, ...]) -> Coverage:
        quantized, macs = set(attempt.choice.layers), self.material.macs
        elements = self.material.elements
        return Coverage(
            layers=len(quantized),
            of_layers=len(layers),
            weights_fraction=sum(dict(elements[name] for name in quantized).values()) / max(1, self.material.weights),
            macs_fraction=sum(macs.get(name, 0) for name in quantized) / max(1, sum(macs.values())),
        )


def _run(path: Path) -> Run:
    """A file's answers; where the engine does not even load it, each batch fails with the engine's reason."""
    try:
        return open_file(path).answer
    except UserError as error:
        reason = error.message.replace(f"{path.parent}{os.sep}", "")  # a record says nothing of its folder

    def refuse(batch: Batch) -> Any:
        raise UserError(reason)

    return refuse


def _mean_error(outputs: Sequence[Outputs], expected: Sequence[Outputs]) -> float:
    """Root mean square error over examples, padding left out; infinite where there is no number."""
    squares = [
        float(np.mean((mine[name].astype(np.float64) - known[name]) ** 2))
        for mine, known in zip(outputs, expected, strict=True)
        for name in known
        if known[name].size
    ]
    return float(np.nan_to_num(np.sqrt(np.mean(squares)), nan=np.inf))
