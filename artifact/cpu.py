"""What this machine's CPU says of itself."""

from pathlib import Path

VNNI = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Flags of which one is enough: products of 8 bits are added in 32. Older x86 kernels add two in 16, and saturate."""


def cpu_field(name: str) -> str | None:
    """A field of the first core in `/proc/cpuinfo`, or `None` where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)


def cpu_flags() -> frozenset[str]:
    """Instruction sets by Linux's names; empty where it does not say."""
    return frozenset((cpu_field("flags") or cpu_field("Features") or "").split())


def saturates() -> bool:
    """Whether this CPU's 8-bit kernels saturate; a system that does not say is not suspected."""
    flags = cpu_flags()
    return bool(flags) and not flags & set(VNNI)
