"""Files of weights: safetensors, NumPy's .npz and .npy. Nothing that they hold is run or unpickled."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core import tensors
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.paths import user_path

MODEL, BEST = "model.safetensors", "best.safetensors"  #: of a run's folder: the last model, and that of a record
CURES = {
    ".pt": "save it by safetensors.torch.save_file(model.state_dict(), 'model.safetensors')",
    ".msgpack": "save it by safetensors.flax.save_file, with names such as Dense_0/kernel",
    ".pkl": "save it as .npz or .safetensors, which run nothing when they are read",
    ".h5": "save it as .npz, with names such as Dense_0/kernel",
}  #: what to do about files of other kinds
CURES |= {".pth": CURES[".pt"], ".bin": CURES[".pt"], ".ckpt": CURES[".pt"], ".pickle": CURES[".pkl"]}


def read(path: str | os.PathLike[str]) -> Any:
    """The weights in a file, or in the folder of a run: arrays by name in the file's order, or one flat vector.

    Raises:
        InputError: there is no such file, or it holds no weights.
    """
    file = user_path(path, "start: ")
    if file.is_dir():
        kept = file
        file = file / MODEL
        if not file.is_file():
            raise InputError(f"start: {kept} has no {MODEL}, which a run has once it is done: let it end, or give a "
                             "file of weights")  # fmt: skip
    if not file.is_file():
        raise InputError(f"start: {file} is not there: expected weights as .safetensors, .npz or .npy, or the --out of "
                         "a run")  # fmt: skip
    suffix = file.suffix.lower()
    if suffix not in (".safetensors", ".npz", ".npy"):
        cure = CURES.get(suffix, "save the weights as .safetensors, .npz or .npy")
        raise InputError(f"start: {file} is no file of weights that can be read here: {cure}")
    try:
        if suffix == ".safetensors":
            return _safetensors(file)
        with file.open("rb") as opened:
            kept = np.load(opened, allow_pickle=False)
            return kept if suffix == ".npy" else _whole({name: kept[name] for name in kept.files})
    except InputError as error:
        raise InputError(f"start: {file}: {error}") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"start: {file} is damaged, or no such file ({type(error).__name__}): save it again") from None


def _safetensors(file: Path) -> Any:
    """The weights of a file of any program; of a `state.safetensors` of ours, the point."""
    leaves, metadata = tensors.plain(file)
    if metadata.get("form") != tensors.FORM:
        return _whole(leaves)
    tree = tensors.read(file).rebuilt()
    if not isinstance(tree, dict) or tree.get("x") is None:
        raise InputError("it holds a state without a point: give the run's model.safetensors")
    return tree["x"]


def _whole(leaves: dict[str, np.ndarray]) -> Any:
    """A vector where the only array is called x."""
    return leaves["x"] if [*leaves] == ["x"] else leaves
