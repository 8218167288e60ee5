"""Parity by hand: a run that looks its answers up, against a reference written down or answered by a tiny sum."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from artifact.precision import Precision
from artifact.task import ANSWERS, Answer, Task
from artifact.variant import Parity
from exporter.parity import NEAR_TIE_FRACTION, TOLERANCES, Case, Reference, Run, check_parity, example_outputs
from exporter.parity import reference as make_reference
from exporter.subject import BATCH, Axis, Batch, Filling, Input, Outputs, Subject
from models.example_set import ExampleSet

FP32, FP16, INT8, INT4 = Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC, Precision.INT4
CHOICE = Answer(("logits",), {"logits": -1})
TOKENS = Answer(("logits",), {"logits": -1}, per_token=True)
NUMBER = Answer(("logits",), {})
EXPECTED = [[1.0, -1.0], [2.0, 4.0], [-10.0, 5.0], [0.5, 0.25]]
SHAPE = [[3.0, 0.0]]
Given = Mapping[str, Any]


def _arrays(given: Given) -> dict[str, NDArray[np.float32]]:
    return {name: np.array(value, dtype=np.float32) for name, value in given.items()}


def _case(number: int, given: Given, rows: Sequence[int] = (), mask: Sequence[Sequence[int]] | None = None) -> Case:
    """A batch that is known by its number, and what PyTorch is said to answer."""
    expected = _arrays(given)
    batch = {"number": np.full((len(next(iter(expected.values()))), 1), number, dtype=np.int64)}
    if mask is not None:
        batch["attention_mask"] = np.array(mask, dtype=np.int64)
    return Case(batch, expected, tuple(rows))


def _reference(answer: Answer, *batches: Case, **more: Any) -> Reference:
    count = sum(len(case.rows) for case in batches)
    examples = ExampleSet(
        rows=tuple({"number": np.zeros(1, dtype=np.int64)} for _ in range(count)),
        titles=tuple("abcdefghijklmnop"[:count]),
        truth=None,
        padding={},
    )
    empty: dict[str, Any] = {"shapes": (), "alone": (), "padded": (), "left": ()}
    return Reference(answer=answer, inputs="hand-made", examples=examples, batches=batches, **{**empty, **more})


def _run(reference: Reference, changed: Mapping[int, Given | Exception] | None = None) -> Run:
    """PyTorch's own answers, but for the batches of these numbers."""
    shapes = [case for _, case in reference.shapes]
    cases = [*reference.batches, *shapes, *reference.alone, *reference.padded, *reference.left]
    answers: dict[int, Outputs | Exception] = {int(case.batch["number"][0, 0]): case.expected for case in cases}
    for number, given in (changed or {}).items():
        answers[number] = given if isinstance(given, Exception) else _arrays(given)

    def run(batch: Batch) -> Outputs:
        answer = answers[int(batch["number"][0, 0])]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return run


FOUR = _reference(
    CHOICE,
    _case(0, {"logits": EXPECTED[:3]}, (0, 1, 2)),
    _case(1, {"logits": EXPECTED[3:]}, (3,)),
    shapes=(("1×3", _case(2, {"logits": SHAPE})),),
)


def _check(logits: Sequence[Sequence[float]], precision: Precision, shape: Any = SHAPE) -> Parity:
    """Parity of a model that gives these logits for the four examples, and those for the one shape."""
    changed = {0: {"logits": logits[:3]}, 1: {"logits": logits[3:]}, 2: {"logits": shape}}
    return check_parity(_run(FOUR, changed), FOUR, precision).parity


@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_equal_answers_pass(precision: Precision) -> None:
    parity = _check(EXPECTED, precision)
    assert parity.passed
    assert parity.reasons == ()
    assert (parity.inputs, parity.examples, parity.scales) == ("hand-made", 4, {"logits": 10})
    assert (parity.max_error_fraction, parity.p99_error_fraction, parity.shapes_error_fraction) == (0, 0, 0)
    assert (parity.agreement_fraction, parity.flips, parity.flipped, parity.near_ties) == (1, (), 0, 0)
    assert parity.cosine == pytest.approx(1)
    assert parity.shapes == ("1×3",)


