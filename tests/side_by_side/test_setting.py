import pytest

from errors import UserError
from models.training import Device, TrainingPrecision
from side_by_side.setting import Setting, parse_settings


def test_settings_are_read_in_their_order() -> None:
    assert parse_settings(" cuda/fp16, cpu/bf16") == (
        Setting(Device.CUDA, TrainingPrecision.FP16),
        Setting(Device.CPU, TrainingPrecision.BF16),
    )
    assert [setting.folder for setting in parse_settings("cpu/fp32,cuda/fp32")] == ["cpu-fp32", "cuda-fp32"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu/fp32", "at least two"),
        ("", "at least two"),
        ("cpu/fp32,cpu/fp32", "names cpu/fp32 twice"),
        ("cpu/fp32,tpu/bf16", "has 'tpu/bf16'"),
        ("cpu/fp32,auto/fp32", "has 'auto/fp32'"),
        ("cpu/fp32,cpu/auto", "has 'cpu/auto'"),
    ],
)
def test_what_is_no_setting_is_refused_with_those_there_are(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        parse_settings(text)
    assert raised.value.hint
