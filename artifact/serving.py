"""`serving.json` of a run: how one item becomes the inputs of its model, without transformers."""

from dataclasses import dataclass

from artifact.predict.images import ImageSettings
from artifact.predict.reads import Reads
from artifact.predict.sounds import SoundSettings
from artifact.predict.tokens import TextLimits

SERVING_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What an artifact needs to know to prepare items as transformers does, proved on examples when it was exported.

    `refused` says why that cannot be done without transformers; nothing else is set then.
    """

    schema_version: int
    checkpoint_sha256: str
    reads: Reads | None = None
    limits: TextLimits | None = None
    image: ImageSettings | None = None
    sound: SoundSettings | None = None
    mask_id: int | None = None
    refused: str | None = None
