"""What is refused of an assignment before anything is loaded or replaced, and how answers that are no numbers count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import UserError
from models.assignment import assign
from models.finetune import finetune
from models.job import _Judged
from models.training import FinetuneConfig, Problem
from tests.models.conftest import Make, Trained


@pytest.mark.parametrize(
    ("labels", "asked", "words"),
    [
        (("a|b", "b", "a", "b|c"), {"balance": True}, "--balance is about examples of one label each"),
        (("0.5", "1.25", "2", "3"), {"label_smoothing": 0.1}, "--label-smoothing is about labels"),
        (("a", "b", "a", "b"), {"patience": 2}, "--patience validates with a tenth of the examples"),
    ],
)
def test_what_such_labels_do_not_have_is_refused_and_nothing_replaced(
    tiny_checkpoint: Path, examples: Make, trained: Trained, labels: tuple[str, ...], asked: dict[str, Any], words: str
) -> None:
    rows = examples(*((f"text {number}", label) for number, label in enumerate(labels)))
    before = (trained.out / "training.json").read_bytes()
    config = FinetuneConfig(held_out=2, **asked)
    with pytest.raises(UserError, match=words):
        finetune(str(tiny_checkpoint), rows, trained.out, config=config, overwrite=True)
    assert (trained.out / "training.json").read_bytes() == before
    assert (trained.out / "checkpoint").is_dir()


def test_answers_that_are_no_numbers_are_wrong(tiny_checkpoint: Path, examples: Make) -> None:
    """`argmax` alone would choose the first label, which is the right one of three."""
    rows = examples(("one", "a"), ("two", "b"), ("three", "a"), ("four", "b"))
    work = assign(str(tiny_checkpoint), rows, None, None, None, None, FinetuneConfig(held_out=2))
    assert work.problem is Problem.SINGLE_LABEL
    truth, logits = np.array([0, 0, 0, 1]), np.full((4, 2), np.nan, dtype=np.float32)
    found = [work.metric.statistics({"logits": row}, right) for row, right in zip(logits, truth.tolist(), strict=True)]
    value = _Judged(np.stack(found), logits, truth).value(work)
    assert (value.value, value.low) == (0, 0)
    assert 0 < value.high < 0.6
