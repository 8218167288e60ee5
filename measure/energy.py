"""Energy by the processor's own counters (RAPL, as Linux shows it under powercap); nothing is estimated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Domain:
    """A processor package with its memory's counter, if it has one: microjoules, which wrap around at `range_uj`."""

    counter: Path
    range_uj: int


def find_domains(powercap: Path = POWERCAP) -> tuple[Domain, ...]:
    """The packages whose counters this process may read; none on most virtual machines, and for most users, as Linux
    keeps them from all but root since 2020 (CVE-2020-8694)."""
    found = []
    for folder in sorted(powercap.glob("*rapl:*")):
        if folder.name.count(":") != 1:  # a part of a package, which is in the package's figure already
            continue
        try:
            limit = int((folder / "max_energy_range_uj").read_text())
            int((folder / "energy_uj").read_text())
        except (OSError, ValueError):
            continue
        found.append(Domain(folder / "energy_uj", limit))
    return tuple(found)


class Meter:
    """Joules that all packages took, other programs' included, between two looks."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self._domains, self._before = domains, [_read(domain) for domain in domains]

    def joules(self) -> float | None:
        """Since the meter was made; `None` where there is no counter. Good for less than a counter's range (a minute or
        more at full load)."""
        if not self._domains:
            return None
        spent = 0
        for domain, before in zip(self._domains, self._before, strict=True):
            spent += (_read(domain) - before) % (domain.range_uj + 1)
        return spent / 1e6


def _read(domain: Domain) -> int:
    return int(domain.counter.read_text())
