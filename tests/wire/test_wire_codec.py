from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from wire_messages import SCHEMAS, Everything, Foreign, Matrix, Number, everything

from vfl.errors import RemoteProtocolError, RoleError
from vfl.wire import codec
from vfl.wire.codec import DTYPES, MAX_FRAME_BYTES, MAX_HEADER_BYTES, decode, encode, open_envelope, stamp
from vfl.wire.messages import Message

SESSION = bytes(range(16))
PREFIX = struct.pack("<3sB16sQQ", b"VFL", 1, SESSION, 5, 3)


def frames_of(message: Message, sequence: int = 5) -> list[bytes]:
    frames = stamp(
        encode(message, to="label", sender="bank"), session=SESSION, sequence=sequence, acknowledged=3
    )
    return [bytes(frame) for frame in frames]


def there_and_back(message: Message) -> Any:  # noqa: ANN401 - the test knows the kind
    return decode(open_envelope(frames_of(message), "bank"), SCHEMAS, "bank")


def raw_header(kind: str, scalars: object, tensors: object, prefix: bytes = PREFIX) -> bytes:
    return prefix + msgspec.msgpack.encode(("label", "bank", kind, scalars, tensors))


def refusal(*frames: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(open_envelope(frames, "bank"), SCHEMAS, "bank")
    assert caught.value.peer == "bank"
    return caught.value.why


def same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    one, other = (t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(one, other)


shapes = st.lists(st.integers(0, 4), max_size=codec.MAX_RANK)


@given(dtype=st.sampled_from(list(DTYPES.values())), shape=shapes, seed=st.integers(0, 2**31))
def test_a_tensor_of_any_allowed_type_and_shape_arrives_bit_for_bit(
    dtype: torch.dtype, shape: list[int], seed: int
) -> None:
    n_bytes = math.prod(shape) * dtype.itemsize
    top = 2 if dtype is torch.bool else 256  # any bits: NaNs with a payload too
    raw = torch.randint(0, top, (n_bytes,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    x = raw.view(dtype).reshape(shape)
    assert same_bits(there_and_back(Matrix(1, x)).x, x)


@given(
    count=st.integers(-(2**63), 2**63 - 1),
    rate=st.floats(allow_nan=False),
    word=st.text(max_size=50),
    blob=st.binary(max_size=50),
    counts=st.lists(st.integers(-(2**63), 2**64 - 1), max_size=5).map(tuple),
    words=st.lists(st.text(max_size=9), max_size=5).map(tuple),
)
def test_scalars_arrive_as_they_were(
    count: int, rate: float, word: str, blob: bytes, counts: tuple[int, ...], words: tuple[str, ...]
) -> None:
    x = torch.zeros(1)
    said = Everything(count, rate, False, word, blob, counts, words, x, x)
    heard = there_and_back(said)
    for name in ("count", "rate", "last", "word", "blob", "counts", "words"):
        assert getattr(heard, name) == getattr(said, name)
        assert type(getattr(heard, name)) is type(getattr(said, name))


def test_not_a_number_arrives_as_such() -> None:
    message = there_and_back(Everything(1, math.nan, True, "", b"", (), (), torch.zeros(1), torch.zeros(1)))
    assert math.isnan(message.rate)


@pytest.mark.parametrize(
    "x",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(12.0)[::3],
        torch.tensor(2.5),
        torch.zeros(3, 0, 2),
        torch.ones(1).expand(4, 5),
        torch.tensor([1.5, -0.0, math.nan, math.inf], dtype=torch.bfloat16),
        torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        torch.ones(2, 2, requires_grad=True) * 3,
    ],
    ids=["transposed", "strided", "scalar", "empty", "expanded", "bfloat16", "negated", "with a graph"],
)
def test_a_view_arrives_as_what_it_shows(x: Tensor) -> None:
    heard = there_and_back(Matrix(1, x)).x
    assert same_bits(heard, x.detach().resolve_neg())
    assert not heard.requires_grad


def test_a_heard_tensor_owns_aligned_memory() -> None:
    x = torch.arange(5, dtype=torch.float64)
    header, frame = frames_of(Matrix(1, x))
    shifted = memoryview(bytearray(b"?" + frame))[1:]
    heard = decode(open_envelope([header, shifted], "bank"), SCHEMAS, "bank")
    assert isinstance(heard, Matrix)
    assert heard.x.data_ptr() % 64 == 0
    shifted[:] = bytes(len(shifted))
    assert torch.equal(heard.x, x)


def test_a_contiguous_tensor_is_not_copied_to_be_said() -> None:
    x = torch.zeros(4)
    frame = encode(Matrix(1, x), to="label", sender="bank")[1]
    x += 1
    assert bytes(frame) == struct.pack("<4f", 1, 1, 1, 1)


def test_wire_version_1_is_these_bytes() -> None:
    assert [frame.hex() for frame in frames_of(Matrix(7, torch.tensor([[1.0, -2.0]])))] == GOLDEN_MATRIX
    assert [frame.hex() for frame in frames_of(everything())] == GOLDEN_EVERYTHING


def test_these_bytes_are_still_understood() -> None:
    heard = decode(open_envelope([bytes.fromhex(h) for h in GOLDEN_EVERYTHING], "bank"), SCHEMAS, "bank")
    said = everything()
    assert isinstance(heard, Everything)
    assert (heard.count, heard.rate, heard.last, heard.word) == (said.count, said.rate, said.last, said.word)
    assert (heard.blob, heard.counts, heard.words) == (said.blob, said.counts, said.words)
    assert same_bits(heard.left, said.left)
    assert same_bits(heard.right, said.right)


@given(sequence=st.integers(0, 2**64 - 1))
def test_equal_messages_are_equally_long_whatever_their_number(sequence: int) -> None:
    assert [len(f) for f in frames_of(everything(), sequence)] == [len(f) for f in frames_of(everything(), 1)]


def test_an_envelope_tells_numbers_and_names_without_the_content() -> None:
    envelope = open_envelope(frames_of(Foreign(1)), "bank")
    assert (envelope.session, envelope.sequence, envelope.acknowledged) == (SESSION, 5, 3)
    assert (envelope.to, envelope.sender) == ("label", "bank")
    assert envelope.n_bytes == len(frames_of(Foreign(1))[0])


# --- what is refused, as listed in docs/wire.md --------------------------------------------------------


def test_no_frame_and_too_many_frames_are_refused() -> None:
    assert "0 frames" in refusal()
    assert "66 frames" in refusal(*frames_of(Number(1)), *[b""] * 65)


def test_a_header_too_short_or_too_long_is_refused() -> None:
    assert "header of 0 bytes" in refusal(b"")
    assert "header of 36 bytes" in refusal(PREFIX)
    assert "header of 65537 bytes" in refusal(PREFIX + bytes(MAX_HEADER_BYTES + 1 - len(PREFIX)))


def test_another_magic_is_refused() -> None:
    assert "no message of this framework" in refusal(b"GET / HTTP/1.1" + bytes(40))


def test_another_wire_version_is_refused_and_both_are_named() -> None:
    header = frames_of(Number(1))[0]
    assert "wire version 2, this side speaks 1" in refusal(header[:3] + b"\x02" + header[4:])


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\x90",
        msgspec.msgpack.encode(("label", "bank", "Number", [1])),
        msgspec.msgpack.encode(("label", "bank", "Number", [1], [], 0)),
        msgspec.msgpack.encode(("label", "bank", "Number", [1], [])) + b"\x00",
        msgspec.msgpack.encode(("label", 5, "Number", [1], [])),
        msgspec.msgpack.encode({"to": "label"}),
        b"\x95\xa5label\xa4bank\xa2\xff\xfe\x91\x01\x90",
        b"\x91" * 60_000,
        b"\xdd\xff\xff\xff\xff" * 10_000,
        b"\x95\xa5label\xa4bank\xa6Number" + b"\x91" * 60_000,
        b"\x95\xa5label\xa4bank\xdb\xff\xff\xff\xff",
    ],
    ids=[
        "unused byte",
        "empty",
        "short",
        "long",
        "trailing",
        "number for a name",
        "map",
        "not UTF-8",
        "deep",
        "huge arrays",
        "deep scalars",
        "huge string",
    ],
)
def test_a_header_that_is_not_the_five_fields_is_refused(body: bytes) -> None:
    assert "cannot be read" in refusal(PREFIX + body)


def test_other_frames_than_announced_are_refused() -> None:
    header, frame = frames_of(Matrix(1, torch.ones(2)))
    assert "announced 1 tensors and sent 0" in refusal(header)
    assert "announced 1 tensors and sent 2" in refusal(header, frame, frame)


@pytest.mark.parametrize(
    ("code", "shape", "frame", "why"),
    [
        ("f128", [1], bytes(16), "unknown type 'f128'"),
        ("f32", [1] * 9, bytes(4), "impossible shape"),
        ("f32", [-1, -1], bytes(4), "impossible shape"),
        ("f32", [2], bytes(7), "7 bytes for a tensor of shape (2,)"),
        ("f32", [], b"", "0 bytes for a tensor of shape ()"),
        ("u8", [MAX_FRAME_BYTES + 1], b"", "more than"),
        ("f32", [2**62, 2**62], b"", "more than"),
        ("f32", [0, 2**28, 2**28, 2**28], b"", "more than"),
        ("bool", [2], b"\x01\x02", "neither 0 nor 1"),
    ],
)
def test_a_tensor_that_does_not_fit_its_frame_is_refused(
    code: str, shape: list[int], frame: bytes, why: str
) -> None:
    assert why in refusal(raw_header("Matrix", [1], [(code, shape)]), frame)


def test_a_kind_of_another_session_is_refused() -> None:
    assert "said 'Foreign', which is not part of this session" in refusal(*frames_of(Foreign(1)))
    assert len(refusal(raw_header("x" * 60_000, [1], []))) < 100


@pytest.mark.parametrize(
    "scalars", [[], [1, 2], ["1"], [1.5], [None], [True], [2**63 + 0.5], [[1]], {"n": 1}, b"1"], ids=repr
)
def test_fields_of_other_types_are_refused(scalars: object) -> None:
    header = raw_header("Number", scalars, [])
    assert "fields of other types" in refusal(header)


def test_more_tensors_than_the_kind_has_are_refused() -> None:
    assert "sent 1 tensors in Number, which has 0" in refusal(raw_header("Number", [1], [("u8", [1])]), b"\0")


def test_what_a_peer_announces_is_never_allocated() -> None:
    lies = [
        [raw_header("Matrix", [1], [("f64", [2**28])]), b""],
        [raw_header("Matrix", [1], [("f64", [2**25, 1])]), bytes(8)],
        [raw_header("Matrix", [1], [("u8", [0, 2**30])]), b""],
        [PREFIX + b"\xdd\x7f\xff\xff\xff"],
        [PREFIX + b"\x95\xa5label\xa4bank\xa6Number\xdd\x7f\xff\xff\xff"],
        [PREFIX + b"\x95\xa5label\xa4bank\xa6Number\x91\x01\xdd\x7f\xff\xff\xff"],
    ]
    tracemalloc.start()
    try:
        for frames in lies:
            refusal(*frames)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@given(frames=st.lists(st.binary(max_size=300), max_size=4), prefixed=st.booleans())
@settings(max_examples=500)
def test_whatever_bytes_arrive_the_answer_is_a_message_or_a_protocol_error(
    frames: list[bytes], prefixed: bool
) -> None:
    if prefixed and frames:
        frames = [PREFIX + frames[0], *frames[1:]]
    try:
        message = decode(open_envelope(frames, "bank"), SCHEMAS, "bank")
    except RemoteProtocolError:
        return
    assert isinstance(message, Message)


# --- what a role may not say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Matrix(1, torch.zeros(1, dtype=torch.complex64)), "torch.complex64"),
        (Matrix(1, torch.zeros([1] * 9)), "rank 9"),
        (Matrix(1, torch.eye(2).to_sparse()), "dense"),
        (Matrix(1, None), "NoneType where a dense Tensor is declared"),  # type: ignore[arg-type]
        (Matrix(1, torch.zeros(1).expand(2**27)), "exceed"),
        (Matrix(1, torch.zeros(0, 2**27)), "exceed"),
        (Number(2**70), "Number: a field cannot be written"),
        (Number(torch.tensor(1)), "Number: a field cannot be written"),  # type: ignore[arg-type]
        (Everything(1, 1.0, True, "x" * 70_000, b"", (), (), torch.zeros(1), torch.zeros(1)), "header of"),
    ],
)
def test_a_role_is_told_what_cannot_cross_the_wire(message: Message, why: str) -> None:
    with pytest.raises(RoleError, match=why):
        encode(message, to="label", sender="bank")


GOLDEN_MATRIX = [
    "56464c01000102030405060708090a0b0c0d0e0f0500000000000000030000000000000095a56c6162656ca462616e6b"
    "a64d617472697891079192a3663332920102",
    "0000803f000000c0",
]
GOLDEN_EVERYTHING = [
    "56464c01000102030405060708090a0b0c0d0e0f0500000000000000030000000000000095a56c6162656ca462616e6b"
    "aa45766572797468696e6797f9cb3fe0000000000000c3a76772c3b6c39f65c40200ff9301020392a161a09292a36633"
    "3292020392a4626f6f6c9102",
    "000000000000803f0000004000004040000080400000a040",
    "0100",
]
