"""Chats are rendered as transformers renders them, and a template does no harm."""

import json
from pathlib import Path
from typing import Any

import pytest

from artifact.generate.chat import ChatTemplate
from errors import UserError
from tests.artifact.generate.tokenizers_of_all_kinds import byte_level

CHATML = """{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{% for message in messages %}
    {% if message['role'] == 'assistant' %}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
    {% else %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

LLAMA_3 = """{{- bos_token }}
{%- if tools is not none %}{{- raise_exception('no tools here') }}{% endif %}
{%- set state = namespace(date=strftime_now('%d %b %Y'), seen=0) %}
{%- for message in messages %}
    {%- set state.seen = state.seen + 1 %}
    {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' }}
    {%- if loop.first %}{{- 'Today Date: ' + state.date + '\\n\\n' }}{%- endif %}
    {{- message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}{# seen: #}{{ state.seen }}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}
{%- endif %}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
<start_of_turn>{{ role }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}
{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}"""

PHI = """{% for message in messages %}
{% if message['content'] == 'skip' %}{% continue %}{% endif %}
{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>\\n' }}
{% if loop.index > 6 %}{% break %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

JSON = """{% macro line(message, indent=None) %}
{{ message | tojson(indent=indent) }}
{% endmacro %}
{% for message in messages %}{{ line(message) }}{{ line(dict(message, n=[1, 2.5, none]), 2) }}{% endfor %}
{{ messages | map(attribute='role') | list | tojson }}
{% for number in range(3) %}{{ number * 2 }}{{ '=' * number }}{{ 2 ** number }}{% endfor %}
{{ missing }}{{ documents is none }}{{ sep_token is defined }}"""

TEMPLATES = {"chatml": CHATML, "llama_3": LLAMA_3, "gemma": GEMMA, "mistral": MISTRAL, "phi": PHI, "json": JSON}

TALK = [
    {"role": "user", "content": "  Was <b>this</b> & 'that' good?\n"},
    {"role": "assistant", "content": 'Yes. 😀 "Quoted" \\ é'},
    {"role": "user", "content": "skip"},
    {"role": "assistant", "content": "{{ bos_token }}{% raw %}"},
    {"role": "user", "content": ""},
]
CHATS = {
    "one": TALK[:1],
    "many": TALK,
    "long": TALK * 2,
    "system": [{"role": "system", "content": "Be brief."}, *TALK[:3]],
    "answered": TALK[:2],
    "odd": [TALK[1], TALK[1]],
}


def checkpoint(folder: Path, template: Any, **config: Any) -> Path:
    """A folder with a tokenizer, and its template in `tokenizer_config.json`."""
    byte_level().save(str(folder / "tokenizer.json"))
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"} | config
    if template is not None:
        given["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(given), encoding="utf-8")
    return folder


def by_transformers(folder: Path, chat: list[dict[str, str]], *, prompt: bool) -> str:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt))


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from jinja2 import TemplateError

    folder = checkpoint(tmp_path, TEMPLATES[name])
    template = ChatTemplate.from_folder(folder)
    refused = 0
    for chat in CHATS.values():
        for prompt in (True, False):
            expected: str | TemplateError
            try:
                expected = by_transformers(folder, chat, prompt=prompt)
            except TemplateError as error:
                expected = error
            if isinstance(expected, str):
                assert template.render(chat, add_generation_prompt=prompt) == expected != ""
                continue
            refused += 1
            with pytest.raises(UserError, match=f"{tmp_path}.*{expected}") as caught:
                template.render(chat, add_generation_prompt=prompt)
            assert "plain completion" in caught.value.hint
    assert (refused > 0) == (name == "gemma")


def test_a_file_of_its_own_comes_first(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "config")
    (folder / "chat_template.jinja").write_bytes("  {{ bos_token }}é\r\n\r\n".encode())
    assert ChatTemplate.from_folder(folder).render(TALK) == by_transformers(folder, TALK, prompt=True) == "  <s>é\n"


def test_of_named_templates_it_is_the_default(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ eos_token }}!"}]
    folder = checkpoint(tmp_path, named)
    assert ChatTemplate.from_folder(folder).render(TALK) == by_transformers(folder, TALK, prompt=True) == "</s>!"
    with pytest.raises(UserError, match=r"no chat template 'default' \(it has: tool_use\)"):
        ChatTemplate.from_folder(checkpoint(tmp_path, named[:1]))


@pytest.mark.parametrize("modern", [True, False])
def test_special_tokens_have_the_values_that_transformers_gives(modern: bool, tmp_path: Path) -> None:
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "image", "video")
    source = "|".join(f"{{{{ {name}_token }}}}" for name in names)
    extra: dict[str, Any] = {"image_token": "[PAD]", "extra_special_tokens": {"video_token": "→ added"}}
    if modern:
        extra["added_tokens_decoder"] = {"0": {"content": "<s>", "special": True}}
    folder = checkpoint(tmp_path, source, pad_token="[PAD]", mask_token=None, **extra)
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "[PAD]", "lstrip": False}, "unk_token": "<s>"}), encoding="utf-8"
    )
    ours = ChatTemplate.from_folder(folder).render(TALK)
    assert ours == by_transformers(folder, TALK, prompt=True)
    assert ours.startswith("<s>|</s>||" if modern else "<s>|[PAD]|<s>|")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has no chat template"),
        (7, "not a text"),
        ("a\n{% for x in %}", "does not parse: line 2"),
        ("{{ 1 | nothing }}", "does not parse: line 1"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be compiled"),
    ],
)
def test_a_template_that_is_none_is_refused(template: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        ChatTemplate.from_folder(checkpoint(tmp_path, template))
    assert str(tmp_path) in caught.value.message
    assert "plain completion" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", '"a"', "\xff"])
def test_damaged_files_are_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"tokenizer_config\.json"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja cannot be read"):
        ChatTemplate.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.__class__ }}{{ messages.__init__.__globals__ }}", "unsafe"),
        ("{{ raise_exception.__globals__ }}", "unsafe"),
        ("{{ range.__globals__['json'] }}", "unsafe"),
        ("{{ dict.__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{{ namespace(__class__=1) }}", "underscore"),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", "underscore"),
        ("{{ messages.append(1) }}", "is unsafe"),
        ("{{ messages[0].update(role='x') }}", "is unsafe"),
        ("{{ '{0.__class__}'.format(messages) }}", "unsafe"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "ranges give more than"),
        ("{% for i in range(9999) %}{{ messages[0].content * 4000 }}{% endfor %}", "writes more than"),
        ("{{ 'x' * 10**9 }}", "longer than"),
        ("{{ 10**9 * [1] }}", "longer than"),
        ("{{ 9 ** (9 ** 9) }}", "longer than"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% include 'other' %}", "no loader"),
        ("{{ messages[0].content / 2 }}", "unsupported operand"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_hostile_or_broken_template_is_refused(source: str, says: str) -> None:
    template = ChatTemplate(source, "folder/chat_template.jinja", {})
    with pytest.raises(UserError, match=says) as caught:
        template.render(TALK)
    assert "folder/chat_template.jinja" in caught.value.message
    assert "plain completion" in caught.value.hint


def test_a_bound_counts_for_one_rendering() -> None:
    template = ChatTemplate("{% for i in range(90000) %}{% endfor %}ok", "file", {})
    assert {template.render(TALK) for _ in range(15)} == {"ok"}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "a", "name": "b"}],
        [{"role": "user", "content": ["a"]}],
    ],
)
def test_what_is_no_message_is_refused(messages: Any) -> None:
    with pytest.raises(UserError, match="message") as caught:
        ChatTemplate("{{ messages }}", "file", {}).render(messages)
    assert caught.value.hint
