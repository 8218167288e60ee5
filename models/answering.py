"""What a model answers to examples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.progress import Progress
from artifact.task import ANSWERS, Task
from models.example_set import ExampleSet, answered, length

Outputs = Mapping[str, NDArray[np.float32]]


def answers(
    model: Any,
    examples: ExampleSet,
    task: Task,
    batch_size: int,
    progress: Progress,
    stage: str,
    places: Sequence[int] | None = None,
) -> Iterator[tuple[int, Outputs]]:
    """The outputs of a model for each of these places (default: all), as they come from batches of similar length.

    float32 without batch axis and padded positions.
    """
    order = sorted(range(len(examples)) if places is None else places, key=lambda place: length(examples.rows[place]))
    answer = ANSWERS[task]
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        batch = {
            name: torch.from_numpy(array).to(model.device)
            for name, array in examples.batch(picked, pad_left=False).items()
        }
        with torch.inference_mode():
            found = model(**batch)
        arrays = {name: found[name].float().cpu().numpy() for name in answer.outputs}
        for row, place in enumerate(picked):
            ends = slice(answered(examples.rows[place]) if answer.per_token else None)
            yield place, {name: array[row][ends] for name, array in arrays.items()}
        progress(stage, start + len(picked), len(order))
