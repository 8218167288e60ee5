import pytest

from artifact.precision import Precision
from artifact.predict.session import SessionConfig
from errors import UserError
from runtimes.base import Candidate
from runtimes.options import (
    ORT_CPU,
    ORT_CUDA,
    ORT_TENSORRT,
    TORCH,
    TORCH_CUDA,
    OrtCudaOptions,
    TorchCudaOptions,
    TorchOptions,
    describe_options,
    parse_options,
    spell_options,
)
from runtimes.registry import REGISTRY, candidates, entry, known_candidate, worthwhile

WORDS = {
    (): {},
    ("no-spinning",): {"spinning": False},
    ("graph-optimization-level=basic",): {"graph_optimization_level": "basic"},
    ("disabled-optimizers=none",): {"disabled_optimizers": ()},
    ("disabled-optimizers=GeluFusion:BiasGeluFusion", "no-arena"): {
        "disabled_optimizers": ("GeluFusion", "BiasGeluFusion"),
        "arena": False,
    },
}


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_words_are_read_and_spelled_again(words: tuple[str, ...]) -> None:
    options = parse_options(ORT_CPU, words)
    assert options == SessionConfig(**WORDS[words])  # type: ignore[arg-type]
    assert spell_options(options, ORT_CPU) == words


def test_what_is_off_is_switched_on_by_its_name() -> None:
    assert parse_options(TORCH, ("compile", "autocast")) == TorchOptions(autocast=True, compile=True)
    assert spell_options(TorchOptions(autocast=True, compile=True), TORCH) == ("autocast", "compile")


def test_each_runtime_has_defaults_of_its_own() -> None:
    fused = ("disabled-optimizers=none",)
    assert parse_options(ORT_CPU, fused) == ORT_TENSORRT
    assert parse_options(ORT_CUDA, ()) == ORT_CUDA
    assert ORT_CUDA.disabled_optimizers == ()
    assert spell_options(ORT_CUDA, ORT_CUDA) == ()


def test_options_of_gpus_are_spelled_in_names() -> None:
    strict = known_candidate("ort-cuda/tf32+no-cpu-fallback+cuda-graph")
    assert strict.options == ("cuda-graph", "no-cpu-fallback")
    assert parse_options(ORT_CUDA, strict.options) == OrtCudaOptions(
        disabled_optimizers=(), cuda_graph=True, cpu_fallback=False
    )
    recorded = known_candidate("torch-cuda/bf16+no-pinned+cuda-graphs+compile")
    assert recorded.options == ("compile", "cuda-graphs", "no-pinned")
    assert parse_options(TORCH_CUDA, recorded.options) == TorchCudaOptions(compile=True, cuda_graphs=True, pinned=False)


@pytest.mark.parametrize(
    "name", ["torch-cpu/fp32+cuda-graphs", "ort-cpu/fp32+cuda-graph", "ort-tensorrt/fp16+cuda-graph"]
)
def test_what_only_gpus_have_is_no_option_elsewhere(name: str) -> None:
    with pytest.raises(UserError, match="there is no option"):
        known_candidate(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fast",), r"no option '\+fast'"),
        (("no-fast",), r"no option '\+no-fast'"),
        (("spinning=yes",), r"no option '\+spinning=yes'"),
        (("disabled-optimizers",), r"no option '\+disabled-optimizers'"),
        (("no-arena", "arena"), "given twice"),
        (("graph-optimization-level=fast",), "Invalid enum value 'fast'"),
    ],
)
def test_words_that_mean_nothing_are_refused_with_those_that_do(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_options(ORT_CPU, words)
    assert caught.value.hint == "give it once" or "+no-spinning" in caught.value.hint


def test_every_option_is_told() -> None:
    assert describe_options(ORT_CPU) == {
        "graph_optimization_level": "all",
        "disabled_optimizers": "SkipLayerNormFusion",
        "spinning": "true",
        "arena": "true",
        "memory_pattern": "true",
    }


def test_a_candidate_is_known_by_one_name() -> None:
    found = known_candidate("torch-cpu/bf16+compile+autocast")
    assert found == Candidate("torch-cpu", Precision.BF16, ("autocast", "compile"))
    assert found.id == "torch-cpu/bf16+autocast+compile"
    assert known_candidate("ort-cpu/fp32+spinning").id == "ort-cpu/fp32"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ort-cpu/fp32+compile", r"ort-cpu/fp32\+compile: there is no option"),
        ("ort-cpu/tf32", "ort-cpu has no tf32"),
        ("abacus/fp32", "no runtime 'abacus'"),
        ("ort-cpu/fp32+", "is not a candidate"),
    ],
)
def test_a_name_that_no_runtime_answers_to_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        known_candidate(name)


def test_what_is_worth_a_measurement_can_be_named() -> None:
    every = worthwhile(candidates(None, None))
    assert len(every) == len(set(every))
    assert all(known_candidate(found.id) == found for found in every)
    assert [found.id for found in worthwhile((Candidate("torch-cpu", Precision.FP32),))] == [
        "torch-cpu/fp32",
        "torch-cpu/fp32+compile",
    ]


@pytest.mark.parametrize("name", REGISTRY)
def test_a_precision_that_loads_anothers_graph_loads_one_that_exists(name: str) -> None:
    found = entry(name)
    assert set(found.graphs) <= set(found.precisions)
    every = worthwhile(Candidate(name, precision) for precision in found.precisions)
    assert {found.graph(candidate) for candidate in every} <= set(Precision)
    for option, precision in found.makes.items():
        assert found.graph(Candidate(name, found.precisions[-1], (option,))) is precision
