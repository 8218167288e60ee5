"""Text as it comes, where it ends, and the prompts of chats."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from artifact.generate.chat import ChatTemplate
from artifact.generate.pieces import Pieces
from artifact.generate.stopping import StopTexts
from errors import UserError

TEXTS = (
    "A warm film.",
    "  two  spaces ",
    "naïve café – 10 €",
    "emoji 😍🎬 and 👩‍🔬",
    "这部电影",
    "فيلم جميل",
    "line\nbreak\t!",
    "",
)


def byte_level() -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer, found.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>"])
    )
    return found


def metaspace() -> Tokenizer:
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    words = ["<s>", "<unk>", *bytes_, "▁", "▁warm", "▁film", "A", "a", "m", "."]
    found = Tokenizer(
        models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>")
    )
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    found.add_special_tokens(["<s>"])
    return found


def word_pieces() -> Tokenizer:
    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.pre_tokenizer, found.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    found.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "<s>"]))
    return found


@pytest.mark.parametrize("make", [byte_level, metaspace, word_pieces])
def test_pieces_are_the_whole_text(make: Any) -> None:
    tokenizer = make()
    special = tokenizer.token_to_id("<s>")
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        for tokens in (ids, [*ids, special, *ids]):
            assert said(tokenizer, tokens) == tokenizer.decode(tokens, skip_special_tokens=True)


def said(tokenizer: Tokenizer, tokens: list[int]) -> str:
    pieces = Pieces(tokenizer)
    return "".join([*(pieces.push(token) for token in tokens), pieces.finish()])


def test_bytes_that_never_became_a_letter_take_nothing_back() -> None:
    for tokenizer in (byte_level(), metaspace()):
        assert said(tokenizer, tokenizer.encode("a warm 😍").ids[:-1]).startswith("a warm ")


def test_text_ends_before_the_first_stop() -> None:
    stops = StopTexts(("\n\nUser:", "END"))
    shown = [stops.push(piece) for piece in ("One", "\n", "\nTwo", " E", "N", "E", "ND more", "again")]
    assert "".join(shown) == "One\n\nTwo EN"
    assert shown[1] == ""  # it could have begun a stop
    assert stops.is_over


def test_what_only_looked_like_a_stop_is_shown_in_the_end() -> None:
    stops = StopTexts(("###",))
    assert stops.push("a ##") == "a "
    assert stops.finish() == "##"
    with pytest.raises(UserError, match="--stop has an empty text"):
        StopTexts(("",))


CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}\n{%- for message in messages %}\n    {{- '<|start|>' + message.role + '<|end|>\\n\\n' }}\n"
    "    {{- message.content | trim + eos_token }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}"
    "{{ message['content'] | trim }}"
    "{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
MISTRAL = (
    "{%- set ns = namespace(seen=0) %}{{ bos_token }}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.seen = ns.seen + 1 %}[INST] {{ message['content'] }} [/INST]"
    "{%- elif message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}{%- endif %}{%- endfor %}"
)
PHI = (
    "{% for message in messages %}{% if message['role'] == 'tool' %}{% continue %}{% endif %}"
    "{% generation %}<|{{ message['role'] }}|>\n{{ message['content'] | tojson }}<|end|>\n{% endgeneration %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHAT = [
    {"role": "user", "content": " What is it <b>about</b>? é"},
    {"role": "assistant", "content": "Two hours."},
    {"role": "user", "content": "And the ending?\n"},
]


@pytest.mark.parametrize(
    "template", [CHATML, LLAMA, GEMMA, MISTRAL, PHI], ids=["chatml", "llama", "gemma", "mistral", "phi"]
)
@pytest.mark.parametrize("where", ["file", "config", "named"])
def test_prompts_are_those_of_transformers(template: str, where: str, tmp_path: Path) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>", eos_token="</s>")
    wanted = theirs.apply_chat_template(CHAT, chat_template=template, add_generation_prompt=True, tokenize=False)
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    if where == "file":
        (tmp_path / "chat_template.jinja").write_text(template)
    else:
        config["chat_template"] = template if where == "config" else [{"name": "default", "template": template}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.of(tmp_path).prompt(CHAT) == wanted


def test_a_template_that_raises_says_why() -> None:
    with pytest.raises(UserError, match="refuses these messages: roles must alternate"):
        ChatTemplate(GEMMA, {"bos_token": ""}, "gemma").prompt([CHAT[1]])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for message in %}", "does not parse"),
        ("{{ messages.__class__.__mro__ }}", "refuses these messages"),
        ("{% for a in range(99999999) %}x{% endfor %}", "refuses these messages"),
        ("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}", "writes without end"),
        ("{{ messages.append(1) }}", "refuses these messages"),
        ("{{ nothing.at_all }}", "refuses these messages"),
    ],
)
def test_hostile_and_broken_templates_are_refused(template: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        ChatTemplate(template, {}, "some model").prompt(CHAT)
    assert "--chat" in raised.value.hint


def test_a_folder_without_a_template_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        ChatTemplate.of(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        ChatTemplate.of(tmp_path)
