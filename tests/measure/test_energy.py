from pathlib import Path

import pytest

from measure.energy import Domain, Meter, find_domains


def package(powercap: Path, name: str, energy: str, limit: str = "1000000") -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    return folder / "energy_uj"


def test_packages_are_found_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    whole = package(tmp_path, "intel-rapl:0", "10")
    package(tmp_path, "intel-rapl:0:0", "4")
    other = package(tmp_path, "intel-rapl:1", "20")
    assert find_domains(tmp_path) == (Domain(whole, 1_000_000), Domain(other, 1_000_000))


@pytest.mark.parametrize("energy", ["", "none"])
def test_a_counter_that_cannot_be_read_is_none(tmp_path: Path, energy: str) -> None:
    package(tmp_path, "intel-rapl:0", energy)
    (tmp_path / "intel-rapl:1").mkdir()
    assert find_domains(tmp_path) == ()
    assert Meter(find_domains(tmp_path)).joules() is None
    assert find_domains(tmp_path / "nowhere") == ()


def test_joules_are_the_sum_of_what_the_packages_took(tmp_path: Path) -> None:
    one, two = package(tmp_path, "intel-rapl:0", "250000"), package(tmp_path, "intel-rapl:1", "0")
    meter = Meter(find_domains(tmp_path))
    one.write_text("750000")
    two.write_text("250000")
    assert meter.joules() == pytest.approx(0.75)


def test_a_counter_that_went_round_counts_on(tmp_path: Path) -> None:
    """From 900,000 over 1,000,000 to 99,999: 200,000 microjoules."""
    counter = package(tmp_path, "intel-rapl:0", "900000")
    meter = Meter(find_domains(tmp_path))
    counter.write_text("99999")
    assert meter.joules() == pytest.approx(0.2)
