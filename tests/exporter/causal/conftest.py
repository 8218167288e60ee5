"""A small Llama that learnt a few sentences, so that its next tokens are clear."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

SENTENCES = (
    "two hours about it is a warm film",
    "what a film it is two hours about the year",
    "back it is about the year what a warm film",
    "the year is about two hours back",
)


@pytest.fixture(scope="session")
def learnt_llama(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnt") / "checkpoint"
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    rows = tokenizer(list(SENTENCES), return_tensors="pt", padding=True)
    targets = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], labels=targets).loss
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "texts.csv"
    path.write_text("text\n" + "".join(f"{line}\n" for line in SENTENCES))
    return path
