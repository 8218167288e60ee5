import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from artifact.task import Task
from errors import UserError
from measure.statistics import accuracy_difference
from models.metrics import (
    ACCURACY,
    ANSWER_F1,
    CHARACTER_ACCURACY,
    CORRELATION,
    MASKED_ACCURACY,
    MEAN_IOU,
    MULTI_LABEL_F1,
    OBJECT_F1,
    SPAN_F1,
    AnswerTruth,
    Metric,
    TokenTruth,
    TranscriptTruth,
    compare,
    edits,
    metric_for,
    spans,
    token_overlap,
)

Array = np.ndarray[Any, Any]


def logits(values: Any) -> dict[str, Array]:
    return {"logits": np.asarray(values, dtype=np.float32)}


def one_hot(classes: Any, count: int) -> dict[str, Array]:
    """Logits whose best class, along the last axis, is the one given."""
    return logits(np.eye(count)[np.asarray(classes)])


def total(metric: Metric, *examples: tuple[dict[str, Array], Any]) -> Array:
    return np.stack([metric.statistics(outputs, truth) for outputs, truth in examples])


def value(metric: Metric, *examples: tuple[dict[str, Array], Any]) -> float:
    return float(metric.value(total(metric, *examples).sum(axis=0)))


# Comparing


def right_or_wrong(right: Array) -> Array:
    return np.stack((right.astype(np.float64), np.ones(len(right))), axis=1)


@pytest.mark.parametrize(("share", "other"), [(0.9, 0.88), (0.5, 0.9), (1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("examples", [1, 2, 317])
def test_for_an_accuracy_the_interval_is_the_paired_one(share: float, other: float, examples: int) -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.random(examples) < share, random.random(examples) < other
    found = compare(ACCURACY, right_or_wrong(ours), right_or_wrong(theirs))
    expected = accuracy_difference(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), examples)
    assert (found.value, found.reference) == pytest.approx((ours.mean(), theirs.mean()))
    assert found.examples == examples
    for end in ("estimate", "low", "high"):
        assert getattr(found.difference, end) == pytest.approx(getattr(expected, end), abs=1e-12)


def pairs_of(kind: str, random: np.random.Generator, examples: int) -> tuple[Metric, Array, Array]:
    """Statistics of a model and of one slightly worse."""
    if kind == "F1":
        counts = random.integers(0, 4, (examples, 3)).astype(np.float64)
        moved = np.minimum(random.binomial(1, 0.2, examples), counts[:, 0])
        return SPAN_F1, counts + np.stack((-moved, moved * 0, moved), axis=1), counts
    if kind == "IoU":
        union = random.integers(1, 50, (examples, 3)).astype(np.float64)
        both = random.binomial(union.astype(int), 0.8)
        worse = random.binomial(both, 0.97)
        return MEAN_IOU, np.concatenate((worse, union), axis=1), np.concatenate((both, union), axis=1)
    truth = random.normal(2, 1, examples)
    close = truth + random.normal(0, 0.5, examples)
    noisy = close + random.normal(0, 0.4, examples)
    worse, better = (
        total(CORRELATION, *((logits([x]), y) for x, y in zip(side, truth, strict=True))) for side in (noisy, close)
    )
    return CORRELATION, worse, better


@pytest.mark.parametrize("kind", ["F1", "IoU", "correlation"])
def test_the_interval_is_about_the_bootstraps(kind: str) -> None:
    random = np.random.default_rng(11)
    metric, answers, reference = pairs_of(kind, random, 300)
    found = compare(metric, answers, reference)
    draws = random.integers(0, 300, (3000, 300))
    differences = metric.value(answers[draws].sum(axis=1)) - metric.value(reference[draws].sum(axis=1))
    low, high = np.quantile(differences, (0.025, 0.975))
    assert found.difference.low
    assert found.difference.high
    assert found.difference.estimate == pytest.approx(found.value - found.reference)
    pseudo = 2 * 1.96 * 1 / 302  # what the pseudo-pairs may add
    assert (high - low) * 0.85 <= found.difference.high - found.difference.low <= (high - low) * 1.15 + pseudo
    assert abs((found.difference.low + found.difference.high) - (low + high)) / 2 <= 0.25 * (high - low)


@pytest.mark.parametrize("metric", [ACCURACY, SPAN_F1, CORRELATION, MEAN_IOU, CHARACTER_ACCURACY])
def test_equal_answers_differ_by_nothing(metric: Metric) -> None:
    size = {ACCURACY: 2, SPAN_F1: 3, CORRELATION: 7, MEAN_IOU: 4, CHARACTER_ACCURACY: 2}[metric]
    same = np.random.default_rng(2).integers(0, 3, (8, size)).astype(np.float64)
    found = compare(metric, same, same)
    assert (found.difference.estimate, found.value) == (0, found.reference)
    assert found.difference.high == -(found.difference.low or 0) == pytest.approx(1.96 / 10)


@pytest.mark.parametrize(("answers", "reference"), [((3, 2), (2, 2)), ((0, 2), (0, 2))])
def test_what_cannot_be_paired_is_our_bug(answers: tuple[int, int], reference: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(ACCURACY, np.ones(answers), np.ones(reference))


# Values


def test_accuracy_is_the_share_of_best_classes_that_are_right() -> None:
    examples = [(one_hot(1, 3), 1), (one_hot(2, 3), 0), (logits([-5, -1, -2]), 1), (one_hot(0, 3), 0)]
    assert value(ACCURACY, *examples) == 0.75


def test_micro_f1_counts_every_label_by_its_logit() -> None:
    examples = [
        (logits([2, -1, 0.5]), frozenset({0, 1})),  # one found, one invented, one missed
        (logits([-1, -1, -1]), ()),
        (logits([-1, 3, 0.0]), (1, 2)),  # a logit of 0 is a score of one half, which is not above it
    ]
    assert total(MULTI_LABEL_F1, *examples).tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 1]]
    assert value(MULTI_LABEL_F1, *examples) == pytest.approx(4 / 7)


def test_micro_f1_is_sklearns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(4)
    scores, truth = random.normal(size=(60, 5)), random.random((60, 5)) < 0.4
    examples = [(logits(row), frozenset(np.flatnonzero(right))) for row, right in zip(scores, truth, strict=True)]
    assert value(MULTI_LABEL_F1, *examples) == pytest.approx(metrics.f1_score(truth, scores > 0, average="micro"))


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    assert value(MULTI_LABEL_F1, (logits([-1, -1]), ())) == 1
    assert value(MULTI_LABEL_F1, (logits([1, -1]), ())) == 0


@pytest.mark.parametrize("offset", [0.0, 2000.0])
def test_correlation_is_scipys(offset: float) -> None:
    random = np.random.default_rng(5)
    truth = random.normal(offset, 3, 80)
    predicted = (truth * 0.5 + random.normal(0, 2, 80)).astype(np.float32)
    examples = [(logits([x]), float(y)) for x, y in zip(predicted, truth, strict=True)]
    assert value(CORRELATION, *examples) == pytest.approx(stats.pearsonr(predicted, truth).statistic, abs=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3])
