"""Tokens are chosen as transformers chooses them; its own classes are the judge."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from artifact.generate.sampling import Sampler, Sampling, candidates, penalised
from errors import GateFailed, UserError

SETTINGS = [
    Sampling(temperature=0.7),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.0, top_k=5),
    Sampling(temperature=1.3, top_k=50),
    Sampling(temperature=1.0, top_k=10**6),
    Sampling(temperature=1.0, top_p=0.9),
    Sampling(temperature=0.6, top_p=0.01),
    Sampling(temperature=1.0, top_p=0.999),
    Sampling(temperature=1.0, min_p=0.05),
    Sampling(temperature=2.0, min_p=1.0),
    Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.02, repetition_penalty=1.2),
    Sampling(temperature=1.0, top_p=0.5, repetition_penalty=0.7),
]


def by_transformers(logits: NDArray[np.float32], history: list[int], sampling: Sampling) -> NDArray[np.float32]:
    """Scores of the whole vocabulary after transformers' own classes, in the order of `generate`."""
    import torch
    from transformers.generation import logits_process as theirs

    steps: list[Any] = []
    if sampling.repetition_penalty != 1:
        steps.append(theirs.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        steps.append(theirs.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(theirs.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(theirs.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(theirs.MinPLogitsWarper(sampling.min_p))
    ids, scores = torch.tensor([history], dtype=torch.int64), torch.from_numpy(logits.copy())[None]
    for step in steps:
        scores = step(ids, scores)
    return np.asarray(scores[0].numpy())


def by_us(logits: NDArray[np.float32], history: list[int], sampling: Sampling) -> NDArray[np.float32]:
    tokens, scores = candidates(logits, history, sampling)
    assert (np.diff(tokens) > 0).all()
    whole = np.full(len(logits), -np.inf, dtype=np.float32)
    whole[tokens] = scores
    return whole


def kinds_of_logits(random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    size = int(random.integers(3, 3000))
    wide = random.normal(scale=3, size=size)
    some = random.random(size) < 0.3
    some[0] = False
    huge = wide.copy()
    huge[random.integers(size)] = 1e30
    kinds = {
        "peaked": wide,
        "flat": random.normal(scale=0.01, size=size),
        "ties": np.round(wide),
        "barred": np.where(some, -np.inf, wide),
        "huge": huge,
        "heavy": random.standard_cauchy(size) * 10,
        "negative": wide - 100,
    }
    return {name: values.astype(np.float32) for name, values in kinds.items()}


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_the_same_tokens_remain_with_the_same_scores(sampling: Sampling) -> None:
    random = np.random.default_rng(7)
    for _ in range(20):
        for name, logits in kinds_of_logits(random).items():
            history = random.integers(0, len(logits), size=30).tolist()
            ours, expected = by_us(logits, history, sampling), by_transformers(logits, history, sampling)
            np.testing.assert_array_equal(np.sort(ours), np.sort(expected), err_msg=f"{name} of {len(logits)}")
            differing = np.flatnonzero(ours != expected)
            if sampling.top_p < 1:  # torch.sort does not say which of equal scores at the edge go
                assert len(set(penalised(logits, history, sampling.repetition_penalty)[differing].tolist())) <= 1
            else:
                assert len(differing) == 0


@pytest.mark.parametrize("equal", [4, 8, 64])
@pytest.mark.parametrize("top_p", [0.125, 0.25, 0.5, 0.75, 0.875])
def test_at_the_very_edge_of_top_p(equal: int, top_p: float) -> None:
    logits = np.zeros(equal, dtype=np.float32)
    sampling = Sampling(temperature=1, top_p=top_p)
    ours = np.isfinite(by_us(logits, [], sampling))
    assert ours.sum() == np.isfinite(by_transformers(logits, [], sampling)).sum() == math.ceil(equal * top_p)
    assert ours[-1]


@pytest.mark.parametrize("top_p", [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9])
def test_sums_of_tenths_round_as_theirs_do(top_p: float) -> None:
    logits = np.zeros(10, dtype=np.float32)
    sampling = Sampling(temperature=1, top_p=top_p)
    expected = np.isfinite(by_transformers(logits, [], sampling)).sum()
    assert np.isfinite(by_us(logits, [], sampling)).sum() == expected


def test_all_that_equal_the_last_of_top_k_remain() -> None:
    logits = np.array([1, 3, 2, 2, 2, 0], dtype=np.float32)
    tokens, _ = candidates(logits, [], Sampling(temperature=1, top_k=2))
    assert tokens.tolist() == [1, 2, 3, 4]
    many = np.tile(logits, 4000)
    tokens, _ = candidates(many, [], Sampling(temperature=1, top_k=4001))
    assert len(tokens) == 4000 * 4


@pytest.mark.parametrize("top_k", [1, 50, 700, 20_000, 49_151])
@pytest.mark.parametrize("size", [49_151, 49_152])
def test_top_k_of_a_large_vocabulary(size: int, top_k: int) -> None:
    random = np.random.default_rng(top_k)
    for logits in (random.normal(size=size), np.sort(random.normal(size=size)), random.integers(0, 9, size=size)):
        scores = np.asarray(logits, dtype=np.float32)
        tokens, _ = candidates(scores, [], Sampling(temperature=1, top_k=top_k))
        np.testing.assert_array_equal(tokens, np.flatnonzero(scores >= np.sort(scores)[-top_k]))


def test_a_history_counts_once_and_ids_beyond_the_vocabulary_do_not() -> None:
    logits = np.array([2, -2, 0, 5, -np.inf], dtype=np.float32)
    history = [0, 0, 1, 2, 4, 5, 99]
    expected = by_transformers(logits, history, Sampling(temperature=1, repetition_penalty=2.0))
    np.testing.assert_array_equal(penalised(logits, history, 2), expected)
    assert expected.tolist() == [1, -4, 0, 5, -np.inf]
    assert logits.tolist() == [2, -2, 0, 5, -np.inf]
    assert penalised(logits, [], 2) is logits


def test_greedy_is_the_argmax_of_torch_and_takes_the_first_of_equals() -> None:
    import torch

    random = np.random.default_rng(1)
    logits = np.round(random.normal(size=(64, 300))).astype(np.float32)
    chosen = Sampler(Sampling(), 64).choose(logits, [[]] * 64)
    np.testing.assert_array_equal(chosen, torch.from_numpy(logits).argmax(dim=-1).numpy())
    assert chosen.dtype == np.int64
    assert (logits[:, ::-1].argmax(axis=1) != 299 - chosen).any()


def test_greedy_reads_the_history_and_no_filter() -> None:
    logits = np.array([[4, 3, 1]], dtype=np.float32)
    assert Sampler(Sampling(top_k=1, repetition_penalty=2), 1).choose(logits, [[0]]).tolist() == [1]


@pytest.mark.parametrize("sampling", [SETTINGS[0], SETTINGS[2], SETTINGS[5], SETTINGS[8], SETTINGS[10]], ids=str)
def test_tokens_come_as_often_as_they_are_likely(sampling: Sampling) -> None:
    random = np.random.default_rng(3)
    logits = random.normal(scale=1.5, size=40).astype(np.float32)
    scores = by_transformers(logits, [1, 2], sampling).astype(np.float64)
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    draws = 20_000
    sampler = Sampler(sampling, 1)
    counts = np.bincount([int(sampler.choose(logits[None], [[1, 2]])[0]) for _ in range(draws)], minlength=40)
    assert counts[chances == 0].sum() == 0
    often = chances * draws >= 5
    observed, expected = counts[often], chances[often] * draws
    assert len(observed) > 3
    rest = draws - observed.sum()
    observed, expected = np.append(observed, rest), np.append(expected, draws - expected.sum())
    filled = expected > 1e-6
    assert stats.chisquare(observed[filled], expected[filled]).pvalue > 1e-3


def test_a_row_does_not_depend_on_its_batch() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(size=(30, 4, 100)).astype(np.float32)
    sampling = Sampling(temperature=1, top_k=20, seed=11)
    together, alone = Sampler(sampling, 4), Sampler(sampling, 1, numbers=[2])
    rows = np.array([together.choose(step, [[]] * 4) for step in logits])
    assert [int(alone.choose(step[2:3], [[]])[0]) for step in logits] == rows[:, 2].tolist()
    same = np.repeat(logits[:, :1], 2, axis=1)
    both = Sampler(sampling, 2)
    first, second = zip(*(both.choose(step, [[], []]).tolist() for step in same), strict=True)
    assert first != second
    other = Sampler(Sampling(temperature=1, top_k=20, seed=12), 4)
    assert (np.array([other.choose(step, [[]] * 4) for step in logits]) != rows).any()


@pytest.mark.parametrize("sampling", [Sampling(), *SETTINGS], ids=str)
def test_nan_is_an_error(sampling: Sampling) -> None:
    logits = np.ones((2, 3000), dtype=np.float32)
    logits[1, 1234] = np.nan
    with pytest.raises(GateFailed, match=r"NaN.*row 1"):
        Sampler(sampling, 2).choose(logits, [[1], [2]])


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_nothing_is_drawn_from_infinities(sampling: Sampling, value: float) -> None:
    logits = np.full((1, 50), -np.inf if value < 0 else 0, dtype=np.float32)
    logits[0, 3] = value
    with pytest.raises(GateFailed, match="row 0"):
        Sampler(sampling, 1).choose(logits, [[1]])


@pytest.mark.parametrize("size", [3, 255, 256, 257, 512, 1000])
def test_every_token_of_a_large_vocabulary_is_drawn_as_often_as_others(size: int) -> None:
    logits = np.zeros((1, size), dtype=np.float32)
    logits[0, : size // 2] = -np.inf
    sampler = Sampler(Sampling(temperature=1), 1)
    draws = 20 * size
    counts = np.bincount([int(sampler.choose(logits, [[]])[0]) for _ in range(draws)], minlength=size)
    assert counts[: size // 2].sum() == 0
    assert stats.chisquare(counts[size // 2 :]).pvalue > 1e-3


def test_a_barred_token_is_never_drawn() -> None:
    logits = np.array([[-np.inf, 0, -np.inf, 0, -np.inf]], dtype=np.float32)
    sampler = Sampler(Sampling(temperature=1), 1)
    assert {int(sampler.choose(logits, [[]])[0]) for _ in range(300)} == {1, 3}


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"temperature": -1.0}, "--temperature"),
        ({"temperature": 1e-9}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"temperature": float("inf")}, "--temperature"),
        ({"top_k": -1}, "--top-k"),
        ({"top_p": 0.0}, "--top-p"),
        ({"top_p": 1.1}, "--top-p"),
        ({"top_p": float("nan")}, "--top-p"),
        ({"min_p": -0.1}, "--min-p"),
        ({"min_p": 1.1}, "--min-p"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty"),
        ({"repetition_penalty": float("nan")}, "--repetition-penalty"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_what_cannot_be_is_refused_by_its_flag(values: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag) as caught:
        Sampling(**values)
    assert caught.value.hint


def test_shapes_that_do_not_fit_are_refused() -> None:
    sampler = Sampler(Sampling(), 2)
    with pytest.raises(ValueError, match="2 rows"):
        sampler.choose(np.zeros((3, 5), dtype=np.float32), [[], [], []])
    with pytest.raises(ValueError, match="1 histories"):
        sampler.choose(np.zeros((2, 5), dtype=np.float32), [[]])
    with pytest.raises(ValueError, match="1 numbers for 2 rows"):
        Sampler(Sampling(), 2, numbers=[4])
