"""The command line of a language model's artifact.

python predict.py "The capital of France is"           a text continued, as it comes
python predict.py --chat "Who wrote Emma?"             an answer, by the model's own chat template
python predict.py --chat                               a conversation, on a terminal
python predict.py recording.wav                        what is said in a recording, by a model that hears
python predict.py --json < prompts.txt                 one JSON object for each line of standard input
python predict.py --data prompts.csv --out out.jsonl   a whole file, in its order; resumed after a kill
python predict.py --selftest                           the packed examples must give the reference's logits

from predict import Generator
generator = Generator.open("path/to/artifact")
generator.chat([{"role": "user", "content": "Who wrote Emma?"}]).text
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from artifact.generate.generator import Generator
from artifact.generate.sampling import Sampling
from artifact.generate.writer import Wanted, Written
from artifact.predict.folder import MANIFEST
from artifact.predict.program import ended, return_freed_blocks, told_on_terminal
from artifact.predict.rows import ItemColumns, read_items
from artifact.predict.whole_file import Told, WholeFile, answer_file, no_word
from errors import UserError

T = TypeVar("T")
Item = str | Path
"""A text, or a recording's path."""

ROWS_AT_ONCE = 4
"""Texts of a file or of standard input that are written together: more of them wait for the longest."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How texts are continued: plainly, or as the answer to a chat that the text alone is, behind `system`."""

    wanted: Wanted = field(default_factory=Wanted)
    is_chat: bool = False
    system: str | None = None

    def messages(self, text: str) -> list[dict[str, str]]:
        """A chat that begins with `text`."""
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*before, {"role": "user", "content": text}]


def in_parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Items as they come, so many at a time as are written together."""
    rest = iter(items)
    while part := list(islice(rest, ROWS_AT_ONCE)):
        yield part


def pieces_of(generator: Generator, text: str, asked: Asked) -> Iterator[str]:
    """What follows a text, or is written of it or of the recording that it names, as it comes; a line's end is last."""
    if asked.is_chat:
        yield from generator.stream_chat(asked.messages(text), asked.wanted)
    else:
        if not generator.rewrites:
            yield text
        yield from generator.stream(text, asked.wanted)
    yield "\n"


def written_of(generator: Generator, texts: Sequence[Item], asked: Asked) -> list[Written]:
    """What follows each text, or is written of it. Ctrl-C ends it, as it ends everything that is not shown while it is
    written."""
    if asked.is_chat:
        return [_finished(generator.chat(asked.messages(str(text)), asked.wanted)) for text in texts]
    return [_finished(written) for written in generator.complete(texts, asked.wanted)]


def _finished(written: Written) -> Written:
    if written.ending == "interrupted":
        raise KeyboardInterrupt
    return written


def text_record(generator: Generator, item: Item, written: Written) -> dict[str, Any]:
    """A text, or a recording's path, and what follows or is written of it, as JSON has them."""
    kind = "file" if generator.reads.is_file else "text"
    return {kind: str(item), "written": written.text, "tokens": len(written.tokens), "ending": written.ending}


def lines_of(generator: Generator, texts: Iterable[str], asked: Asked, *, as_json: bool) -> Iterator[str]:
    """A line for each text, with JSON or with what was written; its own line ends are kept out of the way by JSON
    alone."""
    for window in in_parts(texts):
        for text, written in zip(window, written_of(generator, window, asked), strict=True):
            yield json.dumps(text_record(generator, text, written), ensure_ascii=False) if as_json else written.text


def write_file(
    generator: Generator,
    data: Path,
    out: Path,
    asked: Asked,
    columns: ItemColumns,
    kept: tuple[str, ...] = (),
    told: Told = no_word,
) -> int:
    """Write what follows the text of every row of `data`, or is written of it or its recording, into `out`, in order,
    gone on with after a kill; returns how many.

    Raises `UserError` for a row that cannot be continued (what came before is kept) and for another kind of file.
    """
    depends_on = (asdict(asked), asdict(columns), list(kept), generator.threads)
    return answer_file(
        WholeFile(data=data, out=out, depends_on=depends_on),
        (generator.folder / MANIFEST).read_bytes(),
        read_items(data, generator.reads, columns, kept),
        in_parts,
        lambda items: [
            text_record(generator, item, written)
            for item, written in zip(items, written_of(generator, items, asked), strict=True)
        ],
        told,
    )


