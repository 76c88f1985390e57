"""The wire's invariant under 240,000 damaged messages; each test can run in a worker of its own."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import suppress

import msgspec
import pytest
import torch
from wire_messages import KINDS, SCHEMAS, Matrix, Number, everything

from vfl.errors import RemoteProtocolError
from vfl.wire.channel import Abort, Ack, Join, Joined
from vfl.wire.codec import decode, encode, open_envelope, stamp
from vfl.wire.joining import CONTROL_KINDS
from vfl.wire.messages import Message

N_MUTANTS = 60_000
EVERY_KIND = {**SCHEMAS, **CONTROL_KINDS}
LENGTHS = (b"\xdc\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x00\xff\xff\xff")


def real_messages() -> list[list[bytes]]:
    messages: list[Message] = [
        Number(1),
        Matrix(3, torch.ones(2, 3)),
        Matrix(4, torch.zeros(0, 3, dtype=torch.bfloat16)),
        everything(),
        Join("bank", 3),
        Joined(4, ("shop",)),
        Ack(),
        Abort("lost", "shop"),
    ]
    framed = (encode(message, to="label", sender="bank") for message in messages)
    return [[bytes(f) for f in stamp(m, session=bytes(16), sequence=1, acknowledged=0)] for m in framed]


def flip(frames: list[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(frames))
    frame = bytearray(frames[place])
    for _ in range(rng.randint(1, 4) if frame else 0):
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    frames[place] = bytes(frame)


def shorten(frames: list[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(frames))
    frames[place] = frames[place][: rng.randrange(len(frames[place]) + 1)]


def splice(frames: list[bytes], rng: random.Random) -> None:
    other = rng.choice(ORIGINALS)
    cut = rng.randrange(len(frames[0]))
    donor = other[0][rng.randrange(len(other[0])) :] if rng.random() < 0.5 else other[0][cut:]
    frames[0] = frames[0][:cut] + donor
    if rng.random() < 0.5:
        frames[1:] = other[1:]


def lie_about_a_length(frames: list[bytes], rng: random.Random) -> None:
    cut = rng.randrange(36, len(frames[0]))
    frames[0] = frames[0][:cut] + rng.choice(LENGTHS) + frames[0][cut + rng.randint(0, 2) :]


def nest(frames: list[bytes], rng: random.Random) -> None:
    cut = rng.randrange(36, len(frames[0]))
    bomb = rng.choice((b"\x91", b"\x81", b"\xdc\x00\x01")) * rng.choice((20, 400, 2000))
    frames[0] = frames[0][:cut] + bomb + frames[0][cut:]


def lie_about_a_shape(frames: list[bytes], rng: random.Random) -> None:
    sizes = [rng.choice((-1, 0, 1, 2, 2**28, 2**40, 2**63)) for _ in range(rng.randint(0, 9))]
    code = rng.choice(("f32", "u8", "bool", "f128"))
    body = ("label", "bank", "Matrix", [1], [(code, sizes)])
    frames[:] = [frames[0][:36] + msgspec.msgpack.encode(body), bytes(rng.randrange(33))]


def repeat_or_drop_a_frame(frames: list[bytes], rng: random.Random) -> None:
    if rng.random() < 0.5:
        frames.append(rng.choice(frames))
    else:
        del frames[rng.randrange(len(frames))]


ORIGINALS = real_messages()
DAMAGES = (flip, shorten, splice, lie_about_a_length, nest, lie_about_a_shape, repeat_or_drop_a_frame)


def test_the_originals_are_sound() -> None:
    for frames in ORIGINALS:
        assert isinstance(decode(open_envelope(frames, "bank"), EVERY_KIND, "bank"), Message)
    assert len(EVERY_KIND) == len(KINDS) + len(CONTROL_KINDS)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_message_is_a_message_or_a_protocol_error_and_small(seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(N_MUTANTS):
        frames = list(rng.choice(ORIGINALS))
        rng.choice(DAMAGES)(frames, rng)
        answer: Message | RemoteProtocolError
        try:
            answer = decode(open_envelope(frames, "bank"), EVERY_KIND, "bank")
        except RemoteProtocolError as error:
            answer = error
        if isinstance(answer, RemoteProtocolError):
            refused += 1
            assert answer.peer == "bank"
            assert len(str(answer)) < 300
        else:
            assert isinstance(answer, Message)
    assert refused > N_MUTANTS // 2


def test_no_damaged_message_makes_this_side_allocate_more_than_it_was_sent() -> None:
    rng = random.Random(99)
    tracemalloc.start()
    try:
        for _ in range(2000):
            frames = list(rng.choice(ORIGINALS))
            rng.choice(DAMAGES)(frames, rng)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with suppress(RemoteProtocolError):
                decode(open_envelope(frames, "bank"), EVERY_KIND, "bank")
            assert tracemalloc.get_traced_memory()[1] - before < 64 * 1024
    finally:
        tracemalloc.stop()
