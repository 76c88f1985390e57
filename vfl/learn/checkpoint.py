"""Keeps what a party goes on from in one file: safetensors, with the JSON in its header; no pickle.

One file because a set has to be of one step: it is written beside the old one, forced to the disk
and renamed over it, so that a crash or a full disk leaves the previous checkpoint whole. A digest
in the header covers all of it; a damaged file is refused, never trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from vfl.errors import StorageError

_FORMAT: Final = "vfl-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: groups of named tensors, and the JSON beside them."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def checkpoint_path(folder: Path, name: str = "checkpoint") -> Path:
    """Gives the file of the checkpoint of this name."""
    return folder / f"{name}.safetensors"


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    name: str = "checkpoint",
) -> Path:
    """Writes a checkpoint over the previous one of its name, all or nothing.

    Args:
        folder: Is made where it is missing.
        tensors: Groups of named tensors, on any device; a group's name holds no "/".
        state: Anything that JSON can say.
        name: Tells checkpoints in one folder apart, such as "last" and "best".

    Returns:
        The file.

    Raises:
        StorageError: The state is not storable, or the disk is full, read-only or not ours; the
            previous checkpoint is as it was.
    """
    path = checkpoint_path(folder, name)
    try:
        data = _serialised(tensors, state)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        why = " ".join(str(error).split())
        raise StorageError(
            f"{path}: the state cannot be stored ({why}): keep only plain tensors and JSON in it"
        ) from error
    partial = path.with_name(f"{path.name}.partial")  # one name, so that crashes leave one file at most
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(folder)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}): free space or choose another folder; "
            f"a previous checkpoint there is whole"
        ) from error
    return path


def load_checkpoint(folder: Path, name: str = "checkpoint") -> Checkpoint:
    """Reads a checkpoint and verifies all of it.

    Raises:
        StorageError: There is none, it cannot be read, or it is damaged or of another version.
    """
    path = checkpoint_path(folder, name)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise StorageError(
            f"{path} is missing: name the folder of a run that has written a checkpoint"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or error}): correct its permissions"
        ) from error
    try:
        return _verified(data)
    except Exception as error:  # whatever the bytes are, the parsers below may raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(
            f"{path} is damaged ({why}): restore it from a copy, or delete it and start afresh"
        ) from error


def pack_state(nested: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parts nested state into its tensors, by path, and JSON that says where they go.

    Takes dicts with any keys (an optimiser's are integers), Counters, lists, tuples, tensors, None,
    bools, ints, floats and text; `unpack_state` gives all of it back exactly.

    Raises:
        StorageError: Something else is in it.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _packed_mapping(nested, "", tensors)


def unpack_state(tensors: Mapping[str, Tensor], packed: Mapping[str, Any]) -> dict[str, Any]:
    """Puts together again what `pack_state` parted.

    Raises:
        StorageError: The two do not belong together.
    """
    try:
        nested = _unpacked(packed, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"a checkpoint's state does not fit its tensors ({error!r}): start afresh"
        ) from error
    if not isinstance(nested, dict):
        raise StorageError(f"a checkpoint's state is {type(nested).__name__}, not named: start afresh")
    return nested


def _serialised(tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> bytes:
    slashed = [group for group in tensors if "/" in group]
    if slashed:
        raise ValueError(f"group {slashed[0]!r} holds a slash")
    # Copies, since safetensors refuses tensors that share memory or are views.
    flat = {
        f"{group}/{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for group, members in tensors.items()
        for name, tensor in members.items()
    }
    groups = {group: list(members) for group, members in tensors.items()}  # safetensors keeps no order
    content = json.dumps({"groups": groups, "state": state}, ensure_ascii=False)
    metadata = {"format": _FORMAT, "content": content, "digest": _digest(content, flat)}
    return safetensors.torch.save(flat, metadata)


def _verified(data: bytes) -> Checkpoint:
    header_bytes = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + header_bytes])["__metadata__"]
    if metadata["format"] != _FORMAT:
        raise ValueError(f"its format is {metadata['format']!r}, not {_FORMAT!r}")
    flat = safetensors.torch.load(data)
    if _digest(metadata["content"], flat) != metadata["digest"]:
        raise ValueError("its digest is not that of its content")
    content = json.loads(metadata["content"])
    groups = {
        group: {name: flat[f"{group}/{name}"] for name in names} for group, names in content["groups"].items()
    }
    return Checkpoint(groups, content["state"])


def _digest(content: str, flat: Mapping[str, Tensor]) -> str:
    total = hashlib.blake2b(content.encode(), digest_size=16, person=b"vfl.checkpoint")
    for name, tensor in sorted(flat.items()):
        total.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes the renaming itself durable, where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _packed(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)  # numpy's float64 is a float, too
    if isinstance(value, Tensor):
        path = path.lstrip("/")
        while path in tensors:  # {"a/b": …, "a": {"b": …}}
            path += "'"
        tensors[path] = value
        return {"$tensor": path}
    if isinstance(value, list | tuple):
        items = [_packed(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        return _packed_mapping(value, path, tensors)
    raise StorageError(
        f"{path or 'the state'} is {type(value).__name__}, which a checkpoint cannot hold: leave it out"
    )


def _packed_mapping(value: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if not isinstance(value, Counter) and all(
        isinstance(key, str) and not key.startswith("$") for key in value
    ):
        return {key: _packed(item, f"{path}/{key}", tensors) for key, item in value.items()}
    pairs = [
        [_packed(key, f"{path}/key", tensors), _packed(item, f"{path}/{key}", tensors)]
        for key, item in value.items()
    ]
    return {"$counter" if isinstance(value, Counter) else "$dict": pairs}


def _unpacked(packed: object, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(packed, list):
        return [_unpacked(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    tag = next(iter(packed), "")
    if not tag.startswith("$"):
        return {key: _unpacked(item, tensors) for key, item in packed.items()}
    (content,) = packed.values()
    if tag == "$tensor":
        return tensors[content]
    if tag == "$tuple":
        return tuple(_unpacked(item, tensors) for item in content)
    pairs = {_unpacked(key, tensors): _unpacked(item, tensors) for key, item in content}
    return {"$dict": dict, "$counter": Counter}[tag](pairs)
