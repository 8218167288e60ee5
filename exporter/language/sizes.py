"""How large a language model is."""

from typing import Any

from artifact.language import Sizes


def sizes_of(model: Any) -> Sizes:
    """A model's own sizes, by whichever names its configuration has them."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    return Sizes(vocabulary=config.vocab_size, hidden=config.hidden_size, attention_heads=heads)