def converse(generator: Generator, asked: Asked, ask: Callable[[], str | None], show: Callable[[str], None]) -> None:
    """Answer what `ask` gives until it gives nothing, with all that was said before; Ctrl-C ends an answer only.

    Raises `UserError` when the conversation has become longer than the model's context.
    """
    messages: list[dict[str, str]] = []
    while (text := ask()) is not None:
        messages += asked.messages(text) if not messages else [{"role": "user", "content": text}]
        answer: list[str] = []
        try:
            for piece in generator.stream_chat(messages, asked.wanted):
                answer.append(piece)
                show(piece)
        except KeyboardInterrupt:
            pass
        show("\n")
        messages.append({"role": "assistant", "content": "".join(answer)})


def asked_on_terminal() -> str | None:
    """The next line that is typed; nothing at its end."""
    try:
        return input("> ")
    except EOFError:
        return None


def shown_at_once(piece: str) -> None:
    """Print a piece of a line."""
    print(piece, end="", flush=True)


def _argument_parser() -> argparse.ArgumentParser:
    usual, drawn = Wanted(), Sampling()
    parser = argparse.ArgumentParser(
        description="Continue texts, answer chats, or write down recordings, with this artifact."
    )
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts or recordings; without any, the lines of the input"
    )
    parser.add_argument("--chat", action="store_true", help="a text is what a user says, and is answered")
    parser.add_argument("--system", help="with --chat: what the model is told first")
    parser.add_argument("--max-new-tokens", type=int, default=usual.most, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=drawn.temperature, help="0: the likeliest token each time")
    parser.add_argument("--top-k", type=int, default=drawn.top_k, help="draw from so many tokens; 0: from all")
    parser.add_argument("--top-p", type=float, default=drawn.top_p, help="draw from the likeliest with this share")
    parser.add_argument("--min-p", type=float, default=drawn.min_p, help="none below this share of the likeliest")
    parser.add_argument("--repetition-penalty", type=float, default=drawn.repetition_penalty, help="1: none")
    parser.add_argument("--seed", type=int, default=drawn.seed, help="of what is drawn")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--data", type=Path, help="a .csv, .tsv, .jsonl or .parquet file with a row for each")
    parser.add_argument("--out", type=Path, help="a .jsonl or .csv file for what is written to --data")
    parser.add_argument("--text-column", help="column of --data that holds the text, or a path")
    parser.add_argument("--keep", action="append", default=[], metavar="COLUMN", help="column to carry over into --out")
    parser.add_argument("--json", action="store_true", help="one JSON object for each text")
    parser.add_argument("--selftest", action="store_true", help="compare with the packed reference examples")
    parser.add_argument("--threads", type=int, help="threads (default: the cores this process may use)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 when a check did not confirm, 2 for wrong use or input."""
    return_freed_blocks()
    parser = _argument_parser()
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        parser.error("--threads takes a number of at least 1")
    if bool(options.out) != bool(options.data) or (options.texts and options.data):
        parser.error("--out goes with --data, and --data with no TEXT")
    if options.system is not None and not options.chat:
        parser.error("--system goes with --chat")
    return ended(lambda: _run_options(options))


def _asked(options: argparse.Namespace) -> Asked:
    sampling = Sampling(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )
    wanted = Wanted(options.max_new_tokens, sampling, tuple(options.stop))
    return Asked(wanted=wanted, is_chat=options.chat, system=options.system)


def _run_options(options: argparse.Namespace) -> int:
    asked = _asked(options)
    generator = Generator.open(Path(__file__).resolve().parent, threads=options.threads)
    if options.selftest:
        problems = generator.selftest()
        print("\n".join(problems) or f"selftest passed on {generator.threads} threads")
        return 1 if problems else 0
    if options.out:
        with told_on_terminal() as told:
            columns = ItemColumns(options.text_column, None)
            rows = write_file(generator, options.data, options.out, asked, columns, tuple(options.keep), told)
        print(f"{rows:,} texts in {options.out}")
    elif options.chat and not options.texts and sys.stdin.isatty():
        converse(generator, asked, asked_on_terminal, shown_at_once)
    elif len(options.texts) == 1 and not options.json:
        for piece in pieces_of(generator, options.texts[0], asked):
            shown_at_once(piece)
    else:
        for line in lines_of(generator, options.texts or typed_lines(), asked, as_json=options.json):
            print(line, flush=True)
    return 0


def typed_lines() -> Iterator[str]:
    """The lines of standard input; `UserError` for what is not UTF-8."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input, line {number}: not UTF-8 text", "convert it to UTF-8") from error


if __name__ == "__main__":
    sys.exit(main())
