"""Where and how precisely to train."""

from dataclasses import dataclass

from errors import UserError
from models.training import Device, TrainingPrecision

DEVICES = tuple(device for device in Device if device is not Device.AUTO)
PRECISIONS = tuple(precision for precision in TrainingPrecision if precision is not TrainingPrecision.AUTO)


@dataclass(frozen=True, slots=True)
class Setting:
    """A device and a precision, such as `cpu/bf16`."""

    device: Device
    precision: TrainingPrecision

    @property
    def name(self) -> str:
        return f"{self.device}/{self.precision}"

    @property
    def folder(self) -> str:
        """Name of its run beside the others'."""
        return folder(self.name)


def folder(name: str) -> str:
    """Name of a setting's run beside the others'."""
    return name.replace("/", "-")


def parse_settings(text: str) -> tuple[Setting, ...]:
    """Read `cpu/fp32,cuda/bf16`; the first is the baseline. Raises `UserError` for what is unknown, twice, or alone."""
    known = {setting.name: setting for setting in (Setting(device, how) for device in DEVICES for how in PRECISIONS)}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(f"--compare has '{name}'", f"known are: {', '.join(known)}")
        if names.count(name) > 1:
            raise UserError(f"--compare names {name} twice", "name each setting once")
    if len(names) < 2:
        raise UserError("--compare needs at least two settings", "such as --compare cpu/fp32,cpu/bf16")
    return tuple(known[name] for name in names)
