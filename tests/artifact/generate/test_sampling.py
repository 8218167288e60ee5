"""What may be drawn, beside transformers' own processors, and how often it is."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from artifact.generate.sampling import Sampler, Sampling, kept, penalized
from errors import UserError

SETTINGS = (
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 2.5, "top_k": 7},
    {"temperature": 1.0, "top_k": 10_000},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.2, "top_p": 0.05},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.95},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.0, "top_k": 30, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 1.3},
    {"temperature": 1.0, "repetition_penalty": 0.7},
)


def processors(settings: dict[str, Any]) -> LogitsProcessorList:
    """transformers' own, in the order in which `generate` has them."""
    made = LogitsProcessorList()
    if settings.get("repetition_penalty", 1.0) != 1:
        made.append(RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    made.append(TemperatureLogitsWarper(settings["temperature"]))
    if settings.get("top_k"):
        made.append(TopKLogitsWarper(settings["top_k"]))
    if settings.get("top_p", 1.0) < 1:
        made.append(TopPLogitsWarper(settings["top_p"]))
    if settings.get("min_p"):
        made.append(MinPLogitsWarper(settings["min_p"]))
    return made


def random_logits(number: int) -> NDArray[np.float32]:
    random = np.random.default_rng(number)
    size = int(random.choice([5, 300, 6_000]))
    logits: NDArray[np.float32] = (random.standard_normal(size) * random.choice([0.1, 3, 20])).astype(np.float32)
    if number % 5 == 1:
        logits[random.integers(size)] = 1e4  # one that is all but certain
    if number % 5 == 2:
        logits[random.random(size) < 0.5] = -np.inf
        logits[0] = 0.5
    return logits


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_may_be_drawn_is_what_transformers_leaves(settings: dict[str, Any]) -> None:
    for number in range(60):
        logits = random_logits(number)
        history = np.random.default_rng(number).integers(0, len(logits), 9).tolist()
        expected = processors(settings)(torch.tensor([history]), torch.from_numpy(logits)[None].clone())
        wanted = torch.softmax(expected.double(), dim=-1)[0].numpy()
        sampling = Sampling(**settings)
        tokens, shares = kept(penalized(logits, history, sampling.repetition_penalty), sampling)
        found = np.zeros_like(wanted)
        found[tokens] = shares
        # float32 sums may put one token on the other side of an edge
        assert np.abs(found - wanted).sum() < 2e-3 or np.count_nonzero((found > 0) != (wanted > 0)) <= 1
        assert found[wanted.argmax()] > 0


def test_ties_of_the_last_of_top_k_all_stay() -> None:
    tokens, shares = kept(np.array([1, 3, 2, 2, 0], dtype=np.float32), Sampling(temperature=1.0, top_k=2))
    assert sorted(tokens.tolist()) == [1, 2, 3]
    assert shares.sum() == pytest.approx(1)


def test_tokens_are_drawn_as_often_as_is_probable() -> None:
    logits = np.array([[0.0, 1.0, 2.0, -1.0, 0.5]], dtype=np.float32)
    sampler = Sampler(Sampling(temperature=1.0, top_k=4, seed=3), rows=1)
    counts = np.bincount([int(sampler.choose(logits, [[]])[0]) for _ in range(4_000)], minlength=5)
    assert counts[3] == 0
    shares = np.exp(logits[0, [0, 1, 2, 4]].astype(np.float64))
    assert scipy.stats.chisquare(counts[[0, 1, 2, 4]], 4_000 * shares / shares.sum()).pvalue > 1e-3


def test_a_row_is_drawn_alike_in_any_batch() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    three, one = Sampler(Sampling(temperature=1.0, seed=5), 3), Sampler(Sampling(temperature=1.0, seed=5), 1)
    together = [three.choose(logits, [[], [], []])[0] for _ in range(20)]
    assert together == [one.choose(logits[:1], [[]])[0] for _ in range(20)]
    assert len(set(together)) > 3


def test_the_likeliest_is_the_first_of_equals() -> None:
    logits = np.array([[0.0, 2.0, 2.0]], dtype=np.float32)
    assert Sampler(Sampling(), 1).choose(logits, [[]]).tolist() == [1]


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="logits are no numbers"):
        Sampler(Sampling(), 1).choose(np.array([[np.nan, 1.0]], dtype=np.float32), [[]])


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ({"temperature": -1.0}, "--temperature"),
        ({"top_k": -1}, "--top-k"),
        ({"top_p": 0.0}, "--top-p"),
        ({"min_p": 1.5}, "--min-p"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_values_without_a_meaning_are_refused(setting: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=f"^{flag} is"):
        Sampling(**setting)
