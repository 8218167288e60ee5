"""What machine this is, as far as it decides speed."""

import os
import platform
from pathlib import Path

import msgspec
import psutil

from artifact.predict import cgroup_cores, usable_cores

FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that decide how fast a precision is, as Linux names them (x86 first, then ARM)."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and how busy it was. `cpu_quota_cores` is the cgroup's limit, `steal_fraction` the share of CPU time
    since boot that the hypervisor gave to others; both are `None` where the system does not say."""

    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: int
    usable_cores: int
    cpu_quota_cores: float | None
    memory_bytes: int
    system: str
    python: str
    load_1min: float | None
    steal_fraction: float | None

    @property
    def identity(self) -> tuple[object, ...]:
        """What must be equal for two measurements to be comparable."""
        return (self.cpu_model, self.cpu_features, self.usable_cores, self.system.split()[0])


def read_machine() -> Machine:
    """Describe the machine this process runs on."""
    times = psutil.cpu_times()
    steal = getattr(times, "steal", None)
    return Machine(
        cpu_model=_cpu_field("model name") or platform.processor() or platform.machine(),
        cpu_features=tuple(name for name in FEATURES if name in _cpu_flags()),
        cores=psutil.cpu_count() or 1,
        usable_cores=usable_cores(),
        cpu_quota_cores=cgroup_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        steal_fraction=None if steal is None else steal / max(sum(times), 1e-9),
    )


def _cpu_flags() -> frozenset[str]:
    return frozenset((_cpu_field("flags") or _cpu_field("Features") or "").split())


def _cpu_field(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
