"""Memory of this process as one who deploys it sees it."""

import os
from typing import Any

import msgspec
import psutil


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes held now. `rss` counts shared pages in full: what a process would hold by itself. `uss` would be freed if
    it ended, and `pss` adds its share of what others map too (`None` where the system does not say): both depend on
    who else runs, and of an engine's libraries, as soon as another process maps them, little is left in them."""

    rss_bytes: int
    uss_bytes: int
    pss_bytes: int | None


def read_memory() -> MemoryReading:
    """Memory of the calling process."""
    info = psutil.Process().memory_full_info()
    return MemoryReading(rss_bytes=info.rss, uss_bytes=info.uss, pss_bytes=getattr(info, "pss", None))


def read_device_bytes(nvml: Any = None) -> int | None:
    """Memory that the calling process holds on all NVIDIA GPUs: contexts, libraries and arenas, whichever engine made
    them. `None` where NVML is not there or does not know the process (as in containers with process numbers of their
    own).

    `nvml` is the module `pynvml` (default: the installed one).
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return None
        nvml = pynvml
    try:
        nvml.nvmlInit()
        gpus = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        processes = [found for gpu in gpus for found in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
    except nvml.NVMLError:
        return None
    held = [found.usedGpuMemory for found in processes if found.pid == os.getpid()]
    return sum(held) if held and None not in held else None
