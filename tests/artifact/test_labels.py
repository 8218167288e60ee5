import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, BertConfig

from artifact.labels import read_activation, read_labels
from errors import UserError


def save_config(folder: Path, **fields: Any) -> Path:
    BertConfig(**fields).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_labels": 1},
        {"num_labels": 12},
        {"id2label": {1: "good", 0: "bad"}},
        {"id2label": {index: f"class {index}" for index in reversed(range(11))}},
    ],
)
def test_labels_are_those_that_transformers_reads(tmp_path: Path, fields: dict[str, Any]) -> None:
    theirs = AutoConfig.from_pretrained(save_config(tmp_path, **fields)).id2label
    assert read_labels(tmp_path) == tuple(theirs[index] for index in range(len(theirs)))


@pytest.mark.parametrize("id2label", [{"0": "a", "2": "c"}, {"a": "0", "b": "1"}, ["a", "b"], 2])
def test_labels_that_leave_one_out_are_refused(tmp_path: Path, id2label: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": id2label}))
    with pytest.raises(UserError, match=r"config.json has an id2label that does not name every label"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("fields", "activation"),
    [
        ({}, "softmax"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "softmax"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "sigmoid"),
        ({"num_labels": 1}, "sigmoid"),
        ({"num_labels": 1, "problem_type": "regression"}, "none"),
        ({"num_labels": 2, "problem_type": "regression"}, "none"),
    ],
)
def test_scores_are_made_as_transformers_pipeline_makes_them(
    tmp_path: Path, fields: dict[str, Any], activation: str
) -> None:
    assert read_activation(save_config(tmp_path, **fields)) == activation