def test_a_constant_correlates_with_nothing(constant: float) -> None:
    """Whatever rounding leaves of its variance."""
    for count in (3, 30, 51):
        others = np.random.default_rng(count).normal(size=count)
        assert value(CORRELATION, *((logits([constant]), float(y)) for y in others)) == 0
        assert value(CORRELATION, *((logits([x]), constant) for x in others)) == 0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER O I-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),  # no B- before them
        ("B-PER B-PER I-PER", {("PER", 0, 0), ("PER", 1, 2)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}),  # another type starts a span
        ("PER PER O PER LOC", {("PER", 0, 1), ("PER", 3, 3), ("LOC", 4, 4)}),
        ("B-PER I-PER I-PER", {("PER", 0, 2)}),
        ("S-PER B-LOC I-LOC E-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 3), ("LOC", 4, 4)}),
        ("U-PER U-PER B-LOC L-LOC", {("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 3)}),
        ("B-art-work I-art-work", {("art-work", 0, 1)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_spans_of_tags(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == expected


def test_spans_of_two_part_tags_are_what_a_pattern_finds() -> None:
    """An independent reader: with one type, a span is B or I and the I that follow."""
    random = np.random.default_rng(8)
    for _ in range(300):
        letters = "".join(random.choice(list("BIO"), 12))
        expected = {("X", found.start(), found.end() - 1) for found in re.finditer("[BI]I*", letters)}
        assert spans([letter if letter == "O" else f"{letter}-X" for letter in letters]) == expected


LABELS = ("O", "B-PER", "I-PER", "B-LOC")


def test_span_f1_reads_each_word_at_its_first_token() -> None:
    # [CLS] Ada | Love ##lace | in | Rome [SEP]; what other tokens say does not matter
    truth = TokenTruth((1, 2, 4, 5), ("B-PER", "I-PER", "O", "B-LOC"), LABELS)
    assert total(SPAN_F1, (one_hot([3, 1, 2, 3, 0, 3, 3], 4), truth)).tolist() == [[2, 0, 0]]
    assert total(SPAN_F1, (one_hot([3, 1, 2, 3, 0, 1, 3], 4), truth)).tolist() == [[1, 1, 1]]
    assert total(SPAN_F1, (one_hot([3, 1, 0, 3, 0, 3, 3], 4), truth)).tolist() == [[1, 1, 1]]  # half a name is none


def test_spans_of_words_that_were_cut_off_are_missed() -> None:
    truth = TokenTruth((0, -1, -1), ("B-PER", "O", "B-LOC"), LABELS)
    assert total(SPAN_F1, (one_hot([1], 4), truth)).tolist() == [[1, 0, 1]]
    assert total(SPAN_F1, (one_hot([1], 4), TokenTruth((-1,), ("B-LOC",), LABELS))).tolist() == [[0, 0, 1]]


def test_span_f1_is_micro_averaged() -> None:
    truth = TokenTruth((0, 1), ("B-PER", "B-LOC"), LABELS)
    examples = [(one_hot([1, 3], 4), truth), (one_hot([1, 0], 4), truth), (one_hot([3, 3], 4), truth)]
    # 4 found, 1 invented, 2 missed
    assert value(SPAN_F1, *examples) == pytest.approx(8 / 11)


CONTEXT = "Ada Lovelace wrote the first program in 1843."
OFFSETS = (None, None, (0, 3), (4, 12), (13, 18), (19, 22), (23, 28), (29, 36), (37, 39), (40, 44), None)


def answer(start: dict[int, float], end: dict[int, float], tokens: int = 11) -> dict[str, Array]:
    outputs = {"start_logits": np.zeros(tokens, np.float32), "end_logits": np.zeros(tokens, np.float32)}
    for name, values in (("start_logits", start), ("end_logits", end)):
        for position, logit in values.items():
            outputs[name][position] = logit
    return outputs


@pytest.mark.parametrize(
    ("start", "end", "answers", "expected"),
    [
        ({2: 9}, {3: 9}, ("Ada Lovelace",), 1.0),
        ({2: 9}, {3: 9}, ("ada  LOVELACE!", "nobody"), 1.0),
        ({2: 9}, {2: 9}, ("Ada Lovelace",), 2 / 3),
        ({5: 9}, {7: 9}, ("first program",), 1.0),  # articles do not count
        ({9: 9}, {9: 9}, ("Ada Lovelace",), 0.0),
        ({9: 9, 2: 5}, {3: 8}, ("Ada Lovelace",), 1.0),  # the best start has no good end after it
        ({1: 99, 2: 9}, {3: 9, 10: 99}, ("Ada Lovelace",), 1.0),  # tokens outside the context are no answer
    ],
)
def test_an_answer_is_the_best_span_in_the_context(
    start: dict[int, float], end: dict[int, float], answers: tuple[str, ...], expected: float
) -> None:
    truth = AnswerTruth(CONTEXT, OFFSETS, answers)
    assert value(ANSWER_F1, (answer(start, end), truth)) == pytest.approx(expected)


@pytest.mark.parametrize(("last", "expected"), [(29, 1.0), (30, 0.0)])
def test_an_answer_has_thirty_tokens_at_most(last: int, expected: float) -> None:
    words = tuple(f"w{number}" for number in range(40))
    offsets = tuple((4 * number, 4 * number + 3) for number in range(40))
    truth = AnswerTruth(" ".join(word.ljust(3) for word in words), offsets, (" ".join(words[: last + 1]),))
    outputs = answer({0: 9}, {last: 5}, 40)
    assert (value(ANSWER_F1, (outputs, truth)) == pytest.approx(1)) is bool(expected)


def test_the_best_span_is_what_a_search_of_all_finds() -> None:
    random = np.random.default_rng(9)
    for _ in range(50):
        size = int(random.integers(1, 60))
        outputs = {name: random.normal(size=size).astype(np.float32) for name in ("start_logits", "end_logits")}
        offsets = tuple((n, n + 1) if random.random() < 0.8 else None for n in range(size))
        context = "".join(chr(0x4E00 + n) for n in range(size))
        allowed = [
            (float(outputs["start_logits"][i]) + float(outputs["end_logits"][j]), i, j)
            for i in range(size)
            for j in range(i, min(i + 30, size))
            if offsets[i] and offsets[j]
        ]
        if allowed:
            _, first, last = max(allowed)
            truth = AnswerTruth(context, offsets, (context[first : last + 1],))
            assert value(ANSWER_F1, (outputs, truth)) == 1


@pytest.mark.parametrize(("nothing", "expected"), [(11.0, 1.0), (10.0, 0.0), (9.0, 0.0)])
def test_a_question_without_an_answer_is_right_when_the_first_token_wins(nothing: float, expected: float) -> None:
    outputs = answer({2: 5, 0: nothing}, {3: 5})
    assert value(ANSWER_F1, (outputs, AnswerTruth(CONTEXT, OFFSETS, ()))) == expected


def test_a_context_that_was_cut_off_whole_gives_no_answer() -> None:
    assert value(ANSWER_F1, (answer({}, {}, 3), AnswerTruth(CONTEXT, (None,) * 3, ("Ada",)))) == 0
    assert value(ANSWER_F1, (answer({}, {}, 3), AnswerTruth(CONTEXT, (None,) * 3, ()))) == 1


def test_where_some_questions_have_no_answer_to_say_so_is_wrong_of_others() -> None:
    """As the evaluation of SQuAD 2 counts."""
    place, first = next((place, offset) for place, offset in enumerate(OFFSETS) if offset)
    outputs = answer({0: 9, place: 1}, {0: 9, place: 1})
    truth = AnswerTruth(CONTEXT, OFFSETS, (CONTEXT[first[0] : first[1]],))
    assert value(ANSWER_F1, (outputs, truth)) == 1
    assert value(ANSWER_F1, (outputs, replace(truth, none_is_said=True))) == 0
    assert value(ANSWER_F1, (outputs, AnswerTruth(CONTEXT, OFFSETS, (), none_is_said=True))) == 1


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("the cat sat", "a cat sat down", 0.8),  # 2 common, of 2 and of 3
        ("well-known", "wellknown", 1.0),
        ("no no", "no", 2 / 3),
        ("theory", "ory", 0.0),  # an article is a word
        ("", "x", 0.0),
        ("the", "a", 0.0),
    ],
)
def test_overlap_of_answers_is_squads(text: str, other: str, expected: float) -> None:
    assert token_overlap(text, other) == pytest.approx(expected)


def test_masked_accuracy_is_over_tokens_not_texts() -> None:
    outputs = one_hot([4, 1, 2, 3], 5)
    assert value(MASKED_ACCURACY, (outputs, ((0, 4), (1, 0), (3, 3))), (outputs, ((2, 1),))) == 0.5


def test_mean_iou_of_a_small_map() -> None:
    truth = np.array([[0, 0], [1, 255]])
    outputs = {"logits": np.moveaxis(one_hot([[0, 1], [1, 2]], 4)["logits"], -1, 0)}
    # class 0: 1 of 2; class 1: 1 of 2; class 2 only where nothing counts; class 3 nowhere
    assert MEAN_IOU.statistics(outputs, truth).tolist() == [1, 1, 0, 0, 2, 2, 0, 0]
    assert value(MEAN_IOU, (outputs, truth)) == pytest.approx(0.5)


@pytest.mark.parametrize(("size", "small"), [((8, 12), (2, 3)), ((7, 5), (3, 4)), ((3, 3), (5, 7))])
def test_maps_are_brought_to_the_truths_size_as_torch_does(size: tuple[int, int], small: tuple[int, int]) -> None:
    import torch

    random = np.random.default_rng(6)
    scores, truth = random.normal(size=(4, *small)).astype(np.float32), random.integers(0, 4, size)
    big = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], size=size, mode="nearest")[0]
    found = big.numpy().argmax(axis=0)
    both = [((found == c) & (truth == c)).sum() for c in range(4)]
    union = [((found == c) | (truth == c)).sum() for c in range(4)]
    assert MEAN_IOU.statistics({"logits": scores}, truth).tolist() == [*both, *union]


@pytest.mark.parametrize("wrong", [4, -1])
def test_a_map_with_a_class_the_model_lacks_is_told(wrong: int) -> None:
    with pytest.raises(UserError, match="the model only 4"):
        MEAN_IOU.statistics(logits(np.zeros((4, 1, 2))), np.array([[0, wrong]]))


CAT, DOG, NOTHING = (9, 0, 0), (0, 9, 0), (0, 0, 9)
LEFT, RIGHT, HALF = (0.25, 0.5, 0.4, 0.4), (0.75, 0.5, 0.4, 0.4), (0.25, 0.4, 0.4, 0.2)


def objects(*found: tuple[tuple[float, ...], tuple[float, ...]]) -> dict[str, Array]:
    return {**logits([scores for scores, _ in found]), "pred_boxes": np.array([box for _, box in found], np.float32)}


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([(CAT, LEFT), (DOG, RIGHT)], [(0, *LEFT), (1, *RIGHT)], [2, 0, 0]),
        ([(CAT, LEFT), (NOTHING, RIGHT)], [(0, *LEFT), (1, *RIGHT)], [1, 0, 1]),
        ([(DOG, LEFT)], [(0, *LEFT)], [0, 1, 1]),
        ([(CAT, LEFT), (CAT, LEFT)], [(0, *LEFT)], [1, 1, 0]),  # one truth is found once
        ([(CAT, (0.25, 0.5, 0.4, 0.21))], [(0, *LEFT)], [1, 0, 0]),  # a bit more than half
        ([(CAT, (0.25, 0.5, 0.4, 0.19))], [(0, *LEFT)], [0, 1, 1]),
        ([((0.3, 0, 0), LEFT)], [(0, *LEFT)], [0, 0, 1]),  # best, but not by half
        ([(CAT, (0.25, 0.5, 0, 0))], [(0, 0.25, 0.5, 0, 0)], [0, 1, 1]),
        ([(NOTHING, LEFT)], [], [0, 0, 0]),
        # the surer box comes first, and takes the nearer truth
        ([((5, 0, 0), LEFT), (CAT, (0.3, 0.5, 0.4, 0.4))], [(0, *LEFT)], [1, 1, 0]),
        (
            [(CAT, (0.34, 0.5, 0.4, 0.4)), ((5, 0, 0), (0.15, 0.5, 0.4, 0.4))],
            [(0, *LEFT), (0, 0.35, 0.5, 0.4, 0.4)],
            [2, 0, 0],
        ),
    ],
)
def test_objects_are_matched_once_by_class_and_overlap(found: Any, truth: Any, expected: list[int]) -> None:
    assert OBJECT_F1.statistics(objects(*found), tuple(truth)).tolist() == expected


def test_surer_boxes_choose_first() -> None:
    middle, sure, weak = (0.5, 0.5, 0.4, 0.4), (0.54, 0.5, 0.4, 0.4), (0.46, 0.5, 0.4, 0.4)
    right = (0.6, 0.5, 0.4, 0.4)
    truth = ((0, *middle), (0, *right))
    # the surer takes `middle`; the weaker overlaps `right` too little, wherever it stands in the list
    for boxes in ([(CAT, sure), ((5, 0, 0), weak)], [((5, 0, 0), weak), (CAT, sure)]):
        assert OBJECT_F1.statistics(objects(*boxes), truth).tolist() == [1, 1, 1]


SYMBOLS = ("<pad>", "|", "A", "B", "C")


@pytest.mark.parametrize(
    ("symbols", "text", "expected"),
    [
        ([2, 2, 0, 3, 1, 4, 4], "AB C", 1.0),
        ([2, 0, 2, 2], "AA", 1.0),  # a blank parts two of the same
        ([2, 2], "AA", 0.5),
        ([1, 2, 1, 0, 1, 3, 1], "A B", 1.0),
        ([2, 3, 4, 2, 3], "A", -3.0),
        ([0, 0], "ABC", 0.0),
        ([0], "", 1.0),
    ],
)
def test_transcripts_are_read_greedily(symbols: list[int], text: str, expected: float) -> None:
    truth = TranscriptTruth(text, SYMBOLS, blank=0)
    assert value(CHARACTER_ACCURACY, (one_hot(symbols, 5), truth)) == pytest.approx(expected)


def test_character_accuracy_is_over_characters_not_transcripts() -> None:
    examples = [
        (one_hot([2], 5), TranscriptTruth("B", SYMBOLS, 0)),
        (one_hot([2, 3, 4], 5), TranscriptTruth("ABC", SYMBOLS, 0)),
    ]
    assert value(CHARACTER_ACCURACY, *examples) == 0.75


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("flaw", "lawn", 2), ("añb😀", "anb😀", 1)],
)
def test_edits_are_the_fewest(text: str, other: str, expected: int) -> None:
    assert edits(text, other) == expected


