"""Messages of a chat as the one text that a model continues, by the template that its checkpoint brings.

Templates come with models, from strangers: they run in jinja2's sandbox, and what they may write is bounded. A template
that computes for long without writing is not.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment

from errors import UserError

LONGEST = 1_000_000
"""Letters that a template may write."""

FILE, CONFIG = "chat_template.jinja", "tokenizer_config.json"
TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")

Message = Mapping[str, str]
"""`role` and `content`."""


class _Generation(Extension):
    """`{% generation %}` marks what a model said, which only training looks at; what is inside is written."""

    tags = {"generation"}  # noqa: RUF012  jinja2 reads it so

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> Any:
        return caller()


class ChatTemplate:
    """A template and the tokens that it names."""

    def __init__(self, text: str, tokens: Mapping[str, str], source: str) -> None:
        """Raises `UserError` for a template that does not parse."""
        self._tokens, self._source = dict(tokens), source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template of {source} does not parse: {error}", PLAIN) from error

    @classmethod
    def of(cls, folder: Path) -> "ChatTemplate":
        """That of a checkpoint or an artifact. Raises `UserError` when it has none."""
        config = _config(folder)
        text = config.get("chat_template")
        if isinstance(text, list):  # several by name
            named = {item.get("name"): item.get("template") for item in text if isinstance(item, dict)}
            text = named.get("default")
        if (folder / FILE).is_file():
            text = (folder / FILE).read_text(encoding="utf-8")
        if not isinstance(text, str):
            raise UserError(f"{folder} has no chat template", PLAIN)
        tokens = {name: _content(config[name]) for name in TOKENS if config.get(name)}
        return cls(text, tokens, folder.name)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text that an answer to the last message continues.

        Raises `UserError` for messages that the template refuses, and for one that writes without end.
        """
        written: list[str] = []
        length = 0
        try:
            for part in self._template.generate(messages=messages, add_generation_prompt=True, **self._tokens):
                written.append(part)
                length += len(part)
                if length > LONGEST:
                    raise UserError(f"the chat template of {self._source} writes without end", PLAIN)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise UserError(f"the chat template of {self._source} refuses these messages: {error}", PLAIN) from error
        return "".join(written)


PLAIN = "let it continue a plain text instead, without --chat"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        value = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}", "save the tokenizer again") from error
    return value if isinstance(value, dict) else {}


def _content(token: Any) -> str:
    """A token's text; some files describe it by an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """jinja2's own filter writes HTML's escapes, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
