"""What a CPU must have for a test to mean something."""

import pytest

from artifact.cpu import saturates

EXACT = pytest.mark.skipif(saturates(), reason="this CPU's 8-bit kernels saturate, so int8 is not exact on it")