def test_edits_are_those_of_the_plain_recursion() -> None:
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    random = np.random.default_rng(3)
    for _ in range(60):
        text, other = ("".join(random.choice(list("ab"), random.integers(0, 6))) for _ in range(2))
        assert edits(text, other) == slow(text, other)


# Outputs that are not numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("metric", "outputs", "truth"),
    [
        (ACCURACY, one_hot(1, 3), 1),
        (MULTI_LABEL_F1, logits([1, -1]), (0,)),
        (MULTI_LABEL_F1, logits([-1, -1]), ()),
        (SPAN_F1, one_hot([1], 4), TokenTruth((0,), ("B-PER",), LABELS)),
        (SPAN_F1, one_hot([0], 4), TokenTruth((0,), ("O",), LABELS)),
        (ANSWER_F1, answer({2: 9}, {2: 9}), AnswerTruth(CONTEXT, OFFSETS, ("Ada",))),
        (ANSWER_F1, answer({0: 9}, {0: 9}), AnswerTruth(CONTEXT, OFFSETS, ())),
        (MASKED_ACCURACY, one_hot([1], 3), ((0, 1),)),
        (MEAN_IOU, logits(np.eye(2)[:, None, :]), np.array([[0, 1]])),
        (OBJECT_F1, objects((CAT, LEFT)), ((0, *LEFT),)),
        (OBJECT_F1, objects((NOTHING, LEFT)), ()),
        (CHARACTER_ACCURACY, one_hot([2], 5), TranscriptTruth("A", SYMBOLS, 0)),
        (CHARACTER_ACCURACY, one_hot([0], 5), TranscriptTruth("", SYMBOLS, 0)),
    ],
)
def test_an_answer_read_from_no_number_is_wrong(
    metric: Metric, outputs: dict[str, Array], truth: Any, bad: float
) -> None:
    assert value(metric, (outputs, truth)) == 1
    for name, array in outputs.items():
        broken = array.copy()
        broken[..., 0] = bad
        statistics = metric.statistics({**outputs, name: broken}, truth)
        assert np.isfinite(statistics).all()
        assert metric.value(statistics) < 1
        assert statistics.shape == metric.statistics(outputs, truth).shape


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_cannot_be_read_cost_their_share_of_a_correlation(bad: float) -> None:
    examples = [(logits([x]), x) for x in (1.0, 2.0, 4.0)]
    assert value(CORRELATION, *examples, (logits([bad]), 3.0)) == pytest.approx(0.75)
    assert value(CORRELATION, (logits([bad]), 3.0)) == -1