def test_figures_are_those_worked_by_hand() -> None:
    """Two of four answers flip, with the reference's leads of 2 and 0.25; one error is 4, one 0.5, six are 0."""
    parity = _check([[1, -1], [6, 4], [-10, 5], [0.5, 0.75]], INT8)
    assert [(flip.example, flip.margin_fraction, flip.near_tie) for flip in parity.flips] == [
        ("b", 0.2, False),
        ("d", 0.025, True),
    ]
    assert (parity.flipped, parity.near_ties, parity.agreement_fraction) == (2, 1, 0.5)
    assert parity.max_error_fraction == 0.4
    assert parity.p99_error_fraction == pytest.approx(0.05 + 0.35 * 0.93)  # ranks 7 and 8 of 8, at 0.99 × 7 = 6.93
    dot = 1 + 1 + 12 + 16 + 100 + 25 + 0.25 + 0.1875
    norms = (1 + 1 + 4 + 16 + 100 + 25 + 0.25 + 0.0625) * (1 + 1 + 36 + 16 + 100 + 25 + 0.25 + 0.5625)
    assert parity.cosine == pytest.approx(dot / norms**0.5)
    assert parity.reasons == ("2 of 4 answers differ (allowed: 1)", f"cosine {dot / norms**0.5:.6f} is below 0.98")


def test_errors_are_shares_of_each_outputs_own_scale() -> None:
    """Boxes lie in 0 to 1, logits reach 100: an error of 0.02 is 2 % of the one and nothing of the other."""
    answer = ANSWERS[Task.OBJECT_DETECTION]
    given = {"logits": [[[100.0, 0.0]]], "pred_boxes": [[[0.5, 0.5, 1.0, -1.0]]]}
    two = _reference(answer, _case(0, given, (0,)))
    for name, passed, fraction in (("logits", False, 0.0002), ("pred_boxes", False, 0.02)):
        off = {key: np.array(value) for key, value in given.items()}
        off[name] = off[name] + np.float32(0.02)
        parity = check_parity(_run(two, {0: off}), two, FP32).parity
        assert parity.scales == {"logits": 100, "pred_boxes": 1}
        assert parity.max_error_fraction == pytest.approx(fraction, rel=1e-3)
        assert parity.passed is passed
    slight = {**given, "logits": [[[100.005, 0.0]]]}
    assert check_parity(_run(two, {0: slight}), two, FP32).parity.passed


def test_the_least_cosine_of_an_output_counts() -> None:
    two = _reference(ANSWERS[Task.OBJECT_DETECTION], _case(0, {"logits": [[[9, 1]]], "pred_boxes": [[[1, 0]]]}, (0,)))
    parity = check_parity(_run(two, {0: {"logits": [[[9, 1]]], "pred_boxes": [[[1, 1]]]}}), two, INT8).parity
    assert parity.cosine == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("error", "passed"), [(0.9e-3, True), (1.1e-3, False)])  # a 10,000th of the scale is 1e-3
def test_the_tolerance_grows_with_the_scale(factor: float, error: float, passed: bool) -> None:
    logits, off = np.array(EXPECTED), np.array(EXPECTED)
    off[1, 0] += error
    scaled = _reference(CHOICE, _case(0, {"logits": logits * factor}, (0, 1, 2, 3)))
    parity = check_parity(_run(scaled, {0: {"logits": off * factor}}), scaled, FP32).parity
    assert parity.passed is passed
    assert parity.max_error_fraction == pytest.approx(error / 10, rel=1e-2)


def test_zero_everywhere_has_the_scale_one() -> None:
    zero = _reference(NUMBER, _case(0, {"logits": [[0.0]]}, (0,)))
    assert check_parity(_run(zero), zero, FP32).parity.passed
    parity = check_parity(_run(zero, {0: {"logits": [[0.5]]}}), zero, FP32).parity
    assert (parity.scales, parity.max_error_fraction, parity.cosine) == ({"logits": 1}, 0.5, 0)


