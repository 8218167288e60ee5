import hashlib
import shutil
from dataclasses import replace
from itertools import chain, cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.examples import read_examples
from artifact.judged import Judged
from artifact.predict.tokens import TextItem, TextLimits
from artifact.tokenizer import text_encoder
from errors import UserError
from measure.workload import (
    INPUTS,
    FromText,
    Inputs,
    Length,
    Workload,
    WorkloadSpec,
    build_inputs,
    load_inputs,
    parse_lengths,
    save_inputs,
)
from tests.conftest import TEXTS
from tests.measure.conftest import LIMITS


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def build(checkpoint: Path, sizes: tuple[int, ...], lengths: tuple[Length, ...], limits: TextLimits = LIMITS) -> Inputs:
    return build_inputs(TEXTS, text_encoder(checkpoint, limits), limits, sizes, lengths, checkpoint)


def test_there_is_a_workload_for_every_size_and_length_and_one_natural_mix(tiny_checkpoint: Path) -> None:
    found = build(tiny_checkpoint, (1, 3), (8, None, 16))
    assert [workload.spec.name for workload in found.workloads] == ["1×8", "3×8", "3×natural", "1×16", "3×16"]
    for workload in found.workloads:
        assert workload.spec.shapes == tuple(batch["input_ids"].shape for batch in workload.batches)
        assert all(array.dtype == np.int64 for batch in workload.batches for array in batch.values())


def test_a_fixed_length_is_filled_with_real_ids_and_nothing_is_padded(tiny_checkpoint: Path, tokenizer: Any) -> None:
    (workload,) = build(tiny_checkpoint, (3,), (50,)).workloads
    (batch,) = workload.batches
    flat = [number for text in TEXTS for number in tokenizer(text)["input_ids"]]
    assert batch["input_ids"].ravel().tolist() == list(islice(cycle(flat), 150))
    assert len(flat) < 150  # so the texts had to be begun again
    assert (batch["attention_mask"] == 1).all()
    assert (batch["token_type_ids"] == 0).all()


@pytest.mark.parametrize("left", [False, True])
def test_the_natural_mix_keeps_the_order_and_pads_to_the_longest(
    tiny_checkpoint: Path, tokenizer: Any, left: bool
) -> None:
    (workload,) = build(tiny_checkpoint, (4,), (None,), replace(LIMITS, pad_left=left)).workloads
    texts = list(islice(cycle(TEXTS), 24))
    tokenizer.padding_side = "left" if left else "right"
    assert len(workload.batches) == 6
    for number, batch in enumerate(workload.batches):
        expected = tokenizer(texts[4 * number : 4 * number + 4], padding=True, return_tensors="np")
        for name in INPUTS:
            np.testing.assert_array_equal(batch[name], expected[name])


def test_long_texts_are_cut_as_transformers_cuts_them(tiny_checkpoint: Path, tokenizer: Any) -> None:
    found = build(tiny_checkpoint, (1,), (5,), replace(LIMITS, max_length_tokens=5))
    expected = [tokenizer(text, truncation=True, max_length=5)["input_ids"] for text in TEXTS]
    assert [item["input_ids"] for item in found.evaluation] == expected


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 6, 7, 100])
def test_fixed_batches_take_every_row_once_in_order(inputs: Inputs, batch_size: int) -> None:
    rows = inputs.evaluation_rows(batch_size)
    assert list(chain.from_iterable(rows)) == list(range(6))
    assert [len(part) for part in rows[:-1]] == [batch_size] * (len(rows) - 1)
    assert 1 <= len(rows[-1]) <= batch_size


def test_served_batches_take_every_row_once_and_shorter_ones_first(tiny_checkpoint: Path, reviews: Path) -> None:
    texts = read_examples(reviews).texts
    found = build_inputs(texts, text_encoder(tiny_checkpoint, LIMITS), LIMITS, (1,), (8,))
    rows = found.evaluation_rows(None)
    assert sorted(chain.from_iterable(rows)) == list(range(400))
    lengths = [[len(found.evaluation[row]["input_ids"]) for row in part] for part in rows]
    assert all(max(one) <= min(next_one) for one, next_one in pairwise(lengths))
    assert all(len(part) <= 32 and max(part) * len(part) <= 512 for part in lengths)
    assert len(rows) > 1


