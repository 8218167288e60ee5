"""A student of three layers taught by the fine-tuned model, beside the same student trained alone.

Run by hand, after `make demo` (some minutes for each seed):

    .venv/bin/python -m benchmarks.distillation runs/demo --seeds 3

Both students begin from MiniLM's first layers and the same new head, and see the same reviews in the same order. What
is compared are their answers to the reviews that the run held out, by pairs, for each review the mean over the seeds.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from artifact.intervals import paired_difference
from artifact.run_folder import RunFolder
from models.embedded import minilm
from models.lesson import learn
from models.training import FinetuneConfig, Lesson, Teacher
from side_by_side.judge import statistics


def main() -> None:
    """Train the students and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the teacher's run")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.9, help="the teacher's part of the loss")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    teacher = Teacher(checkpoint=str(options.run / "checkpoint"), share=options.share)
    run = RunFolder(options.run)
    lesson = Lesson(base_model=str(minilm()), data=str(run.training_data), evaluation=str(run.evaluation_data))
    differences = []
    with TemporaryDirectory(prefix="steelyard-") as folder:
        for seed in range(options.seeds):
            config = FinetuneConfig(layers=options.layers, epochs=options.epochs, seed=seed)
            found = {}
            for name, guide in (("alone", None), ("taught", teacher)):
                out = Path(folder) / f"{name}-{seed}"
                record, _ = learn(msgspec.structs.replace(lesson, config=config, teacher=guide), out)
                found[name] = statistics(RunFolder(out))[:, 0]
                print(f"seed {seed}, {name:<6}: accuracy {record.value.value:.3f}", flush=True)
            differences.append(found["taught"] - found["alone"])
    pairs = np.mean(differences, axis=0)  # of one review the seeds are no independent answers
    gain = paired_difference(float(pairs.sum()), float((pairs**2).sum()), len(pairs))
    low, high = (100 * (end or 0.0) for end in (gain.low, gain.high))
    print(f"the teacher gains {100 * gain.estimate:+.1f} [{low:+.1f} to {high:+.1f}] points")


if __name__ == "__main__":
    main()