@pytest.mark.parametrize(
    ("precision", "margin", "passed"),
    [
        (FP32, 1e-5, True),  # errors of a 10,000th of the scale may turn a lead of twice that
        (FP32, 2.5e-4, False),
        (FP16, 0.035, False),  # a label that differs is one, however near it was
        (INT8, 0.035, False),  # its errors have no bound, so every answer counts
    ],
)
def test_only_ties_within_fp32s_rounding_are_no_flips(precision: Precision, margin: float, passed: bool) -> None:
    """Ten answers with this lead all flip, of a thousand that fix the scale and the cosine."""
    logits = np.zeros((1010, 2))
    logits[:, 0] = 1
    logits[1000:, 0] = margin
    flipped = logits.copy()
    flipped[1000:] = [[margin / 2 - 1e-6 * margin, margin / 2 + 1e-6 * margin]]
    tied = Reference(
        **{
            **{name: getattr(_reference(CHOICE), name) for name in ("shapes", "alone", "padded", "left")},
            "answer": CHOICE,
            "inputs": "",
            "examples": ExampleSet(({"number": np.zeros(1)},) * 1010, ("title",) * 1010, None, {}),
            "batches": (_case(0, {"logits": logits}, range(1010)),),
        }
    )
    parity = check_parity(_run(tied, {0: {"logits": flipped}}), tied, precision).parity
    differ = [reason for reason in parity.reasons if "answers differ" in reason]
    assert parity.flipped == 10
    if precision is INT8:
        assert differ == []  # 10 of 1010 are within its 5 %
        assert parity.near_ties == 10
    else:
        limit = TOLERANCES[precision].max_error_fraction or 0
        assert parity.near_ties == (10 if margin <= 2 * limit else 0)
        assert (differ == []) is passed
    assert all(flip.near_tie == (parity.near_ties > 0) for flip in parity.flips)


def test_a_quantised_answer_counts_however_small_its_margin() -> None:
    close = _reference(CHOICE, _case(0, {"logits": [[10.0, 9.9], [10.0, 9.9]]}, (0, 1)))
    parity = check_parity(_run(close, {0: {"logits": [[9.9, 10.0], [9.9, 10.0]]}}), close, INT8).parity
    assert parity.near_ties == 2
    assert parity.flips[0].margin_fraction < NEAR_TIE_FRACTION
    assert parity.reasons == ("2 of 2 answers differ (allowed: 1)",)


@pytest.mark.parametrize(
    ("precision", "allowed"),
    [(FP32, 0), (FP16, 1), (Precision.BF16, 2), (INT8, 5), (Precision.INT8_STATIC, 5), (INT4, 10)],
)
def test_each_precision_may_turn_its_share_of_answers(precision: Precision, allowed: int) -> None:
    logits = np.tile([[1.0, 0.0]], (100, 1))
    whole = Reference(
        CHOICE,
        "",
        ExampleSet(({"number": np.zeros(1)},) * 100, ("title",) * 100, None, {}),
        (_case(0, {"logits": logits}, range(100)),),
        *((),) * 4,
    )
    for turned in (allowed, allowed + 1):
        off = logits.copy()
        off[:turned] = off[:turned, ::-1]
        parity = check_parity(_run(whole, {0: {"logits": off}}), whole, precision).parity
        assert any("answers differ" in reason for reason in parity.reasons) is (turned > allowed)
        assert len(parity.flips) == parity.flipped == turned


def test_an_error_in_a_shape_alone_fails_fp32() -> None:
    parity = _check(EXPECTED, FP32, [[3.0, 0.1]])
    assert parity.max_error_fraction == 0
    assert parity.shapes_error_fraction == pytest.approx(0.01)
    assert parity.reasons == ("the largest error on the shapes is 0.01 of the scale (allowed: 0.0001)",)


@pytest.mark.parametrize("precision", [FP32, INT8])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_fail(precision: Precision, bad: float) -> None:
    one = _check([*EXPECTED[:3], [bad, 0.25]], precision)
    every = _check([[bad, bad]] * 4, precision, [[bad, bad]])
    for parity in (one, every):
        assert not parity.passed
        assert any("not finite" in reason for reason in parity.reasons)
        assert np.isfinite([parity.max_error_fraction, parity.p99_error_fraction, parity.cosine]).all()
        assert parity.max_error_fraction > 1e300
    assert every.shapes == ()
    assert every.agreement_fraction == 0  # what is no number is nobody's answer
    assert one.agreement_fraction == 0.75


