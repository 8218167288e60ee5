"""PyTorch fp32 eager on the CPU: what every variant is compared with."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.parity import Batch, ReferenceAnswers, reference_answers
from models.checkpoint import Checkpoint, load_model, model_input_names


class TorchReference:
    """A checkpoint's model in fp32 and eval mode."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = load_model(checkpoint.directory)
        self._longest = checkpoint.limits.max_length_tokens
        self.input_names = model_input_names(checkpoint.directory)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 (batch, labels)."""
        with torch.inference_mode():
            logits = self._model(**{name: torch.from_numpy(np.asarray(array)) for name, array in batch.items()}).logits
        return np.asarray(logits.numpy())

    def answers(self, batches: Sequence[Batch]) -> ReferenceAnswers:
        """Logits for real batches and for the shape grid."""
        vocabulary = int(self._model.config.vocab_size)
        return reference_answers(self.run, batches, self.input_names, vocabulary, self._longest)
