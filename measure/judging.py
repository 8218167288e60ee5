"""For each kind of decision: what is right, and how answers are compared with it."""

from collections.abc import Mapping
from typing import Any

from artifact.examples import Examples
from artifact.judged import Judged
from artifact.predict.tokens import TextEncoder
from measure.decisions import groups, quantities, right_decisions
from measure.neighbours import assess_vectors
from measure.order import assess_scores
from measure.quality import Assess, assess, assess_language
from measure.source import ModelSource
from measure.spans import asked, assess_spans
from measure.workload import Inputs

ASSESSED: Mapping[Judged, Assess] = {
    Judged.VECTOR: assess_vectors,
    Judged.SCORE: assess_scores,
    Judged.SPAN: assess_spans,
}


def assess_of(inputs: Inputs) -> Assess:
    """How answers to these inputs are compared; by the label that is chosen where nothing else is said."""
    return assess_language if inputs.writes else ASSESSED.get(inputs.judged, assess)


def truth_of(examples: Examples, encoder: TextEncoder, source: ModelSource, inputs: Inputs) -> list[Any]:
    """What is right, as `assess_of` takes it. Raises `UserError` naming the row that is not what the model decides."""
    match inputs.judged:
        case Judged.VECTOR:
            return list(groups(examples))
        case Judged.SCORE:
            return list(quantities(examples))
        case Judged.SPAN:
            return list(asked(examples, encoder))
    return list(right_decisions(inputs.judged, examples, source.labels, inputs.places))