@pytest.mark.parametrize("precision", [FP32, INT8])
@pytest.mark.parametrize("labels", [1, 3])
def test_another_number_of_labels_fails(precision: Precision, labels: int) -> None:
    parity = _check([[1.0] * labels] * 4, precision)
    assert not parity.passed
    assert f"a batch of the examples gives 'logits' the shape (3, {labels}), not (3, 2)" in parity.reasons


def test_another_shape_of_one_batch_fails() -> None:
    assert _check(EXPECTED, INT8, [[3.0]]).reasons == ("shape 1×3 gives 'logits' the shape (1, 1), not (1, 2)",)


def test_an_output_that_is_missing_is_a_reason() -> None:
    two = _reference(ANSWERS[Task.OBJECT_DETECTION], _case(0, {"logits": [[[9, 1]]], "pred_boxes": [[[1, 0]]]}, (0,)))
    parity = check_parity(_run(two, {0: {"logits": [[[9, 1]]]}}), two, INT8).parity
    assert parity.reasons[0] == "a batch of the examples gives no 'pred_boxes'"


@pytest.mark.parametrize(("fails_on", "reason"), [(2, "shape 1×3 does not run: no"), (1, "a batch of the examples do")])
def test_a_batch_that_does_not_run_is_a_reason(fails_on: int, reason: str) -> None:
    answered = check_parity(_run(FOUR, {fails_on: RuntimeError("no such kernel")}), FOUR, INT8)
    assert not answered.parity.passed
    assert any(found.startswith(reason) for found in answered.parity.reasons)
    assert len(answered.outputs) == 4
    assert bool(np.isnan(answered.outputs[3]["logits"]).all()) is (fails_on == 1)
    assert answered.outputs[0]["logits"].tolist() == EXPECTED[0]


def test_answers_of_zero_have_no_direction() -> None:
    parity = _check([[0.0, 0.0]] * 4, INT8)
    assert parity.cosine == 0
    assert not parity.passed


def test_padded_positions_of_answers_for_each_token_mean_nothing() -> None:
    """Row 0 has three tokens, row 1 one; what stands at the padding neither counts nor sets the scale."""
    expected = np.array([[[1, 0], [0, 2], [4, 0]], [[0, 1], [900, 900], [900, 900]]], dtype=np.float32)
    mask = [[1, 1, 1], [1, 0, 0]]
    tokens = _reference(TOKENS, _case(0, {"logits": expected}, (0, 1), mask))
    off = expected.copy()
    off[1, 1:] = [[-5, 7], [7, -5]]
    answered = check_parity(_run(tokens, {0: {"logits": off}}), tokens, FP32)
    assert answered.parity.passed
    assert answered.parity.scales == {"logits": 4}
    assert [output["logits"].tolist() for output in answered.outputs] == [expected[0].tolist(), [[0, 1]]]
    off[0, 2] = [1, 3]
    parity = check_parity(_run(tokens, {0: {"logits": off}}), tokens, INT8).parity
    assert [(flip.example, flip.margin_fraction) for flip in parity.flips] == [("a [logits 2]", 1.0)]
    assert parity.agreement_fraction == 0.75  # of four tokens


def test_a_token_padded_on_the_left_is_found_where_it_is() -> None:
    tokens = _reference(TOKENS, _case(0, {"logits": [[[900, 0], [1, 0]]]}, (0,), [[0, 1]]))
    assert example_outputs(TOKENS, tokens.batches[0].expected, tokens.batches[0])[0]["logits"].tolist() == [[1, 0]]


def test_independent_labels_are_each_a_choice() -> None:
    """Of six choices one turns from yes to no and one from no to yes; which label leads does not matter."""
    answer = Answer(("logits",), {"logits": -1}, independent=True)
    several = _reference(answer, _case(0, {"logits": [[4, 1, -2], [0.1, -3, 2]]}, (0, 1)))
    parity = check_parity(_run(several, {0: {"logits": [[1, 4, 2], [-0.1, -3, 2]]}}), several, INT8).parity
    assert [(flip.example, flip.margin_fraction, flip.near_tie) for flip in parity.flips] == [
        ("a [logits 2]", 0.5, False),
        ("b [logits 0]", pytest.approx(0.025), True),
    ]
    assert parity.agreement_fraction == pytest.approx(4 / 6)


