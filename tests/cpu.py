"""What a CPU must have for a test to mean something."""

from typing import Any

import pytest

from artifact.cpu import saturates
from artifact.precision import Precision

EXACT = pytest.mark.skipif(saturates(), reason="this CPU's 8-bit kernels saturate, so int8 is not exact on it")


def for_exact(precision: Precision) -> Any:
    """A parameter that is left out, if it is int8, where int8 is not exact."""
    return pytest.param(precision, marks=EXACT) if precision.value.startswith("int8") else precision
