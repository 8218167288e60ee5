"""The checkpoint that a decoder is exported from: a folder, or a GGUF file, which is unpacked into the run."""

import gc
import shutil
from pathlib import Path

import msgspec

from artifact.progress import Progress
from artifact.records import read_if_present, sha256_file, write_json
from artifact.run_folder import RunFolder
from errors import UserError
from exporter.language.memory import return_freed_memory
from models import gguf
from models.checkpoint import check_files


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """`gguf.json`: which file a run's checkpoint was unpacked from."""

    schema_version: int
    file: str
    sha256: str


def checkpoint_folder(model: Path, run: RunFolder, progress: Progress) -> Path:
    """The folder of a checkpoint; that of a GGUF file is the run's own, unpacked unless it is there already.

    Raises `UserError` for a file that cannot be read, or a run that has a checkpoint from elsewhere.
    """
    if not gguf.is_gguf(str(model)):
        return model
    check_files(model)
    mark = run.directory / "gguf.json"
    told, found = read_if_present(mark, Unpacked), sha256_file(model)
    if run.own_checkpoint.exists():
        if told is None:
            raise UserError(
                f"{run.directory} has a checkpoint of its own, so {model} cannot be unpacked into it",
                "name another folder with --out",
            )
        if told.sha256 == found:
            return run.own_checkpoint
    progress("export", 0, 1, f"unpacking {model.name}")
    part = run.own_checkpoint.with_name(".checkpoint.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        gguf.unpack(model, part)
        gc.collect()
        return_freed_memory()
        run.begin()
        write_json(mark, Unpacked(schema_version=1, file=model.name, sha256=found))
        shutil.rmtree(run.own_checkpoint, ignore_errors=True)
        part.rename(run.own_checkpoint)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return run.own_checkpoint