def test_part_of_a_map_that_cannot_be_read_is_wrong_and_the_rest_is_not() -> None:
    scores = np.eye(2)[:, [[0, 1]]]
    scores[0, 0, 0] = np.nan
    assert MEAN_IOU.statistics({"logits": scores}, np.array([[0, 1]])).tolist() == [0, 1, 1, 1]


# Choosing


@pytest.mark.parametrize(
    ("task", "problem", "labels", "metric"),
    [
        (Task.TEXT_CLASSIFICATION, None, 2, ACCURACY),
        (Task.TEXT_CLASSIFICATION, None, 1, CORRELATION),
        (Task.TEXT_CLASSIFICATION, "regression", 1, CORRELATION),
        (Task.TEXT_CLASSIFICATION, "regression", 3, None),
        (Task.TEXT_CLASSIFICATION, "multi_label_classification", 1, MULTI_LABEL_F1),
        (Task.IMAGE_CLASSIFICATION, "single_label_classification", 10, ACCURACY),
        (Task.AUDIO_CLASSIFICATION, None, 10, ACCURACY),
        (Task.TOKEN_CLASSIFICATION, None, 1, SPAN_F1),
        (Task.QUESTION_ANSWERING, None, 2, ANSWER_F1),
        (Task.FILL_MASK, "nonsense", 2, MASKED_ACCURACY),
        (Task.IMAGE_SEGMENTATION, None, 150, MEAN_IOU),
        (Task.OBJECT_DETECTION, None, 91, OBJECT_F1),
        (Task.SPEECH_RECOGNITION, None, 2, CHARACTER_ACCURACY),
        (Task.FEATURE_EXTRACTION, None, 2, None),
        (Task.MODULE, None, 2, None),
    ],
)
def test_each_task_has_its_metric(task: Task, problem: str | None, labels: int, metric: Metric | None) -> None:
    assert metric_for(task, problem=problem, labels=labels) is metric


def test_a_problem_that_nobody_knows_is_named() -> None:
    with pytest.raises(UserError, match="problem_type 'ranking'") as caught:
        metric_for(Task.TEXT_CLASSIFICATION, problem="ranking", labels=2)
    assert "multi_label_classification" in caught.value.hint
