"""Files of named arrays: the one module that speaks to safetensors. Nothing is executed on reading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    """Write arrays in C order by name, and texts by name. Raises OSError that names the file."""
    import safetensors.numpy  # here, so that a training that saves nothing does not import it

    try:
        safetensors.numpy.save_file(dict(arrays), path, about)
    except safetensors.SafetensorError as error:
        raise OSError(None, str(error), str(path)) from error


def open_arrays(path: Path) -> Any:
    """The open file: `keys()`, `get_tensor(name)`, `get_slice(name)`, `metadata()`. Raises what the library raises."""
    import safetensors

    return safetensors.safe_open(path, framework="np")
