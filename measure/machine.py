"""What machine this is, as far as it decides speed."""

import platform
import time
from pathlib import Path

import msgspec
import psutil

from artifact.cpu import cpu_field, cpu_flags
from artifact.predict.cores import cgroup_cores, usable_cores

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
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
    """The machine. `cpu_quota_cores` is the cgroup's limit, `None` where there is none. `governor` is how the system
    sets the first core's frequency, `None` where it does not say, as on most virtual machines."""

    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: int
    usable_cores: int
    cpu_quota_cores: float | None
    memory_bytes: int
    system: str
    python: str
    governor: str | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What must be equal for two measurements to be comparable."""
        return (self.cpu_model, self.cpu_features, self.usable_cores, self.system.split()[0])


def read_machine() -> Machine:
    """Describe the machine this process runs on."""
    return Machine(
        cpu_model=cpu_field("model name") or platform.processor() or platform.machine(),
        cpu_features=tuple(name for name in FEATURES if name in cpu_flags()),
        cores=psutil.cpu_count() or 1,
        usable_cores=usable_cores(),
        cpu_quota_cores=cgroup_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        governor=_governor(),
    )


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What others did with the machine's CPU time during `watched_s` seconds in which this tool slept.

    `busy_fraction` was used by other programs; `steal_fraction` was given to other virtual machines, `None` where the
    system does not say.
    """

    watched_s: float
    busy_fraction: float
    steal_fraction: float | None


def watch_load(seconds_s: float = 1.0) -> Load:
    """Sleep, and see who used the CPU meanwhile. A load average would still hold our own work of a minute ago."""
    before = psutil.cpu_times()
    time.sleep(seconds_s)
    spent = {name: after - getattr(before, name) for name, after in psutil.cpu_times()._asdict().items()}
    for name in ("guest", "guest_nice"):  # Linux counts these in user and nice already
        spent.pop(name, None)
    total = sum(spent.values())
    resting = spent.get("idle", 0.0) + spent.get("iowait", 0.0) + spent.get("steal", 0.0)
    return Load(
        watched_s=seconds_s,
        busy_fraction=max(0.0, total - resting) / (total or 1.0),
        steal_fraction=spent["steal"] / (total or 1.0) if "steal" in spent else None,
    )


def _governor() -> str | None:
    try:
        return GOVERNOR.read_text().strip() or None
    except OSError:
        return None