def test_a_batch_holds_the_rows_it_was_asked_for(inputs: Inputs, tokenizer: Any) -> None:
    found = inputs.batch([4, 0], ("attention_mask", "input_ids"))
    expected = tokenizer([TEXTS[4], TEXTS[0]], padding=True, return_tensors="np")
    assert list(found) == ["attention_mask", "input_ids"]
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def test_what_is_saved_comes_back(inputs: Inputs, tmp_path: Path) -> None:
    save_inputs(tmp_path / "inputs.npz", inputs)
    found = load_inputs(tmp_path / "inputs.npz")
    assert found.limits == inputs.limits
    assert [dict(item) for item in found.evaluation] == [dict(item) for item in inputs.evaluation]
    assert [dict(item) for item in found.calibration] == [dict(item) for item in inputs.calibration]
    assert [workload.spec for workload in found.workloads] == [workload.spec for workload in inputs.workloads]
    for one, other in zip(found.workloads, inputs.workloads, strict=True):
        for got, expected in zip(one.batches, other.batches, strict=True):
            assert {name: array.dtype for name, array in got.items()} == dict.fromkeys(INPUTS, np.dtype(np.int64))
            for name in INPUTS:
                np.testing.assert_array_equal(got[name], expected[name])
    assert found.sha256 == inputs.sha256


def test_the_hash_changes_with_any_number_of_any_batch(inputs: Inputs) -> None:
    hashes = {inputs.sha256}
    arrays = [array for workload in inputs.workloads for batch in workload.batches for array in batch.values()]
    for array in arrays:
        for place in np.ndindex(array.shape):
            array[place] += 1
            hashes.add(inputs.sha256)
            array[place] -= 1
    assert len(hashes) == 1 + sum(array.size for array in arrays)


@pytest.mark.parametrize("name", INPUTS)
def test_the_hash_changes_with_any_number_of_any_evaluation_text(inputs: Inputs, name: str) -> None:
    hashes = {inputs.sha256}
    for row, item in enumerate(inputs.evaluation):
        for place in range(len(item[name])):
            values = list(item[name])
            values[place] += 1
            changed = [dict(other) for other in inputs.evaluation]
            changed[row][name] = values
            hashes.add(replace(inputs, evaluation=tuple(changed)).sha256)
    assert len(hashes) == 1 + sum(len(item[name]) for item in inputs.evaluation)


def test_what_is_calibrated_on_has_a_hash_of_its_own(inputs: Inputs) -> None:
    other = replace(inputs, calibration=inputs.calibration[::-1])
    assert other.sha256 == inputs.sha256
    assert other.calibration_sha256 != inputs.calibration_sha256


def test_calibration_batches_are_padded_texts_with_every_input(inputs: Inputs, tokenizer: Any, tmp_path: Path) -> None:
    texts = TEXTS[:3] * 3
    batches = inputs.calibration_batches()
    assert [len(batch["input_ids"]) for batch in batches] == [8, 1]
    for batch, part in zip(batches, (texts[:8], texts[8:]), strict=True):
        expected = tokenizer(list(part), padding=True, return_tensors="np")
        for name in INPUTS:
            np.testing.assert_array_equal(batch[name], expected[name])
    without = replace(inputs, calibration=())
    save_inputs(tmp_path / "without.npz", without)
    assert load_inputs(tmp_path / "without.npz").calibration_batches() == []


@pytest.mark.parametrize("change", [{"pad_id": 1}, {"pad_type_id": 1}, {"pad_left": True}])
def test_the_hash_changes_with_the_padding(inputs: Inputs, change: dict[str, int | bool]) -> None:
    limits = replace(inputs.text_limits, **change)  # type: ignore[arg-type]
    assert replace(inputs, limits=limits).sha256 != inputs.sha256


