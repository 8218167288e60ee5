"""What is reckoned of logits, inputs and weights in parts, beside PyTorch's own whole sums."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, kl_div

import exporter.language.blocks
import exporter.language.gate
import exporter.language.moments
import exporter.language.reference
from artifact.generate.decoder import Decoder
from artifact.language import Prediction
from errors import UserError
from exporter.language.blocks import in_blocks
from exporter.language.gate import prediction
from exporter.language.memory import lay_aside, weights_of
from exporter.language.moments import alike, second_moments
from exporter.language.passages import Passages
from exporter.language.reference import Reference, kept
from models.checkpoint import load_model
from tests.conftest import small_files

WORDS = 50
ROWS = tuple(tuple((7 * place + 3 * step) % WORDS for step in range(place + 2)) for place in range(12))


class Teller:
    """A model and a decoder whose logits are drawn once for each token and the number of its row's tokens."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        self._logits = scale * torch.randn(64, WORDS, WORDS, generator=torch.Generator().manual_seed(seed))

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: Any) -> Any:
        return SimpleNamespace(logits=self._logits[attention_mask.sum(dim=1)[:, None], input_ids])

    def every(self, ids: np.ndarray, mask: np.ndarray, inputs: Any) -> np.ndarray:
        logits: torch.Tensor = self(torch.from_numpy(ids), torch.from_numpy(mask)).logits
        return logits.numpy()


def predicted(model: Teller, decoder: Teller) -> Prediction:
    return prediction(cast(Decoder, decoder), Reference(model, Passages("rows", ROWS)))


@pytest.mark.parametrize(("tokens", "piece"), [(256, 64), (20, 64), (256, 3)])
def test_predictions_are_pytorchs_own_sums(
    tokens: int, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch and in many, compared at once and in pieces, said anew or read from a file, which is gone
    afterwards."""
    monkeypatch.setattr(exporter.language.reference, "BATCH_TOKENS", tokens)
    monkeypatch.setattr(exporter.language.gate, "PIECE", piece)
    model, decoder = Teller(0), Teller(1, 2.0)
    found = predicted(model, decoder)
    with kept(model, Passages("rows", ROWS), tmp_path) as answers:
        assert [prediction(cast(Decoder, decoder), answers) for _ in range(2)] == [found, found]
    assert not list(tmp_path.iterdir())
    mine, theirs, targets = [], [], []
    for row in ROWS:
        ids, mask = torch.tensor([row]), torch.ones(1, len(row), dtype=torch.int64)
        theirs.append(model(ids, mask).logits[0, :-1])
        mine.append(decoder(ids, mask).logits[0, :-1])
        targets.append(ids[0, 1:])
    told, wanted, target = torch.cat(mine), torch.cat(theirs), torch.cat(targets)
    assert found.tokens == len(target)
    assert found.perplexity == pytest.approx(float(cross_entropy(told, target).exp()), rel=1e-5)
    assert found.reference == pytest.approx(float(cross_entropy(wanted, target).exp()), rel=1e-5)
    apart = kl_div(told.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")
    assert found.divergence_nats.value == pytest.approx(float(apart), rel=1e-5)
    agreed = float((told.argmax(-1) == wanted.argmax(-1)).float().mean())
    assert found.agreement_fraction.value == pytest.approx(agreed)
    assert found.error_fraction == pytest.approx(float((told - wanted).abs().max() / wanted.abs().max()))


def test_no_numbers_are_a_blind_guess_of_infinite_error() -> None:
    found = predicted(Teller(0), Teller(1, float("nan")))
    assert found.perplexity == pytest.approx(WORDS, rel=1e-5)
    assert found.error_fraction == np.inf


@pytest.mark.parametrize("room", [0, 1000, 15_000])
def test_a_full_disk_is_said(room: int, tmp_path: Path) -> None:
    """However much was written before: all of it is 15,600 bytes."""
    told = Passages("rows", ROWS)
    with small_files(room), pytest.raises(UserError, match="cannot write"), kept(Teller(0), told, tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are told nothing")
def test_weights_that_are_laid_aside_leave_memory_and_are_read_again(tmp_path: Path) -> None:
    """Eight million of them, from a file on a disk; others stay as they are."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    if mounts[max((mount for mount in mounts if str(tmp_path).startswith(mount)), key=len)] == "tmpfs":
        pytest.skip("what is in memory alone cannot be read again")
    lay_aside([(made := np.ones(1_000_000))])
    assert made.sum() == len(made)
    save_file({"weight": torch.arange(8_000_000, dtype=torch.float32)}, tmp_path / "weights.safetensors")
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(load_file(tmp_path / "weights.safetensors")["weight"])
    assert float(model.weight.detach().sum()) > 0  # every page is read
    process = psutil.Process()
    before = process.memory_info().rss
    lay_aside(weights_of(model))
    assert before - process.memory_info().rss > 30_000_000
    assert torch.equal(model.weight, torch.arange(8_000_000, dtype=torch.float32))


def test_moments_in_strips_are_the_whole_product(learnt_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter.language.moments, "STRIP", 24)
    model = load_model(learnt_llama)
    read: dict[str, list[torch.Tensor]] = {"q_proj": [], "down_proj": []}
    layer = model.model.layers[0]
    for name, module in {"q_proj": layer.self_attn.q_proj, "down_proj": layer.mlp.down_proj}.items():
        module.register_forward_pre_hook(lambda _, given, name=name: read[name].append(given[0].flatten(0, 1)))
    found = second_moments(model, Passages("rows", ROWS))
    for name, path in {"q_proj": "self_attn.q_proj", "down_proj": "mlp.down_proj"}.items():
        states = torch.cat(read[name]).double()
        moments = found[f"model.layers.0.{path}"]
        torch.testing.assert_close(moments.double(), states.T @ states, rtol=1e-4, atol=1e-4)
        assert torch.equal(moments, moments.T)
    assert found["model.layers.0.self_attn.k_proj"] is found["model.layers.0.self_attn.q_proj"]


def test_longer_texts_are_cut_to_be_equally_long_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    passages = Passages("rows", tuple((1,) * tokens for tokens in (3, 8, 15, 16, 23, 23, 9)))
    whole = {tokens: places for places, tokens in alike(passages)}
    assert whole == {3: [0], 8: [1], 15: [2], 16: [3], 23: [4, 5], 9: [6]}
    monkeypatch.setattr(exporter.language.moments, "TOKENS", 96)
    assert {tokens: places for places, tokens in alike(passages)} == {3: [0], 8: [1, 2, 6], 16: [3, 4, 5]}


@pytest.mark.parametrize("bits", [4, 8])
def test_a_long_table_is_rounded_row_by_row(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.randn(37, 80, generator=torch.Generator().manual_seed(0))
    whole = in_blocks(table, bits, 32)
    monkeypatch.setattr(exporter.language.blocks, "ROWS", 8)
    parts = in_blocks(table, bits, 32)
    for name in ("packed", "scales", "zeros"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
