"""Seals what two parties say past a third: the relay can neither read it nor alter it unnoticed.

Each pair has a key of its own for each direction, from X25519 keys that are fresh in this dialogue and,
where the job lists identities, from those too, so that a relay which puts a key of its own in another's
place derives another one. A key is bound to the session, the dialogue, both names, both identities and the
words in which the two keys were told. The pieces of one direction are numbered as they are said: none can
be left out, repeated, exchanged, or told as another kind, of another owner or at another place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor

from vfl.crypto.pairs import KEY_BYTES, Ends, framed, new_secret, open_sealed, seal
from vfl.intersection.pieces import refuse
from vfl.session import Session
from vfl.wire.messages import Message, schema_of

M = TypeVar("M", bound=Message)


@dataclass
class _Pair:
    """Holds the keys with one peer, and how many pieces went each way."""

    out_key: bytes
    in_key: bytes
    said: int = 0
    heard: int = 0


class Seals:
    """Closes what this party says past the relay and opens what it hears so; the rest stays as it is.

    A kind that may be sealed has a field `tag: bytes`, empty on the way into `close`, and at most one
    tensor, of uint8. The tensor is hidden; the other fields are readable and bound to it.
    """

    def __init__(self, session: Session, dialogue: str) -> None:
        """Draws this party's key; `dialogue` tells what it is for."""
        self._session, self._dialogue = session, dialogue.encode()
        self._ends = Ends(new_secret(), session.secret_key)
        self._pairs: dict[str, _Pair] = {}

    def key_for(self, peer: str) -> bytes:
        """Returns the key to tell a peer; nothing for one that this party speaks to without a relay."""
        return self._ends.public if self._is_relayed(peer) else b""

    def meet(self, peer: str, told: Message, heard: Message, key: bytes) -> None:
        """Derives the keys with a peer.

        Args:
            peer: the other one.
            told: the message that told it this party's key.
            heard: the message that told this party the peer's.
            key: the peer's.

        Raises:
            RemoteProtocolError: if the key cannot be one.
        """
        due = KEY_BYTES if self._is_relayed(peer) else 0
        if len(key) != due:
            refuse(peer, f"says a key of {len(key)} bytes where {due} are due")
        if not due:
            return
        session = self._session
        first, second = sorted([(session.me, _words(told)), (peer, _words(heard))])
        try:
            both = self._ends.pair_key(
                key,
                session.members[peer].identity if session.secret_key else None,
                salt=session.nonce,
                info=framed(self._dialogue, first[0].encode(), first[1], second[0].encode(), second[1]),
                n_bytes=2 * KEY_BYTES,
            )
        except ValueError as error:
            refuse(peer, f"says a key that cannot be used: {error}")
        keys = both[:KEY_BYTES], both[KEY_BYTES:]
        self._pairs[peer] = _Pair(*(keys if session.me < peer else keys[::-1]))

    def close(self, to: str, message: M) -> M:
        """Seals a message if it will be relayed."""
        pair = self._pairs.get(to)
        if pair is None:
            return message
        content = _content(message)
        sealed = seal(pair.out_key, pair.said, content, _about(message))
        pair.said += 1
        return _with(message, sealed[: len(content)], sealed[len(content) :])

    def open(self, sender: str, message: M) -> M:
        """Opens a message that was relayed.

        Raises:
            RemoteProtocolError: naming the relay, if that is not what the sender sealed next; naming the
                sender, if it sealed what nobody relays.
        """
        tag, pair = getattr(message, "tag", b""), self._pairs.get(sender)
        if pair is None:
            if tag:
                refuse(sender, f"seals {type(message).__name__}, which nobody passes on")
            return message
        try:
            content = open_sealed(pair.in_key, pair.heard, _content(message) + tag, _about(message))
        except ValueError:
            refuse(
                self._session.hub,
                f"passes on {type(message).__name__} of {sender} that {sender} has not sealed so: either has "
                f"altered or repeated it, left something out, or swapped a key",
            )
        pair.heard += 1
        return _with(message, content, b"")

    def _is_relayed(self, peer: str) -> bool:
        return self._session.hub not in (self._session.me, peer)


def _words(message: Message) -> bytes:
    """Writes a message's kind and all of its fields but the tensors and the tag."""
    schema = schema_of(type(message))
    told = [getattr(message, name) for name in schema.scalars if name != "tag"]
    return msgspec.msgpack.encode([schema.name, *told])


def _about(message: Message) -> bytes:
    """Writes all that a seal is bound to beside its content."""
    shapes = [list(tensor.shape) for tensor in _tensors(message)]
    return _words(message) + msgspec.msgpack.encode(shapes)


def _content(message: Message) -> bytes:
    """Returns what is hidden.

    Raises:
        ValueError: if it is not of bytes.
    """
    tensors = _tensors(message)
    if any(tensor.dtype is not torch.uint8 for tensor in tensors):
        raise ValueError("only bytes can be sealed")
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def _tensors(message: Message) -> list[Tensor]:
    return [getattr(message, name) for name in schema_of(type(message)).tensors]


def _with(message: M, content: bytes, tag: bytes) -> M:
    """Puts other content, of the same length, and a tag into a message."""
    fields: dict[str, Any] = {"tag": tag}
    for name in schema_of(type(message)).tensors:
        raw = np.frombuffer(bytearray(content), dtype=np.uint8)
        fields[name] = torch.from_numpy(raw).reshape(getattr(message, name).shape)
    plain: Any = message  # a dataclass, as every message is
    replaced: M = dataclasses.replace(plain, **fields)
    return replaced