def test_one_logit_is_a_choice_by_its_sign() -> None:
    one = _reference(CHOICE, _case(0, {"logits": [[4.0], [-1.0], [2.0]]}, (0, 1, 2)))
    parity = check_parity(_run(one, {0: {"logits": [[1.0], [1.0], [2.0]]}}), one, INT8).parity
    assert [(flip.example, flip.margin_fraction) for flip in parity.flips] == [("b", 0.25)]
    assert parity.agreement_fraction == pytest.approx(2 / 3)


def test_a_map_has_its_classes_on_the_second_axis() -> None:
    """Two classes of 1×3 pixels; the middle pixel turns."""
    answer = ANSWERS[Task.IMAGE_SEGMENTATION]
    drawn = _reference(answer, _case(0, {"logits": [[[[5, 3, 1]], [[1, 1, 2]]]]}, (0,)))
    parity = check_parity(_run(drawn, {0: {"logits": [[[[5, 3, 1]], [[1, 4, 2]]]]}}), drawn, INT8).parity
    assert [(flip.example, flip.margin_fraction) for flip in parity.flips] == [("a [logits 1]", 0.4)]
    assert parity.agreement_fraction == pytest.approx(2 / 3)


def test_start_and_end_are_two_choices() -> None:
    answer = ANSWERS[Task.QUESTION_ANSWERING]
    given = {"start_logits": [[3.0, 1.0]], "end_logits": [[0.0, 2.0]]}
    asked = _reference(answer, _case(0, given, (0,), [[1, 1]]))
    parity = check_parity(_run(asked, {0: {**given, "end_logits": [[2.0, 0.0]]}}), asked, INT8).parity
    assert parity.agreement_fraction is not None
    assert [flip.example for flip in parity.flips] == ["a [end_logits 0]"]


def test_features_have_no_answer_to_agree_in() -> None:
    plain = _reference(NUMBER, _case(0, {"logits": [[1.0, 2.0]]}, (0,)))
    parity = check_parity(_run(plain, {0: {"logits": [[1.1, 2.0]]}}), plain, INT8).parity
    assert (parity.agreement_fraction, parity.flips, parity.passed) == (None, (), True)


def _three(**more: Any) -> Reference:
    """Two examples together, each alone, padded, and padded on the left; the scale is 10."""
    return _reference(
        CHOICE,
        _case(0, {"logits": [[10.0, 0.0], [1.0, 2.0]]}, (0, 1)),
        alone=(_case(1, {"logits": [[10.0, 0.0]]}, (0,)), _case(2, {"logits": [[1.0, 2.0]]}, (1,))),
        padded=(_case(3, {"logits": [[10.0, 0.0], [1.0, 2.0]]}, (0, 1)),),
        left=(_case(4, {"logits": [[9.0, 0.0], [1.0, 2.0]]}, (0, 1)),),
        **more,
    )


def test_invariance_is_worked_by_hand() -> None:
    found = check_parity(_run(_three()), _three(), FP32).parity.invariance
    assert found is not None
    assert (found.examples, found.alone_error_fraction, found.alone_changed) == (2, 0, 0)
    assert (found.padded_error_fraction, found.left_error_fraction) == (0, 0)


@pytest.mark.parametrize(
    ("number", "given", "figures", "reason"),
    [
        (2, [[3.0, 2.0]], (0.2, 1, 0, 0), "what shares a batch changes answers by 0.2 of the scale, in PyTorch by 0"),
        (3, [[10.0, 0.0], [1.0, 5.0]], (0, 0, 0.3, 0), "padding changes answers by 0.3 of the scale, in PyTorch by 0"),
        (4, [[9.0, 1.0], [1.0, 2.0]], (0, 0, 0, 0.1), "the largest error on left-padded examples is 0.1 of the scale"),
    ],
)
def test_a_run_that_depends_on_its_batch_fails_where_errors_are_bounded(
    number: int, given: list[list[float]], figures: tuple[float, int, float, float], reason: str
) -> None:
    run = _run(_three(), {number: {"logits": given}})
    for precision in (FP32, INT8):
        parity = check_parity(run, _three(), precision).parity
        found = parity.invariance
        assert found is not None
        assert found.alone_error_fraction == pytest.approx(figures[0])
        assert found.alone_changed == figures[1]
        assert found.padded_error_fraction == pytest.approx(figures[2])
        assert found.left_error_fraction == pytest.approx(figures[3])
        assert any(text.startswith(reason) for text in parity.reasons) is (precision is FP32)
        assert parity.passed is (precision is INT8)


