"""`README.md` of a language model's artifact: what it is, how it is used, how good it is, and where it comes from."""

from pathlib import Path

from artifact.genai import is_for_genai
from artifact.generate.manifest import LanguageManifest
from artifact.language import LanguageVariant
from artifact.model_card import figures_section, front_matter, header_of, provenance_of

GENAI = """

`onnxruntime_genai.Model("path/to/this/folder")` loads the same graph."""


def language_card(manifest: LanguageManifest, variant: LanguageVariant, checkpoint: Path) -> str:
    """The card in Markdown, with the front matter that model hubs read."""
    origin = front_matter(checkpoint)
    parts = [
        header_of(manifest.task, "[onnx, onnxruntime-genai]" if is_for_genai(variant) else "[onnx]", origin),
        f"# {manifest.task}, {manifest.precision}, for CPUs without PyTorch",
        "Everything it needs is in this folder and in `requirements.txt`: onnxruntime, numpy, tokenizers and jinja2.",
        _use(manifest, variant),
        _quality(manifest),
        _limits(manifest, variant),
        figures_section(manifest.card, manifest.card_reason, "tokens"),
        provenance_of(manifest, origin, "texts"),
    ]
    return "\n\n".join(parts) + "\n"


def _use(manifest: LanguageManifest, variant: LanguageVariant) -> str:
    text = "A text that is read" if manifest.rewriting else "Once upon a time"
    text = text if manifest.sound is None else "recording.wav"
    chat = '\npython predict.py --chat "Who wrote Emma?"' if manifest.chats else ""
    answer = (
        'generator.chat([{"role": "user", "content": "Who wrote Emma?"}]).text'
        if manifest.chats
        else f'generator.complete(["{text}"])[0].text'
    )
    genai = GENAI if is_for_genai(variant) else ""
    return f"""## Use

```console
pip install -r requirements.txt
python predict.py --selftest
python predict.py "{text}"{chat}
python predict.py --data {"prompts" if manifest.sound is None else "recordings"}.csv --out written.jsonl
```

```python
from predict import Generator

generator = Generator.open("path/to/this/folder")
{answer}
```{genai}"""


def _quality(manifest: LanguageManifest) -> str:
    found = manifest.judged
    return f"""## Quality

| on {found.tokens:,} tokens of {found.texts} texts ({found.inputs}) | |
| --- | ---: |
| perplexity (PyTorch fp32: {found.reference_perplexity:.4g}) | {found.perplexity:.4g} |
| times PyTorch's, 95 % interval | {found.ratio:.3f} [{found.ratio_low:.3f}–{found.ratio_high:.3f}] |
| mean divergence of the next token's probabilities | {max(0.0, found.divergence_nats):.2g} nats |
| same first choice as PyTorch | {found.agreement_fraction:.1%} |"""


def _limits(manifest: LanguageManifest, variant: LanguageVariant) -> str:
    cache, rewriting, most = variant.cache, manifest.rewriting, manifest.context_tokens
    if rewriting is None:
        tokens = f"A prompt and what follows it have at most {most:,} tokens together."
    else:
        read = rewriting.most_read_tokens
        tokens = f"It writes at most {most:,} tokens" + (f", and reads at most {read:,}." if read else ".")
        tokens += " It takes the likeliest token each time, or draws: beams are not searched."
    takes = [f"{cache.bytes_per_token / 1e3:.3g} MB for each 1,000 tokens"] if cache.bytes_per_token else []
    takes += [f"{cache.state_bytes / 1e6:.3g} MB however long it is"] if cache.state_bytes else []
    if (sound := manifest.sound) is not None:
        tokens += (
            f"\n- Recordings have {sound.rate_hz:,} samples a second and last at most {sound.longest_s:g} s; longer "
            "ones are refused. What is said is written in one language, without times."
        )
    return f"""## Limits

- {tokens}
- The cache takes, of each text that is being written, {" and ".join(takes)}.
- What it writes is likely, not true. Nothing here says what it was not trained for, or whom it treats unfairly."""
