"""For each kind of decision: what is right, and how answers are compared with it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from artifact.examples import Examples
from artifact.judged import Judged
from measure.decisions import groups, quantities, right_decisions
from measure.neighbours import assess_vectors
from measure.order import assess_scores
from measure.quality import Assess, assess, assess_language
from measure.source import ModelSource
from measure.spans import assess_spans, questions
from measure.workload import Inputs

ASSESSED: Mapping[Judged, Assess] = {
    Judged.VECTOR: assess_vectors,
    Judged.SCORE: assess_scores,
    Judged.SPAN: assess_spans,
}


def assess_of(inputs: Inputs, truth: Sequence[Any]) -> Assess:
    """How answers to these inputs are compared; by the label that is chosen where nothing else is said."""
    texts = decisions_of_texts(inputs, len(truth))
    if inputs.writes:
        return partial(assess_language, decisions_of_texts=texts)
    return ASSESSED.get(inputs.judged, partial(assess, decisions_of_texts=texts))


def decisions_of_texts(inputs: Inputs, decisions: int) -> tuple[int, ...]:
    """How many decisions each text has; none where that is one."""
    if inputs.writes:
        return tuple(len(row) - inputs.told_tokens for row in inputs.told)
    if inputs.judged is Judged.WORD:
        return tuple(sum(place >= 0 for place in row) for row in inputs.places)
    every = len(inputs)
    return (decisions // every,) * every if inputs.judged is Judged.LABEL else ()


def truth_of(examples: Examples, source: ModelSource, inputs: Inputs) -> list[Any]:
    """What is right, as `assess_of` takes it. Raises `UserError` naming the row that is not what the model decides."""
    match inputs.judged:
        case Judged.VECTOR:
            return groups(examples)
        case Judged.SCORE:
            return quantities(examples)
        case Judged.SPAN:
            return questions(examples, source.encoder())
    return right_decisions(inputs.judged, examples, source.labels, inputs.places)