def test_a_variant_may_depend_on_its_batch_as_pytorch_does() -> None:
    """A model with a mean over the batch in it is exported as it is."""
    depends = _reference(
        CHOICE, _case(0, {"logits": [[10.0, 0.0]]}, (0,)), alone=(_case(1, {"logits": [[7.0, 0.0]]}, (0,)),)
    )
    assert check_parity(_run(depends), depends, FP32).parity.passed
    parity = check_parity(_run(depends, {1: {"logits": [[6.0, 0.0]]}}), depends, FP32).parity
    assert parity.reasons == ("what shares a batch changes answers by 0.4 of the scale, in PyTorch by 0.3",)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (2, "a batch padded or split otherwise does"),
        (3, "a batch padded or split otherwise does"),
        (4, "a batch padded on"),
    ],
)
def test_a_probe_that_does_not_run_is_a_reason(number: int, reason: str) -> None:
    parity = check_parity(_run(_three(), {number: ValueError("no")}), _three(), INT8).parity
    assert len(parity.reasons) == 1
    assert parity.reasons[0].startswith(reason)


class _Sum(torch.nn.Module):
    """A row's logits are the sum of its ids and their number; padding does not count."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.stack([(input_ids * attention_mask).sum(1), attention_mask.sum(1)], dim=1)}


SEQUENCE = Axis("sequence", (1, 7, 5, 30), most=30)
SUM = Subject(
    name="Sum",
    task=Task.TEXT_CLASSIFICATION,
    module=_Sum(),
    inputs=(
        Input("input_ids", "int64", (BATCH, SEQUENCE), Filling.IDS, np.arange(1, 9)),
        Input("attention_mask", "int64", (BATCH, SEQUENCE), Filling.MASK),
    ),
    outputs=("logits",),
    is_transformers=False,
)


def _texts(lengths: Sequence[int]) -> ExampleSet:
    return ExampleSet(
        rows=tuple(
            {"input_ids": np.full(length, length), "attention_mask": np.ones(length, dtype=np.int64)}
            for length in lengths
        ),
        titles=tuple(f"text {number}" for number in range(len(lengths))),
        truth=None,
        padding={"input_ids": 0, "attention_mask": 0},
    )


def _sums(batch: Batch) -> Outputs:
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {"logits": np.stack([(ids * mask).sum(1), mask.sum(1)], axis=1).astype(np.float32)}


def test_the_reference_answers_everything_variants_are_compared_on() -> None:
    made = make_reference(SUM, CHOICE, _texts([*range(1, 20), 25]), "numbers")
    assert [case.rows for case in made.batches] == [tuple(range(8)), tuple(range(8, 16)), (16, 17, 18, 19)]
    assert [case.batch["input_ids"].shape for case in made.batches] == [(8, 8), (8, 16), (4, 25)]
    assert [name for name, _ in made.shapes] == ["1×1", "1×7", "3×5", "2×30"]
    probed = np.linspace(0, 19, 16).round().astype(int).tolist()
    assert [case.rows for case in made.alone] == [(row,) for row in probed]
    assert [case.rows for case in made.left] == [tuple(probed[:8]), tuple(probed[8:])]
    assert [case.rows for case in made.padded] == [tuple(probed[:8])]  # 25 + 8 is more than the model takes
    longest = max(probed[:8]) + 1
    assert made.padded[0].batch["input_ids"].shape == (8, longest + 8)
    assert made.left[0].batch["attention_mask"][0].tolist() == [0] * (longest - 1) + [1]
    for case in (*made.batches, *made.alone, *made.padded, *made.left, *(case for _, case in made.shapes)):
        assert case.expected["logits"].tolist() == _sums(case.batch)["logits"].tolist()
    parity = check_parity(_sums, made, FP32).parity
    assert parity.passed
    assert parity.scales == {"logits": 625}
    assert parity.invariance is not None
    assert parity.invariance.examples == 16


def test_a_run_that_shares_among_its_batch_is_caught() -> None:
    """It adds a hundredth of the batch's mean, so that answers alone differ from those together."""
    made = make_reference(SUM, NUMBER, _texts([2, 4]), "numbers")

    def run(batch: Batch) -> Outputs:
        logits = _sums(batch)["logits"]
        return {"logits": logits + np.float32(0.01) * logits.mean(axis=0)}

    parity = check_parity(run, made, FP32).parity
    found = parity.invariance
    assert found is not None
    # sums are 4 and 16: together 0.1 is added to both, alone 0.04 and 0.16
    assert found.alone_error_fraction == pytest.approx(0.06 / 16, rel=1e-3)
    assert found.padded_error_fraction == pytest.approx(0, abs=1e-6)
    assert any("what shares a batch" in reason for reason in parity.reasons)


