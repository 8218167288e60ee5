"""`genai_config.json`, by which onnxruntime-genai loads the folder of a language model as it is."""

from collections.abc import Sequence
from typing import Any

from artifact.generate.cache import PAST, PRESENT
from artifact.generate.decoder import LOGITS
from artifact.generate.encoder import IDS, MASK
from artifact.language import Cache, LanguageVariant, Sizes

GENAI_CONFIG = "genai_config.json"


def is_for_genai(variant: LanguageVariant) -> bool:
    """Whether onnxruntime-genai can be told how the graph is used: a decoder alone whose layers all keep keys and
    values, of one size."""
    return variant.reading is None and not variant.cache.state_bytes and variant.cache.heads > 0


def genai_config(
    model: dict[str, Any], cache: Cache, sizes: Sizes, model_file: str, end_ids: Sequence[int]
) -> dict[str, Any]:
    """The configuration of `onnxruntime_genai.Model`; `model` is the checkpoint's `config.json`, for its tokens.

    Names and fields as its documentation has them, tried with 0.18. Past and present share one buffer.
    """
    begin = model.get("bos_token_id")
    pad = model.get("pad_token_id")
    first = end_ids[0] if end_ids else 0
    return {
        "model": {
            "type": "decoder",
            "bos_token_id": begin if isinstance(begin, int) else first,
            "eos_token_id": list(end_ids) or first,
            "pad_token_id": pad if isinstance(pad, int) and pad >= 0 else first,
            "context_length": cache.context_tokens,
            "vocab_size": sizes.vocabulary,
            "decoder": {
                "filename": model_file,
                "head_size": cache.head_size,
                "hidden_size": sizes.hidden,
                "num_attention_heads": sizes.attention_heads,
                "num_key_value_heads": cache.heads,
                "num_hidden_layers": cache.layers,
                "inputs": {
                    "input_ids": IDS,
                    "attention_mask": MASK,
                    "past_key_names": f"{PAST}.%d.key",
                    "past_value_names": f"{PAST}.%d.value",
                },
                "outputs": {
                    "logits": LOGITS,
                    "present_key_names": f"{PRESENT}.%d.key",
                    "present_value_names": f"{PRESENT}.%d.value",
                },
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            },
        },
        "search": {"do_sample": False, "max_length": cache.context_tokens, "past_present_share_buffer": True},
    }
