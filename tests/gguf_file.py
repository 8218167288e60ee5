"""A checkpoint in llama.cpp's format, written by its own library."""

from pathlib import Path

import gguf
import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer


def write_gguf(checkpoint: Path, file: Path, chat_template: str | None = None) -> None:
    """The same model in llama.cpp's format: its queries and keys are stored in another order."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    config = model.config
    numbered = AutoTokenizer.from_pretrained(checkpoint).get_vocab()
    tokens = sorted(numbered, key=lambda word: numbered[word])
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([1] * len(tokens))
    halves = ((word[:place], word[place:]) for word in tokens for place in range(1, len(word)))
    writer.add_token_merges([" ".join(next(pair for pair in halves if set(pair) <= set(tokens)))])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    if chat_template:
        writer.add_chat_template(chat_template)
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        array = weight.float().numpy()
        if name.startswith("model.layers."):
            number, _, part = name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
            if part in heads:
                array = array.reshape(heads[part], 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
            writer.add_tensor(f"blk.{number}.{names[part]}.weight", np.ascontiguousarray(array))
        elif name == "model.embed_tokens.weight":
            writer.add_tensor("token_embd.weight", array)
        elif name == "model.norm.weight":
            writer.add_tensor("output_norm.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
