"""Small tokenizers with the decoders that published models have."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = (
    "The quick brown fox doesn't jump over the lazy dog. It's 3.14, isn't it?",
    "  two spaces first, and last  ",
    "naïve café, Straße, İstanbul, ﬁne",
    "😀 👩‍👩‍👧‍👦 🇪🇺 done",
    "日本語のテキスト。한국어도",
    "مرحبا بالعالم, שלום",
    "tabs\tand\nnew\r\nlines\n\n\nend",
    "a\N{REPLACEMENT CHARACTER}b \N{REPLACEMENT CHARACTER}",
    "e\N{COMBINING ACUTE ACCENT} x\N{COMBINING DIAERESIS}",
    "",
)
SPECIAL = ["<s>", "</s>", "[PAD]"]


def byte_level() -> Tokenizer:
    """As GPT-2, SmolLM2, Qwen and Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens(["<tool call>", "→ added"])
    return tokenizer


def byte_fallback(*, strips: bool = True) -> Tokenizer:
    """As Llama 2, Mistral, Phi-3 (which strip the first space), and Gemma (which does not)."""
    words = ["▁", "▁▁", "▁the", "the", "▁a", "b", "o", "x", "e", "▁fox", "é", ".", ",", "'", "s", "▁do", "n", "t"]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)
    return tokenizer


def gemma_like() -> Tokenizer:
    return byte_fallback(strips=False)


def metaspace() -> Tokenizer:
    """As T5 and ALBERT."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<s>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT, with the clean-up of its decoder."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=[*SPECIAL, "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def end_of_word() -> Tokenizer:
    """As the first GPT and XLM: words are marked at their ends."""
    tokenizer = Tokenizer(models.BPE(unk_token="<s>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def words_alone() -> Tokenizer:
    """Without a decoder: tokens with a space between them."""
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "film": 2, "é": 3}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


ALL = (byte_level, byte_fallback, gemma_like, metaspace, word_piece, end_of_word, words_alone)


def id_of(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    assert number is not None, token
    return number
