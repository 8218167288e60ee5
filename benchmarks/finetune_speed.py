"""The demo's epoch beside a plain PyTorch loop: seconds, accuracy and the most memory, each in fresh processes.

Run by hand on a quiet machine (some minutes for each pair):

    .venv/bin/python -m benchmarks.finetune_speed -n 3

The plain loop is what tutorials write: fp32, shuffled batches of 32 padded to their longest, AdamW with a linear
schedule, gradients clipped at 1. Both learn from the same reviews with the same learning rate; which goes first
alternates. Seconds are those of the training steps.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import finished, ratio

ROLES = ("plain", "ours")


def plain() -> dict[str, Any]:
    """One epoch of the plain loop, and its accuracy on the held-out reviews."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        get_linear_schedule_with_warmup,
    )

    from models.checkpoint import quiet
    from models.embedded import minilm
    from models.reading import read_lesson
    from models.rows import TaskRows
    from models.split import split
    from models.training import FinetuneConfig

    config = FinetuneConfig()
    parts = split(read_lesson(lesson())[0], None, held_out=config.held_out, seed=0)
    torch.manual_seed(config.seed)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(minilm())
        model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2)

    def prepared(part: TaskRows) -> Any:
        encoded = tokenizer(list(part.texts), truncation=True)
        return [
            {**{name: values[place] for name, values in encoded.items()}, "label": int(label)}
            for place, label in enumerate(part.labels)
        ]

    tokenizer.model_max_length = config.max_length_tokens
    collate: Any = DataCollatorWithPadding(tokenizer)
    train, held_out = prepared(parts.train), prepared(parts.evaluation)
    loader: Any = DataLoader(train, batch_size=config.batch_size, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, int(config.warmup_fraction * steps), steps)
    model.train()
    start = time.perf_counter()
    for batch in loader:
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds_s = time.perf_counter() - start
    model.eval()
    right = 0
    with torch.inference_mode():
        for batch in DataLoader(held_out, batch_size=config.batch_size, collate_fn=collate):
            labels = batch.pop("labels")
            right += int((model(**batch).logits.argmax(-1) == labels).sum())
    return {"precision": "fp32", "seconds_s": seconds_s, "accuracy": right / len(held_out)}


def lesson() -> Any:
    """The demo's."""
    from models.embedded import minilm, movie_reviews
    from models.training import Lesson

    return Lesson(base_model=str(minilm()), data=str(movie_reviews()), where={"source": "rotten_tomatoes"})


def ours() -> dict[str, Any]:
    """The demo's fine-tuning."""
    from models.lesson import learn

    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        record, _ = learn(lesson(), Path(folder) / "run")
    return {"precision": record.precision, "seconds_s": record.seconds_s, "accuracy": record.value.value}


def main() -> None:
    """Train in pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--pairs", type=int, default=3)
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        print(json.dumps({"plain": plain, "ours": ours}[options.role]()))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    found: dict[str, list[dict[str, Any]]] = {role: [] for role in ROLES}
    for number in range(options.pairs):
        for role in ROLES if number % 2 == 0 else reversed(ROLES):
            done = finished([sys.executable, "-P", "-m", "benchmarks.finetune_speed", "--role", role])
            last = {**json.loads(done.printed.splitlines()[-1]), "peak_bytes": done.peak_bytes}
            found[role].append(last)
            print(
                f"{number + 1} {role:<6}{last['precision']:<5}{last['seconds_s']:6.1f} s, "
                f"accuracy {last['accuracy']:.3f}, peak {last['peak_bytes'] / 1e9:.2f} GB",
                flush=True,
            )
    theirs, own = ([item["seconds_s"] for item in found[role]] for role in ROLES)
    print(f"\nthe plain loop takes {ratio(own, theirs)} the time")
    for role in ROLES:
        print(
            f"{role}: accuracy {median(item['accuracy'] for item in found[role]):.3f}, "
            f"peak {max(item['peak_bytes'] for item in found[role]) / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
