"""Turns messages into frames and frames into messages; `docs/wire.md` describes the format.

A message on the wire is one header frame and one raw little-endian frame a tensor:

    header = prefix (36 bytes) + msgpack [to, sender, kind, [scalar, …], [[dtype, [size, …]], …]]
    prefix = "VFL" · wire version (u8) · session (16 bytes) · sequence (u64) · acknowledged (u64)

The prefix has a fixed length, so that equal messages have equal lengths whatever their number, and so
that a relay can renumber a message without reading it. Whatever bytes arrive, `open_envelope` and
`decode` give a result or raise `RemoteProtocolError`; nothing is allocated before every length agrees.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
import torch
from torch import Tensor

from vfl.errors import RemoteProtocolError, RoleError
from vfl.wire.messages import Message, Schema, schema_of

WIRE_VERSION: Final = 1
NO_SESSION: Final = bytes(16)
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
MAX_TENSORS: Final = 64
MAX_RANK: Final = 8

_MAGIC: Final = b"VFL"
_PREFIX: Final = struct.Struct("<3sB16sQQ")
_NO_PREFIX: Final = bytes(_PREFIX.size)

DTYPES: Final[dict[str, torch.dtype]] = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
_CODES: Final = {dtype: code for code, dtype in DTYPES.items()}

Buffer = bytes | memoryview
Frames = Sequence[Buffer]


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    to: str
    sender: str
    kind: str
    scalars: msgspec.Raw
    tensors: list[tuple[str, list[int]]]


_ENCODER: Final = msgspec.msgpack.Encoder()
_BODY_DECODER: Final = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Is a message that has arrived and whose header was read, but not its content."""

    session: bytes
    sequence: int
    acknowledged: int
    body: _Body
    frames: Frames

    @property
    def to(self) -> str:
        """The party that the message is for."""
        return self.body.to

    @property
    def sender(self) -> str:
        """The party that is said to have said it."""
        return self.body.sender

    @property
    def n_bytes(self) -> int:
        """The true length of all its frames, in bytes."""
        return frames_bytes(self.frames)


def frames_bytes(frames: Frames) -> int:
    """Adds up the true length of all frames of one message, in bytes."""
    return sum(map(len, frames))


def tensor_bytes(rows: int, width: int, dtype: torch.dtype) -> int:
    """Bounds what a tensor [rows, width] adds to a message that has an empty one in its place, in bytes."""
    # In the header each size takes a byte for the smallest number, and eight more for the largest.
    return rows * width * dtype.itemsize + 2 * 8


def encode(message: Message, *, to: str, sender: str) -> list[Buffer]:
    """Turns a message into frames, with an empty prefix that `stamp` fills in.

    Tensor frames share the tensor's memory where it is contiguous and on the CPU: a role must not
    write into a tensor that it has said.

    Raises:
        RoleError: if a field is not what its message declares, or beyond what the wire carries.
    """
    schema = schema_of(type(message))
    name = schema.name
    frames: list[Buffer] = [b""]
    layout: list[tuple[str, list[int]]] = []
    for field in schema.tensors:
        tensor = getattr(message, field)
        layout.append(_layout_of(f"{name}.{field}", tensor))
        frames.append(_bytes_of(tensor))
    scalars = [getattr(message, field) for field in schema.scalars]
    try:
        content = _ENCODER.encode((to, sender, name, scalars, layout))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise RoleError(f"{name}: a field cannot be written ({why}); say plain Python values") from error
    frames[0] = _NO_PREFIX + content
    if len(frames[0]) > MAX_HEADER_BYTES:
        raise RoleError(
            f"{name}: a header of {len(frames[0])} bytes exceeds {MAX_HEADER_BYTES}; use a tensor"
        )
    return frames


def stamp(frames: Frames, *, session: bytes, sequence: int, acknowledged: int) -> list[Buffer]:
    """Writes session and numbers into a message's prefix; the content stays as it is."""
    prefix = _PREFIX.pack(_MAGIC, WIRE_VERSION, session, sequence, acknowledged)
    return [prefix + bytes(frames[0][_PREFIX.size :]), *frames[1:]]


