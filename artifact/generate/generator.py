"""A packed language model, loaded: checked first, then asked to go on."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from artifact.generate.chat import ChatTemplate
from artifact.generate.decoder import Decoder, Logits, reads
from artifact.generate.encoder import NOTHING, Encoder, Read
from artifact.generate.golden import GoldenText, GoldenTexts, read_golden_texts
from artifact.generate.manifest import LanguageManifest, read_language_manifest
from artifact.generate.writer import Wanted, Writer, Written
from artifact.predict.cores import usable_cores
from artifact.predict.folder import check_files, inside
from artifact.predict.graph_file import check_graph
from artifact.predict.reads import Reads
from artifact.predict.session import SERVES, open_session
from artifact.predict.sounds import SoundItem, prepare_recording, read_recording
from artifact.predict.tokens import open_tokenizer
from errors import GateFailed, UserError

LARGEST_TOKENIZER_BYTES = 128 * 2**20
GREEDY = Wanted()
ChatMessage = Mapping[str, str]
"""A `role`, such as `user`, and a `content`."""


class Generator:
    """A packed language model, loaded. Each text that is being written has a cache of its own, so that an instance may
    be shared by threads.

    An item is a text; of a model that hears, a recording: a WAV file's path, its bytes, or samples from -1 to 1.
    """

    def __init__(self, folder: Path, manifest: LanguageManifest, threads: int) -> None:
        """Load what was checked; `open` checks."""
        self.folder, self.manifest, self.threads = folder, manifest, threads
        path = inside(folder, "tokenizer.json")
        if path.stat().st_size > LARGEST_TOKENIZER_BYTES:
            raise GateFailed(f"{path} has more than {LARGEST_TOKENIZER_BYTES:,} bytes")
        *encoders, session = (
            open_session(inside(folder, name), provider=SERVES, threads=threads, config=manifest.session)
            for name in manifest.graphs
        )
        self.decoder = Decoder(session, manifest.context_tokens, Encoder(encoders[0]) if encoders else None)
        tokenizer = open_tokenizer(path.read_text(encoding="utf-8"))
        self._writer = Writer(self.decoder, tokenizer, manifest.end_ids, manifest.never_ids, manifest.rewriting)

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None) -> "Generator":
        """Check every file against the manifest, look through the graph, then load it on `threads` (default: the usable
        cores).

        Raises `GateFailed` for a changed, missing, unreadable or unsafe file.
        """
        folder = Path(folder)
        manifest = read_language_manifest(folder)
        check_files(folder, manifest.files)
        for name in manifest.graphs:
            check_graph(inside(folder, name), [Path(file).name for file in manifest.graph_files])
        try:
            return cls(folder, manifest, threads or usable_cores())
        except UserError as error:
            raise GateFailed(error.message, error.hint) from None

    @property
    def rewrites(self) -> bool:
        """Whether it reads a text and writes another, rather than going on with the first."""
        return self.manifest.rewriting is not None

    @cached_property
    def template(self) -> ChatTemplate:
        """How chats become prompts. Raises `UserError` for a model without a chat template."""
        return ChatTemplate.from_folder(self.folder)

    @property
    def reads(self) -> Reads:
        """What an item is: a text or a recording."""
        return self.manifest.reads

    def read(self, item: SoundItem) -> Read:
        """The ids of a text, or the features of a recording. Raises `UserError` for what is neither, or too long."""
        sound = self.manifest.sound
        if sound is not None:
            return prepare_recording(read_recording(item, sound), sound)
        if not isinstance(item, str):
            raise UserError(f"the model reads a text, not {type(item).__name__}")
        return self._writer.tokens(item)

    def complete(self, items: Sequence[SoundItem], wanted: Wanted = GREEDY) -> list[Written]:
        """Several texts continued at once, or what is written of each. Raises `UserError` for an item that is empty or
        too long."""
        return self._writer.write([self.read(item) for item in items], wanted)

    def stream(self, item: SoundItem, wanted: Wanted = GREEDY) -> Iterator[str]:
        """The same of one item, in pieces as they come. Raises `UserError` as `complete` does."""
        return self._writer.stream(self.read(item), wanted)

    def chat(self, messages: Sequence[ChatMessage], wanted: Wanted = GREEDY) -> Written:
        """The answer to a chat. Raises `UserError` for one that the model's template refuses, or that is too long."""
        return self._writer.write([self._chat_tokens(messages)], wanted)[0]

    def stream_chat(self, messages: Sequence[ChatMessage], wanted: Wanted = GREEDY) -> Iterator[str]:
        """The answer to a chat, in pieces as they come. Raises `UserError` as `chat` does."""
        return self._writer.stream(self._chat_tokens(messages), wanted)

    def _chat_tokens(self, messages: Sequence[ChatMessage]) -> list[int]:
        return self._writer.tokens(self.template.render(messages), is_chat=True)

    def selftest(self) -> list[str]:
        """What differs from the packed golden texts; empty when the artifact does what it was packed for."""
        golden = read_golden_texts(self.folder)
        if golden.tolerance is None:
            raise GateFailed(f"{self.folder / 'golden.json'} has no tolerance; copy the artifact again")
        problems, error = self.golden_errors(golden)
        if not problems and not error <= golden.tolerance:
            problems.append(f"a logit is off by {error:.3g} on the golden texts (allowed: {golden.tolerance:.3g})")
        return problems

    def golden_errors(self, golden: GoldenTexts) -> tuple[list[str], float]:
        """What is read otherwise than it was, and the largest error of a logit, with the cache in use."""
        problems, largest = [], 0.0
        for example in golden.examples:
            if not example.is_read_as(self.read(example.item)):
                what = "ids" if example.features is None else "features"
                problems.append(f"the {what} of {example} differ from the reference's")
                continue
            largest = max(largest, example.logits.error(self.golden_logits(example)))
        return problems, largest

    def golden_logits(self, example: GoldenText) -> Logits:
        """Logits after a golden text and after each token of its continuation, with the cache in use: float32
        (1 + continued, vocabulary)."""
        if (rewriting := self.manifest.rewriting) is None:
            return self.decoder.told(example.ids, example.continued, NOTHING)
        return self.decoder.told(rewriting.start_ids[:1], example.continued, reads([self.read(example.item)]))
