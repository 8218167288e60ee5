"""What a model is taught.

A model's own loss is a mean over its batch; a step of several batches would be taught several times as much by it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, log_softmax, mse_loss

from models.problem import IGNORED
from models.training import FinetuneConfig, Problem, Teacher

PADDED = -1e4
"""The score of what cannot be: finite, so that smoothed labels keep a finite loss."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor]
"""Scores, targets, weights of the labels and label smoothing to the sum over all targets."""


def _cross_entropy(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    return cross_entropy(
        scores.flatten(0, -2),
        targets.flatten(),
        weights,
        reduction="sum",
        label_smoothing=smoothing,
        ignore_index=IGNORED,
    )


def _binary(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """A smoothed label is half of the smoothing away from 0 or 1."""
    return binary_cross_entropy_with_logits(scores, targets * (1 - smoothing) + smoothing / 2, reduction="sum")


def _squares(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    return mse_loss(scores, targets, reduction="sum")


def _both_ends(outputs: Any, mask: torch.Tensor | None) -> torch.Tensor:
    """Padded positions are no choice: how rows are batched would change the loss."""
    ends = torch.stack((outputs.start_logits, outputs.end_logits), dim=1).float()
    return ends if mask is None else ends.masked_fill(mask[:, None] == 0, PADDED)


LOSSES: Mapping[Problem, Loss] = {Problem.MULTI_LABEL: _binary, Problem.REGRESSION: _squares}
"""Of the others the cross-entropy is learnt."""


def _scores(problem: Problem, outputs: Any, mask: torch.Tensor | None) -> torch.Tensor:
    """What a model says about the truth, of shape (batch, …, labels), given the mask of its tokens."""
    return _both_ends(outputs, mask) if problem is Problem.SPAN else outputs.logits.float()


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a problem, with smoothed or weighed labels if asked for, and where a teacher guides, what it answers.

    The teacher's `share` of the loss is the Kullback-Leibler divergence from its answers, both softened by its
    `temperature`, times the square of that (Hinton et al., *Distilling the Knowledge in a Neural Network*, 2015).
    """

    problem: Problem
    weights: torch.Tensor | None
    smoothing: float
    teacher: Teacher | None

    def __call__(
        self,
        outputs: Any,
        targets: torch.Tensor,
        guide: torch.Tensor | None,
        count: torch.Tensor | int | None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The sum over a batch divided by the targets of the whole step (`None`: by those of the batch).

        `mask` is 0 where a row is padded.
        """
        scores = _scores(self.problem, outputs, mask)
        weights = None if self.weights is None else self.weights.to(scores.device)
        loss = LOSSES.get(self.problem, _cross_entropy)(scores, targets, weights, self.smoothing)
        if self.teacher is not None and guide is not None:
            heat, share = self.teacher.temperature, self.teacher.share
            ours, theirs = (log_softmax(found.float() / heat, dim=-1) for found in (scores, guide))
            divergence = kl_div(ours, theirs, reduction="sum", log_target=True) * heat**2
            loss = (1 - share) * loss + share * divergence
        learnt = (targets != IGNORED).sum() if count is None else torch.as_tensor(count)
        return loss / learnt.clamp(min=1)


def objective(
    config: FinetuneConfig, teacher: Teacher | None, problem: Problem, class_counts: Mapping[str, int]
) -> Objective:
    """The objective that is asked for. `class_counts` are those of every label, in order, among what is trained on."""
    weights = None
    if config.balance:
        total = sum(class_counts.values())
        weights = torch.tensor([total / len(class_counts) / count for count in class_counts.values()])
    return Objective(problem, weights, config.label_smoothing, teacher)
