"""`training.json` against the JSON Schema that the documentation has of it, by another library."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from models.training import TrainingRecord
from tests.conftest import ROOT
from tests.models.conftest import Trained

SCHEMA = ROOT / "docs" / "training.schema.json"


def test_the_documented_schema_is_that_of_the_record() -> None:
    """After a change: python -m tests.models.test_training_schema"""
    assert json.loads(SCHEMA.read_text()) == msgspec.json.schema(TrainingRecord)


def test_a_training_validates(trained: Trained) -> None:
    jsonschema.validate(json.loads((trained.out / "training.json").read_text()), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("damage", [{"steps": "many"}, {"precision": "int1"}, {"data": None}])
def test_another_thing_does_not(trained: Trained, damage: dict[str, object]) -> None:
    record = json.loads((trained.out / "training.json").read_text()) | damage
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json.loads(SCHEMA.read_text()))


def write(path: Path = SCHEMA) -> None:
    """Make the documented schema anew."""
    path.write_text(json.dumps(msgspec.json.schema(TrainingRecord), indent=2) + "\n")


if __name__ == "__main__":
    write()
