"""What one item is."""

from enum import StrEnum


class Reads(StrEnum):
    """A text, two texts, a text's words, a picture or a recording."""

    TEXT = "text"
    PAIR = "pair"
    WORDS = "words"
    IMAGE = "image"
    SOUND = "sound"

    @property
    def is_file(self) -> bool:
        return self in (Reads.IMAGE, Reads.SOUND)
