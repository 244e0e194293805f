"""Writing files of the user: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from model.errors import UpgradeError


def replace_file(path: Path, content: bytes, *, like: Path | None = None) -> None:
    """Atomic: a temporary file in the same folder with the same owner and mode, on disk before it is renamed.

    A new file is readable by its owner only. Raises UpgradeError.
    """
    model, name = like or path, ""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if model.exists():
                shutil.copystat(model, name)
                with contextlib.suppress(
                    PermissionError
                ):  # only root changes the owner; another user owns the file already
                    os.chown(name, model.stat().st_uid, model.stat().st_gid)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise UpgradeError(
            f"{path} cannot be written: {error.strerror}",
            residue="the file is as it was",
            hint="check the permissions of its folder",
        ) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
