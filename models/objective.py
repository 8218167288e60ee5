"""What a model is taught.

A model's own loss is a mean over its batch; a step of several batches would be taught several times as much by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import kl_div, log_softmax

from errors import UserError
from models.problem import IGNORED, KINDS, Kind
from models.training import FinetuneConfig, Problem, Teacher


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a problem, with smoothed or weighed labels if asked for, and where a teacher guides, what it answers.

    The teacher's `share` of the loss is the Kullback-Leibler divergence from its answers, both softened by its
    `temperature`, times the square of that (Hinton et al., *Distilling the Knowledge in a Neural Network*, 2015).
    """

    kind: Kind
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
        scores = self.kind.scores(outputs, mask).float()
        weights = None if self.weights is None else self.weights.to(scores.device)
        loss = self.kind.loss(scores, targets, weights, self.smoothing)
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
    """The objective that is asked for. `class_counts` are those of every label, in order, among what is trained on.

    Raises `UserError` for what is asked of a problem that has no such thing.
    """
    weights = None
    if config.balance:
        if problem is not Problem.SINGLE_LABEL:
            raise UserError("--balance is about examples of one label each", "leave it out")
        total = sum(class_counts.values())
        weights = torch.tensor([total / len(class_counts) / count for count in class_counts.values()])
    if config.label_smoothing and problem is Problem.REGRESSION:
        raise UserError("--label-smoothing is about labels, and these are numbers", "leave it out")
    return Objective(KINDS[problem], weights, config.label_smoothing, teacher)
