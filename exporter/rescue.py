"""Selective quantisation: give the layers that do most damage back to fp32 until the gate passes or it cannot pay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from artifact.precision import Precision
from artifact.variant import Kept
from exporter.derive import Choice, Material, derive
from exporter.sessions import open_file, open_graph

LEAST_MACS_FRACTION = 0.5
"""With less of the multiply-adds in fewer bits, a variant has lost what it was made for."""

DAMAGE_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Damage:
    """How far the outputs move when this layer alone is quantised: root mean square, as a share of their own."""

    layer: str
    error_fraction: float


def rank_by_damage(
    precision: Precision, material: Material, choice: Choice, tell: Callable[[str], None]
) -> tuple[Damage, ...]:
    """Quantise each layer alone and see what it does to the fp32 graph's outputs; the worst first."""
    batches = material.observed[:DAMAGE_BATCHES]
    fp32 = open_file(material.fp32)
    expected = [fp32.answer(batch) for batch in batches]
    found = []
    for number, layer in enumerate(choice.layers, start=1):
        tell(f"damage of layer {number} of {len(choice.layers)}")
        graph, _ = derive(precision, material, Choice((layer,), choice.calibration))
        session = open_graph(graph)
        error = max(_distance(session.answer(batch), known) for batch, known in zip(batches, expected, strict=True))
        found.append(Damage(layer, error))
    return tuple(sorted(found, key=lambda damage: -damage.error_fraction))


def _distance(found: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> float:
    """Largest root mean square error over the outputs, each as a share of its own root mean square."""
    shares = []
    for name, array in known.items():
        error = float(np.sqrt(np.mean((found[name].astype(np.float64) - array) ** 2)))
        shares.append(error / (float(np.sqrt(np.mean(array.astype(np.float64) ** 2))) or 1.0))
    return float(np.nan_to_num(max(shares), nan=np.inf))


def returned(damages: Sequence[Damage], count: int) -> tuple[Kept, ...]:
    """The `count` worst layers, with why they are kept."""
    return tuple(
        Kept(name=damage.layer, why=f"quantised alone it moves the outputs by {damage.error_fraction:.1%}")
        for damage in damages[:count]
    )


def fewest(passes: Callable[[int], bool], most: int) -> int | None:
    """The least count from 1 to `most` that passes, found by doubling and then halving the gap; `None` if none does.

    Assumes that more layers in fp32 never hurt; what it returns has been tried and passed.
    """
    failed, count = 0, 1
    while not passes(min(count, most)):
        failed = min(count, most)
        if failed == most:
            return None
        count *= 2
    good = min(count, most)
    while good - failed > 1:
        middle = (good + failed) // 2
        good, failed = (middle, failed) if passes(middle) else (good, middle)
    return good


def most_to_return(damages: Sequence[Damage], macs: Mapping[str, int]) -> int:
    """How many of the worst layers may go back to fp32 before it no longer pays."""
    total = sum(macs.get(damage.layer, 0) for damage in damages)
    left = np.array([sum(macs.get(damage.layer, 0) for damage in damages[count:]) for count in range(len(damages))])
    pays = left >= LEAST_MACS_FRACTION * total
    return int(pays.sum()) - 1 if total else max(0, len(damages) - 1)