def test_the_hash_is_the_same_for_the_same_texts(tiny_checkpoint: Path) -> None:
    one, other = (build(tiny_checkpoint, (2,), (4, None)) for _ in range(2))
    assert one.sha256 == other.sha256


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("natural", (None,)),
        ("128", (128,)),
        ("16, 128 ,natural", (16, 128, None)),
        ("16,natural,16,natural", (16, None)),
        ("text", (FromText.IN_TURN,)),
        ("text-overlapped, 16,text,natural", (FromText.OVERLAPPED, 16, FromText.IN_TURN, None)),
    ],
)
def test_lengths_are_read(text: str, lengths: tuple[int | None, ...]) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "16,,32", "16,", "short", "Natural", "1e3", "²", "16,²", "Text", "texts", "text-"]
)
def test_lengths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--lengths has") as caught:
        parse_lengths(text)
    assert "natural, text, text-overlapped" in caught.value.hint


def test_a_length_beyond_the_models_is_refused(tiny_checkpoint: Path) -> None:
    assert build(tiny_checkpoint, (1,), (64,)).workloads[0].spec.shapes == ((1, 64),)
    with pytest.raises(UserError, match=r"--lengths has 65, the model takes at most 64"):
        build(tiny_checkpoint, (1,), (8, 65))


# Workloads that start from raw texts.

FROM_TEXT = (None, FromText.IN_TURN, FromText.OVERLAPPED)


def test_texts_are_those_of_the_natural_mix_at_the_largest_batch_size(tiny_checkpoint: Path) -> None:
    found = build(tiny_checkpoint, (1, 4), FROM_TEXT)
    natural, plain, ahead = found.workloads
    assert [item.spec.name for item in found.workloads] == ["4×natural", "4×text", "4×text-overlapped"]
    rows = list(islice(cycle(TEXTS), 24))
    assert natural.texts == ()
    assert plain.texts == ahead.texts == tuple(tuple(rows[start : start + 4]) for start in range(0, 24, 4))
    for raw in (plain, ahead):
        assert raw.spec.shapes == natural.spec.shapes
        for got, expected in zip(raw.batches, natural.batches, strict=True):
            for name in INPUTS:
                np.testing.assert_array_equal(got[name], expected[name])


def test_a_sample_from_text_is_a_whole_pass() -> None:
    shapes = ((4, 7), (4, 9), (2, 3))
    specs = {way: WorkloadSpec(name="w", batch_size=4, shapes=shapes, from_text=way) for way in FROM_TEXT}
    assert {spec.texts for spec in specs.values()} == {10}
    assert specs[None].sample_shapes == shapes
    assert specs[FromText.IN_TURN].sample_shapes == specs[FromText.OVERLAPPED].sample_shapes == ((10, 9),)
    assert [way for way, spec in specs.items() if spec.is_overlapped] == [FromText.OVERLAPPED]


def test_texts_and_tokenizer_come_back_from_the_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    inputs = build(tiny_checkpoint, (2,), (4, *FROM_TEXT))
    save_inputs(tmp_path / "inputs.npz", inputs)
    found = load_inputs(tmp_path / "inputs.npz")
    assert [item.texts for item in found.workloads] == [item.texts for item in inputs.workloads]
    assert [item.spec for item in found.workloads] == [item.spec for item in inputs.workloads]
    assert found.tokenizer == inputs.tokenizer
    assert found.tokenizer
    assert found.tokenizer.folder == str(tiny_checkpoint)
    content = (tiny_checkpoint / "tokenizer.json").read_bytes()
    assert found.tokenizer.sha256 == hashlib.sha256(content).hexdigest()
    assert found.sha256 == inputs.sha256


def test_without_texts_there_is_no_tokenizer(tiny_checkpoint: Path) -> None:
    assert build(tiny_checkpoint, (2,), (4, None)).tokenizer is None


def test_texts_without_a_tokenizers_folder_are_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="needs the tokenizer's folder"):
        build_inputs(TEXTS, text_encoder(tiny_checkpoint, LIMITS), LIMITS, (2,), (FromText.IN_TURN,))


