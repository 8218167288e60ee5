"""Memory of this process as one who deploys it sees it."""

import msgspec
import psutil


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes held now. `uss` would be freed if the process ended; `pss` adds its share of what others map too (`None`
    where the system does not say); `rss` counts shared pages in full."""

    rss_bytes: int
    uss_bytes: int
    pss_bytes: int | None


def read_memory() -> MemoryReading:
    """Memory of the calling process."""
    info = psutil.Process().memory_full_info()
    return MemoryReading(rss_bytes=info.rss, uss_bytes=info.uss, pss_bytes=getattr(info, "pss", None))