def open_envelope(frames: Frames, peer: str) -> Envelope:
    """Reads a message's header.

    Raises:
        RemoteProtocolError: for anything but a well-formed header of this wire version whose tensor
            sizes agree with the frames that follow it.
    """
    if not 1 <= len(frames) <= MAX_TENSORS + 1:
        _refuse(peer, f"sent {len(frames)} frames in one message")
    header = frames[0]
    if not _PREFIX.size < len(header) <= MAX_HEADER_BYTES:
        _refuse(peer, f"sent a header of {len(header)} bytes")
    magic, version, session, sequence, acknowledged = _PREFIX.unpack_from(header)
    if magic != _MAGIC:
        _refuse(peer, "sent something that is no message of this framework")
    if version != WIRE_VERSION:
        _refuse(
            peer, f"speaks wire version {version}, this side speaks {WIRE_VERSION}: install the same release"
        )
    try:
        body = _BODY_DECODER.decode(memoryview(header)[_PREFIX.size :])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        _refuse(peer, "sent a header that cannot be read")
    if len(body.tensors) != len(frames) - 1:
        _refuse(peer, f"announced {len(body.tensors)} tensors and sent {len(frames) - 1}")
    for (code, shape), frame in zip(body.tensors, frames[1:], strict=True):
        _check_layout(peer, code, shape, len(frame))
    return Envelope(session, sequence, acknowledged, body, frames)


def decode(envelope: Envelope, kinds: Mapping[str, Schema], peer: str) -> Message:
    """Turns an opened envelope into a message of one of `kinds`.

    Tensors are copied once into memory of their own: torch aligns it to 64 bytes, and the fastest
    matrix kernels may add in another order where memory is aligned otherwise, so this copy is what
    makes results over a network equal to those in memory, bit for bit.

    Raises:
        RemoteProtocolError: if the kind is unknown here or its fields are of other types.
    """
    body = envelope.body
    schema = kinds.get(body.kind)
    if schema is None:
        _refuse(peer, f"said {body.kind[:40]!r}, which is not part of this session")
    if len(body.tensors) != len(schema.tensors):
        _refuse(peer, f"sent {len(body.tensors)} tensors in {schema.name}, which has {len(schema.tensors)}")
    try:
        scalars = schema.scalar_decoder.decode(body.scalars)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        _refuse(peer, f"sent {schema.name} with fields of other types")
    fields: dict[str, Any] = dict(zip(schema.scalars, scalars, strict=True))
    for name, (code, shape), frame in zip(schema.tensors, body.tensors, envelope.frames[1:], strict=True):
        fields[name] = _tensor_of(peer, code, shape, frame)
    return schema.kind(**fields)


def _check_layout(peer: str, code: str, shape: list[int], n_bytes: int) -> None:
    dtype = DTYPES.get(code)
    if dtype is None:
        _refuse(peer, f"sent a tensor of unknown type {code[:20]!r}")
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        _refuse(peer, "sent a tensor of impossible shape")
    if n_bytes > MAX_FRAME_BYTES or _extent(shape) * dtype.itemsize > MAX_FRAME_BYTES:
        _refuse(peer, f"sent a tensor of more than {MAX_FRAME_BYTES} bytes")
    if math.prod(shape) * dtype.itemsize != n_bytes:
        _refuse(peer, f"sent {n_bytes} bytes for a tensor of shape {tuple(shape)} and type {code}")


def _tensor_of(peer: str, code: str, shape: list[int], frame: Buffer) -> Tensor:
    if code == "bool" and len(frame) and int(np.frombuffer(frame, dtype=np.uint8).max()) > 1:
        _refuse(peer, "sent a truth value that is neither 0 nor 1")
    dtype = DTYPES[code]
    if not len(frame):
        return torch.empty(shape, dtype=dtype)
    writable = bytearray(frame) if memoryview(frame).readonly else frame  # torch warns of anything else
    return torch.frombuffer(writable, dtype=dtype).view(shape).clone()


def _extent(shape: Sequence[int]) -> int:
    """Counts the elements as if no size were 0: those of an empty tensor are not bounded by its frame."""
    return math.prod(size or 1 for size in shape)


def _layout_of(field: str, tensor: object) -> tuple[str, list[int]]:
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
        raise RoleError(f"{field}: {type(tensor).__name__} where a dense Tensor is declared")
    code = _CODES.get(tensor.dtype)
    if code is None or tensor.dim() > MAX_RANK:
        raise RoleError(f"{field}: {tensor.dtype} of rank {tensor.dim()} does not cross the wire")
    n_bytes = _extent(tensor.shape) * tensor.dtype.itemsize
    if n_bytes > MAX_FRAME_BYTES:
        raise RoleError(f"{field}: {n_bytes} bytes exceed {MAX_FRAME_BYTES} a tensor; say it in parts")
    return code, list(tensor.shape)


def _bytes_of(tensor: Tensor) -> Buffer:
    if not tensor.numel():
        return b""
    plain = tensor.detach()
    if plain.is_cpu and plain.is_contiguous() and plain.dtype is torch.float32 and not plain.is_neg():
        return plain.numpy().data.cast("B")  # what nearly every message carries, in as few steps as can be
    flat = plain.to("cpu").resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _refuse(peer: str, why: str) -> NoReturn:
    raise RemoteProtocolError(peer, why)


if sys.byteorder != "little":  # pragma: no cover - no such machine is at hand to test on
    raise ImportError("the wire is little-endian and this machine is not; it is not supported")
