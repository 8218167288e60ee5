"""What a classifier is taught.

A model's own loss is a mean over its batch; a step of several batches would be taught several times as much by it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from models.training import FinetuneConfig, Teacher

GUIDE = "guide"
"""Name of an example's logits by the teacher, beside its inputs."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Cross-entropy, with smoothed or weighed labels if asked for, and where a teacher guides, what it answers.

    The teacher's `share` of the loss is the Kullback-Leibler divergence from its answers, both softened by its
    `temperature`, times the square of that (Hinton et al., *Distilling the Knowledge in a Neural Network*, 2015).
    """

    weights: torch.Tensor | None
    smoothing: float
    teacher: Teacher | None

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, guide: torch.Tensor | None, examples: torch.Tensor | int
    ) -> torch.Tensor:
        """The sum over a batch divided by the `examples` of the whole step."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        loss: torch.Tensor = cross_entropy(
            logits.float(), labels, weights, reduction="sum", label_smoothing=self.smoothing
        )
        if self.teacher is not None and guide is not None:
            heat, share = self.teacher.temperature, self.teacher.share
            ours, theirs = (log_softmax(found.float() / heat, dim=-1) for found in (logits, guide))
            divergence = kl_div(ours, theirs, reduction="sum", log_target=True) * heat**2
            loss = (1 - share) * loss + share * divergence
        return loss / examples


def objective(
    config: FinetuneConfig, teacher: Teacher | None, truth: Sequence[str], labels: Sequence[str]
) -> Objective:
    """The objective that is asked for. `truth` are the labels of the examples trained on; each of `labels` is there."""
    weights = None
    if config.balance:
        counts = Counter(truth)
        weights = torch.tensor([len(truth) / len(labels) / counts[name] for name in labels])
    return Objective(weights, config.label_smoothing, teacher)