def test_a_run_that_heeds_padding_is_caught() -> None:
    made = make_reference(SUM, NUMBER, _texts([2, 4]), "numbers")

    def run(batch: Batch) -> Outputs:
        return {"logits": _sums(batch)["logits"] + np.float32(0.1) * (batch["attention_mask"].shape[1] - 4)}

    found = check_parity(run, made, FP32).parity.invariance
    assert found is not None
    assert found.padded_error_fraction == pytest.approx(0.8 / 16, rel=1e-3)  # eight positions more
    assert found.alone_error_fraction == pytest.approx(0.2 / 16, rel=1e-3)  # the first text is two tokens shorter
    assert found.left_error_fraction == pytest.approx(0, abs=1e-6)


def test_a_run_that_counts_positions_from_the_left_is_caught() -> None:
    made = make_reference(SUM, NUMBER, _texts([2, 4]), "numbers")

    def run(batch: Batch) -> Outputs:
        first = batch["attention_mask"].argmax(axis=1)[:, None]
        return {"logits": _sums(batch)["logits"] + first.astype(np.float32)}

    parity = check_parity(run, made, FP32).parity
    assert parity.invariance is not None
    assert parity.invariance.left_error_fraction == pytest.approx(2 / 16)
    assert parity.reasons == ("the largest error on left-padded examples is 0.125 of the scale (allowed: 0.0001)",)


def test_no_more_is_kept_of_the_reference_than_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight texts have 16 logits, so that the second batch goes beyond 20 and is the last."""
    monkeypatch.setattr("exporter.parity.REFERENCE_ELEMENTS", 20)
    made = make_reference(SUM, CHOICE, _texts(range(1, 25)), "numbers")
    assert len(made.batches) == 2
    assert (len(made.examples), made.examples.titles[-1]) == (16, "text 15")
    assert max(row for case in made.alone for row in case.rows) == 15
    assert check_parity(_sums, made, FP32).parity.examples == 16


def test_without_a_mask_nothing_is_padded() -> None:
    bare = Subject(
        "Net", Task.MODULE, torch.nn.Flatten(), (Input("input", "float32", (BATCH, 2), Filling.NORMAL),), ("output",)
    )
    rows = tuple({"input": np.full(2, value, dtype=np.float32)} for value in (1, 2))
    made = make_reference(bare, Answer(("output",), {}), ExampleSet(rows, ("one", "two"), None, {}), "numbers")
    assert (made.padded, made.left) == ((), ())
    parity = check_parity(lambda batch: {"output": batch["input"]}, made, FP32).parity
    assert parity.passed
    assert parity.invariance is not None
    assert (parity.invariance.padded_error_fraction, parity.invariance.left_error_fraction) == (None, None)


def test_emulated_arithmetic_is_recorded() -> None:
    assert check_parity(_run(FOUR), FOUR, FP16, emulated=True).parity.emulated
    assert not check_parity(_run(FOUR), FOUR, FP16).parity.emulated
