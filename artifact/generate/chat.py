"""Chats to prompts, by the template that a checkpoint brings."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from errors import UserError

TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PLAIN = "use plain completion, which takes the prompt as it is"

LONGEST_PROMPT = 2**24
"""Characters of a prompt: some millions of tokens, more than any model reads."""
LONGEST_LOOPS = 10**6
"""Numbers that all calls of `range` in one rendering may give."""


class ChatTemplate:
    """A chat template that renders what transformers' `apply_chat_template(…, tokenize=False)` renders.

    `source` is the template's text, `origin` names its file in errors, `special_tokens` are given to it by their names
    (`bos_token`, …). Raises `UserError` for a template that does not parse.

    A template is code of whoever made the checkpoint. It runs in jinja2's sandbox, which keeps it from Python's
    insides and from changing what it is given. Bounded besides are its output, what its ranges give altogether, and
    texts, lists and powers that it multiplies. Not bounded are time and memory as such: loops over lists that are in
    the template itself, a text doubled by `~` or grown by a filter, or a macro's output before it is told.
    """

    def __init__(self, source: str, origin: str, special_tokens: Mapping[str, str]) -> None:
        self._origin, self._special_tokens = origin, dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"the chat template of {origin} does not parse: line {error.lineno}: {error.message}",
                f"put the template right, or {PLAIN}",
            ) from None
        except Exception as error:  # such as RecursionError; compiling works out constant expressions
            raise UserError(
                f"the chat template of {origin} cannot be compiled: {_said(error)}",
                f"put the template right, or {PLAIN}",
            ) from None

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatTemplate":
        """The template of a checkpoint: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`.

        Of several named ones it is `default`, as in transformers. Raises `UserError` where there is none.
        """
        config = _read_object(folder / CONFIG_FILE)
        special_tokens = _special_tokens(folder, config)
        path = folder / TEMPLATE_FILE
        if path.is_file():
            try:
                return cls(path.read_text(encoding="utf-8"), str(path), special_tokens)
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path} cannot be read: {error}", f"save the checkpoint again, or {PLAIN}") from None
        return cls(_of_config(config, folder), str(folder / CONFIG_FILE), special_tokens)

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The prompt. A message has a `role` and a `content`, both texts.

        `add_generation_prompt` asks the template to begin an answer. Raises `UserError` for what is no message, for a
        chat that the template refuses, and for a template that fails or leaves its bounds.
        """
        given = {
            **self._special_tokens,
            "messages": _checked(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "range": _bounded_range(),
        }
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(given):
                parts.append(part)
                size += len(part)
                if size > LONGEST_PROMPT:
                    raise SecurityError(f"it writes more than {LONGEST_PROMPT:,} characters")
        except Exception as error:  # whatever a template raises is its own
            raise UserError(
                f"the chat template of {self._origin} refuses this chat: {_said(error)}",
                f"change the messages or their roles, or {PLAIN}",
            ) from None
        return "".join(parts)


def _checked(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Copies in plain types, so that a template meets no method of ours."""
    if not messages:
        raise UserError("the chat has no message", "give at least one")
    for number, message in enumerate(messages, start=1):
        if set(message) != {"role", "content"} or not all(isinstance(value, str) for value in message.values()):
            raise UserError(
                f"message {number} is not a role and a content, both texts",
                'write it as {"role": "user", "content": "…"}',
            )
    return [{name: str(value) for name, value in message.items()} for message in messages]


def _of_config(config: Mapping[str, Any], folder: Path) -> str:
    templates = config.get("chat_template")
    if isinstance(templates, list):
        named = {item.get("name"): item.get("template") for item in templates if isinstance(item, dict)}
        if "default" not in named:
            names = ", ".join(map(str, named)) or "none"
            raise UserError(
                f"{folder / CONFIG_FILE} names no chat template 'default' (it has: {names})",
                f"write the one that is meant to {TEMPLATE_FILE} beside it, or {PLAIN}",
            )
        templates = named["default"]
    if templates is None:
        raise UserError(
            f"{folder} has no chat template: no {TEMPLATE_FILE}, and no chat_template in {CONFIG_FILE}",
            f"{PLAIN}, or take a model that was trained to chat",
        )
    if not isinstance(templates, str):
        raise UserError(f"chat_template in {folder / CONFIG_FILE} is not a text", f"put it right, or {PLAIN}")
    return templates


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by name. Those of a file of their own count for checkpoints from before transformers wrote
    `added_tokens_decoder`, as in its own loading."""
    named = dict(config)
    if "added_tokens_decoder" not in config:
        named |= _read_object(folder / SPECIAL_TOKENS_FILE)
    tokens = {}
    for name in SPECIAL_TOKENS:
        value = named.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            tokens[name] = content
    own = {name: value for name, value in config.items() if name.endswith("_token") and isinstance(value, str)}
    more = config.get("extra_special_tokens")
    return own | ({str(name): str(value) for name, value in more.items()} if isinstance(more, dict) else {}) | tokens


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}", "save the checkpoint again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object", "save the checkpoint again")
    return value


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, which also looks at products and powers before they are worked out.

    What it does not allow raises at once; jinja2's own gives something undefined, which may be written as nothing.
    """

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            size = left.bit_length() * max(right, 0)
        elif operator == "*":
            size = max(_length(left) * _factor(right), _length(right) * _factor(left))
        else:
            size = 0
        if size > LONGEST_PROMPT:
            raise SecurityError(f"it works out something longer than {LONGEST_PROMPT:,}")
        return super().call_binop(context, operator, left, right)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} is unsafe")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _factor(value: Any) -> int:
    return value if isinstance(value, int) else 0


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, which marks answers for training: here its inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Namespace(jinja2.utils.Namespace):
    """A namespace without names that begin with an underscore, as in transformers."""

    def __init__(*args: Any, **given: Any) -> None:
        self, *rest = args
        values = dict(*rest, **given)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores {name!r}, and names in a namespace must not begin with an underscore")


class _Dict:
    """`dict` for templates: called, and nothing else of Python's type."""

    def __call__(self, *args: Any, **given: Any) -> dict[Any, Any]:
        return dict(*args, **given)


def _environment() -> _Environment:
    """Set up as `transformers.utils.chat_template_utils` of 5.23 sets it up."""
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter writes HTML's escapes, which models have not seen."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _bounded_range() -> Callable[..., range]:
    """`range` for one rendering: each of at most jinja2's `MAX_RANGE`, all together of `LONGEST_LOOPS`."""
    left = LONGEST_LOOPS

    def bounded(*args: int) -> range:
        nonlocal left
        numbers = safe_range(*args)
        left -= len(numbers)
        if left < 0:
            raise SecurityError(f"its ranges give more than {LONGEST_LOOPS:,} numbers")
        return numbers

    return bounded


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
