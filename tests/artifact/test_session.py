from pathlib import Path

import numpy as np
import pytest

from artifact.predict.session import SessionConfig, open_session
from errors import UserError


@pytest.fixture
def graph(tiny_run: Path) -> Path:
    return tiny_run / "variants" / "fp32" / "model.onnx"


def test_a_session_gets_the_threads_and_the_provider_it_was_asked_for(graph: Path) -> None:
    session = open_session(
        graph,
        provider="CPUExecutionProvider",
        threads=2,
        config=SessionConfig(graph_optimization_level="basic"),
        entries={"session.intra_op.allow_spinning": "0"},
    )
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_provider_than_asked_for_is_refused(graph: Path) -> None:
    with pytest.raises(UserError, match="Nowhere"):
        open_session(graph, provider="NowhereExecutionProvider", threads=1, config=SessionConfig())


@pytest.mark.parametrize("content", [None, b"", b"not a graph"])
def test_a_file_that_is_no_graph_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot run .*model\.onnx on CPUExecutionProvider"):
        open_session(tmp_path / "model.onnx", provider="CPUExecutionProvider", threads=1, config=SessionConfig())


def test_leaving_out_a_fusion_leaves_the_answers(graph: Path) -> None:
    ids = np.array([[2, 6, 7, 3]])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    plain, fused = (
        open_session(
            graph, provider="CPUExecutionProvider", threads=1, config=SessionConfig(disabled_optimizers=left_out)
        ).run(None, inputs)[0]
        for left_out in (("SkipLayerNormFusion",), ())
    )
    np.testing.assert_allclose(plain, fused, atol=1e-4)
