"""What a model answers, a classifier's labels and scores among it, from its `config.json`."""

from pathlib import Path

from artifact.task import ENDINGS, Activation, Task
from artifact.tokenizer import read_config
from errors import UserError


def read_labels(directory: Path) -> tuple[str, ...]:
    """Label names in the order of the logits; a configuration that names none has transformers' default two.

    Raises `UserError` when only some labels are named.
    """
    names = read_config(directory, "config.json").get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    try:
        return tuple(str(names[str(index)]) for index in range(len(names)))
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{directory / 'config.json'} has an id2label that does not name every label",
            "save the model with its labels: model.config.id2label = {0: 'NEGATIVE', 1: 'POSITIVE'}",
        ) from error


def read_activation(directory: Path) -> Activation:
    """What turns this model's logits into scores, from its `problem_type` and labels as transformers reads them."""
    problem = read_config(directory, "config.json").get("problem_type")
    if problem == "regression":
        return Activation.NONE
    if problem == "multi_label_classification" or len(read_labels(directory)) == 1:
        return Activation.SIGMOID
    return Activation.SOFTMAX


def read_task(directory: Path) -> Task | None:
    """What a model that answers in one pass is for, by the name of its class; `None` for one that is not known. One
    that names no class chooses labels."""
    kinds = read_config(directory, "config.json").get("architectures") or ["ForSequenceClassification"]
    return next((task for ending, task in ENDINGS.items() if str(kinds[0]).endswith(ending)), None)
