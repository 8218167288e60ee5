"""The losses of fine-tuning, worked out by hand and by scipy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from models.objective import Objective, objective
from models.problem import IGNORED
from models.training import FinetuneConfig, Problem, Teacher

SINGLE = Problem.SINGLE_LABEL

LOGITS = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
TRUTH = torch.tensor([0, 1])
LOGS = log_softmax(LOGITS.numpy(), axis=1)


def said(logits: torch.Tensor) -> SimpleNamespace:
    """What a classifier returns."""
    return SimpleNamespace(logits=logits)


def test_it_is_the_cross_entropy_where_nothing_else_is_asked_for() -> None:
    found = objective(FinetuneConfig(), None, SINGLE, {"a": 1, "b": 1})
    assert float(found(said(LOGITS), TRUTH, None, 2)) == pytest.approx(-(LOGS[0, 0] + LOGS[1, 1]) / 2)


def test_smoothed_labels_are_spread_over_all() -> None:
    found = objective(FinetuneConfig(label_smoothing=0.2), None, SINGLE, {"a": 1, "b": 1})
    right, spread = 0.8 * (LOGS[0, 0] + LOGS[1, 1]), 0.1 * LOGS.sum()
    assert float(found(said(LOGITS), TRUTH, None, 2)) == pytest.approx(-(right + spread) / 2)


def test_rare_labels_weigh_more() -> None:
    """Of 3 and 1 examples: 4 / (2 · 3) and 4 / (2 · 1)."""
    found = objective(FinetuneConfig(balance=True), None, SINGLE, {"a": 3, "b": 1})
    assert float(found(said(LOGITS), TRUTH, None, 2)) == pytest.approx(-(2 / 3 * LOGS[0, 0] + 2 * LOGS[1, 1]) / 2)


def test_a_teacher_is_followed_by_the_divergence_from_its_softened_answers() -> None:
    guide = np.array([[1.0, 0.0], [-1.0, 3.0]], dtype=np.float32)
    taught = Objective(SINGLE, None, 0.0, Teacher(checkpoint="", share=0.7, temperature=2.0))
    found = taught(said(LOGITS), TRUTH, torch.tensor(guide), 2)
    theirs, ours = softmax(guide / 2, axis=1), log_softmax(LOGITS.numpy() / 2, axis=1)
    divergence = (theirs * (np.log(theirs) - ours)).sum() * 2.0**2
    expected = (0.3 * -(LOGS[0, 0] + LOGS[1, 1]) + 0.7 * divergence) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_parts_of_an_accumulated_step_add_up_to_it() -> None:
    found = Objective(SINGLE, None, 0.1, Teacher(checkpoint="", temperature=1.0))
    guide = torch.tensor([[1.0, 0.0], [-1.0, 3.0]])
    whole = found(said(LOGITS), TRUTH, guide, 2)
    parts = [found(said(LOGITS[row : row + 1]), TRUTH[row : row + 1], guide[row : row + 1], 2) for row in (0, 1)]
    assert float(sum(parts)) == pytest.approx(float(whole))


def test_padding_is_no_place_for_an_answer() -> None:
    """A row alone, and the same row filled up to a longer one: the same loss."""
    found = objective(FinetuneConfig(), None, Problem.SPAN, {})
    ends = torch.tensor([[0.5, 2.0, -1.0]])
    alone = SimpleNamespace(start_logits=ends, end_logits=ends)
    filled = torch.cat((ends, torch.tensor([[9.0, -3.0]])), dim=1)
    padded, mask = SimpleNamespace(start_logits=filled, end_logits=filled), torch.tensor([[1, 1, 1, 0, 0]])
    target = torch.tensor([[1, 2]])
    expected = -log_softmax(ends.numpy(), axis=1)[0, [1, 2]].sum() / 2
    assert float(found(alone, target, None, 2, torch.ones(1, 3))) == pytest.approx(expected)
    assert float(found(padded, target, None, 2, mask)) == pytest.approx(expected)


def test_tags_that_are_ignored_do_not_count() -> None:
    found = objective(FinetuneConfig(), None, Problem.TAGS, {"a": 1, "b": 1})
    logits = torch.stack((LOGITS, LOGITS))
    targets = torch.tensor([[0, IGNORED], [IGNORED, 1]])
    assert float(found(said(logits), targets, None, None)) == pytest.approx(-(LOGS[0, 0] + LOGS[1, 1]) / 2)
