import pytest

from artifact.precision import Precision


@pytest.mark.parametrize(
    ("precision", "suffix"),  # transformers.js, src/utils/dtypes.js: DEFAULT_DTYPE_SUFFIX_MAPPING
    [("fp32", ""), ("fp16", "_fp16"), ("int8-dynamic", "_quantized"), ("int8-static", "_int8"), ("int4", "_q4")],
)
def test_files_are_named_as_transformers_js_looks_for_them(precision: str, suffix: str) -> None:
    assert Precision(precision).file_suffix == suffix


def test_variants_that_are_files_have_different_names() -> None:
    suffixes = [precision.file_suffix for precision in Precision if precision is not Precision.TF32]
    assert len(set(suffixes)) == len(suffixes)


def test_only_dynamic_quantisation_depends_on_the_batch() -> None:
    assert [precision.value for precision in Precision if precision.depends_on_batch] == ["int8-dynamic"]