def by_hand(tokens: int = 7, texts: tuple[tuple[str, ...], ...] = ()) -> Inputs:
    ids = np.array([[2, tokens, 3], [2, 9, 3]], dtype=np.int64)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    row = {"input_ids": [2, 7, 3], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 0]}
    spec = WorkloadSpec(name="2×natural", batch_size=2, shapes=((2, 3),))
    return Inputs((Workload(spec, (batch,), texts),), (row,), LIMITS)


def test_the_hash_of_tokenised_work_is_what_it_was_before_there_were_texts() -> None:
    """Measurements made by earlier versions stay valid; the number was computed by one."""
    assert by_hand().sha256 == "960a594c5557443d069b7f45445d8acf1c298bb5bcee0819ec1e539472af7e8a"
    assert by_hand(tokens=8).sha256 != by_hand().sha256


def test_the_hash_changes_with_any_text_and_with_how_texts_are_batched() -> None:
    ways = [(), (("a", "b"),), (("A", "b"),), (("a",), ("b",)), (("ab",),), (("a", "b", ""),)]
    assert len({by_hand(texts=way).sha256 for way in ways}) == len(ways)


def test_the_hash_changes_with_the_tokenizers_file_only_where_texts_are_run(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A space at its end changes the file and not one number."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))

    def hashes() -> list[str]:
        return [build(copy, (2,), lengths).sha256 for lengths in ((4, None), (4, FromText.IN_TURN))]

    before = hashes()
    with (copy / "tokenizer.json").open("a") as file:
        file.write(" ")
    tokenised, from_text = hashes()
    assert tokenised == before[0]
    assert from_text != before[1]


def test_the_hash_does_not_change_with_the_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    one, other = (build(folder, (2,), FROM_TEXT).sha256 for folder in (tiny_checkpoint, copy))
    assert one == other


def words(*texts: str) -> list[TextItem]:
    return [text.split() for text in texts]


def test_words_are_judged_at_their_first_tokens(tiny_checkpoint: Path, tokenizer: Any, tmp_path: Path) -> None:
    lists = words(*TEXTS, " ".join(TEXTS * 3))
    encoder = text_encoder(tiny_checkpoint, LIMITS)
    found = build_inputs(lists, encoder, LIMITS, (2,), (4, None), judged=Judged.WORD)
    expected = []
    for item in lists:
        numbers = tokenizer(item, is_split_into_words=True, truncation=True, max_length=64).word_ids(0)
        expected.append(tuple(numbers.index(word) if word in numbers else -1 for word in range(len(item))))
    assert found.places == tuple(expected)
    assert -1 in expected[-1]
    assert any(later - before > 1 for before, later in pairwise(expected[1]))  # "dull," has two tokens
    save_inputs(tmp_path / "inputs.npz", found)
    loaded = load_inputs(tmp_path / "inputs.npz")
    assert (loaded.places, loaded.judged, loaded.sha256) == (found.places, Judged.WORD, found.sha256)
    as_texts = build_inputs(lists, encoder, LIMITS, (2,), (4, None))
    assert as_texts.sha256 != found.sha256


@pytest.mark.parametrize("left", [False, True])
def test_what_is_decided_lies_beside_the_padding(tiny_checkpoint: Path, left: bool) -> None:
    """Each token's logits are its id and nothing, so that a word's decision shows which token it was read from."""
    limits, lists = replace(LIMITS, pad_left=left), words("a film", "the best film of the year")
    found = build_inputs(lists, text_encoder(tiny_checkpoint, limits), limits, (2,), (None,), judged=Judged.WORD)
    ids = found.batch([0, 1], ("input_ids",))["input_ids"]
    for row, own in enumerate(np.stack([ids, np.zeros_like(ids)], axis=-1).astype(np.float32)):
        first = [found.evaluation[row]["input_ids"][place] for place in found.places[row]]
        assert found.decided(row, own)[:, 0].tolist() == first


def test_words_are_split_already(tiny_checkpoint: Path) -> None:
    encoder = text_encoder(tiny_checkpoint, LIMITS)
    with pytest.raises(UserError, match="--lengths has text, and these texts are lists of words"):
        build_inputs(words(*TEXTS), encoder, LIMITS, (2,), (FromText.IN_TURN,), tiny_checkpoint, judged=Judged.WORD)
