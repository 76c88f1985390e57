"""Whatever a peer says in the course of an intersection, it is named for it and nobody hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from aligning import at, besides, caught, over_loopback, overlapping, play, roles_of, small_pieces
from liars import Change, lying

from protocols import psi
from protocols.psi import MESSAGES, Credit, Found, Opening, Points, Shared, Values
from vfl.crypto.group import hash_to_point
from vfl.errors import Deadlock, PeerAborted, RemoteProtocolError
from vfl.wire.line import Send
from vfl.wire.messages import Message

TWO = overlapping(2)  # party0, hub
THREE = overlapping(3)  # party0, hub, party2: what party2 says to party0 is relayed and sealed
N = 30
POINT = hash_to_point("any", b"")


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with small_pieces():
        yield


def lie(liar: str, change: Change, sets: dict[str, list[str]] = TWO) -> str:
    return caught(psi, sets, liar, lying(change))


def with_point(row: int, raw: bytes) -> Callable[[Points], Points]:
    """Puts other bytes in the place of one point."""

    def alter(message: Points) -> Points:
        points = message.points.clone()
        points[row] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        return replace(message, points=points)

    return alter


# --- points ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", ["party0", "hub"])
@pytest.mark.parametrize(
    "raw",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\xff" * 32,
        POINT[:-1] + bytes([POINT[-1] ^ 128]),
        bytes(31) + b"\x80",
    ],
    ids=["identity", "negative", "too large", "last bit", "minus zero"],
)
def test_bytes_that_are_no_point_are_refused(liar: str, raw: bytes) -> None:
    assert "is no element of the group, or the identity" in lie(liar, at(Points, 2, with_point(1, raw)))


def test_a_point_said_twice_in_one_chunk_is_refused() -> None:
    def twice(message: Points) -> Points:
        return with_point(3, bytes(message.points[0].numpy()))(message)

    assert lie("party0", at(Points, 1, twice)) == "says a point of party0's set twice"


@pytest.mark.parametrize("sets", [TWO, THREE], ids=["to its keeper", "to whom it only passes"])
def test_a_point_said_twice_in_two_chunks_is_refused(sets: dict[str, list[str]]) -> None:
    first: list[bytes] = []

    def later(send: Send) -> Send:
        message = send.message
        if not isinstance(message, Points) or message.owner != "party0":
            return send
        first.append(bytes(message.points[0].numpy()))
        return send._replace(message=with_point(0, first[0])(message)) if message.number == 5 else send

    assert lie("party0", later, sets) == "says a point of party0's set twice"


@pytest.mark.parametrize("sets", [TWO, THREE], ids=["two parties", "three parties"])
@pytest.mark.parametrize("liar", ["party0", "hub"])
def test_a_party_that_has_an_id_twice_is_refused(sets: dict[str, list[str]], liar: str) -> None:
    own = sets[liar]
    with pytest.raises(RemoteProtocolError, match=f"^{liar}: says a point of {liar}'s set twice"):
        play(psi, sets | {liar: [*own, own[0]]})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"number": 3}, "says piece 3 of party0's set where 2 was due"),
        ({"number": 1}, "says piece 1 of party0's set where 2 was due"),
        ({"number": -1}, "says piece -1 of party0's set where 2 was due"),
        ({"number": 2**62}, "where 2 was due"),
        ({"owner": "nobody"}, "says points of 'nobody', which are not its to say"),
        ({"owner": "hub"}, "says points of 'hub', which are not its to say"),
        ({"owner": "x" * 3000}, "says points of 'xxxx"),
        (
            {"points": torch.zeros(4, 32)},
            "torch.float32 (4, 32) where piece 2 of party0's set is torch.uint8",
        ),
        ({"points": torch.zeros(4, 32, dtype=torch.int8)}, "torch.int8"),
        ({"points": torch.zeros(3, 32, dtype=torch.uint8)}, "torch.uint8 (3, 32) where"),
        ({"points": torch.zeros(5, 32, dtype=torch.uint8)}, "torch.uint8 (5, 32) where"),
        ({"points": torch.zeros(4, 16, dtype=torch.uint8)}, "torch.uint8 (4, 16) where"),
        ({"points": torch.zeros(128, dtype=torch.uint8)}, "torch.uint8 (128,) where"),
        ({"points": torch.zeros(0, 32, dtype=torch.uint8)}, "torch.uint8 (0, 32) where"),
    ],
)
def test_points_that_are_not_due_are_refused(fields: dict[str, Any], words: str) -> None:
    assert words in lie("party0", at(Points, 2, **fields))


def test_chunks_in_another_order_are_refused() -> None:
    held: list[Send] = []

    def swapped(send: Send) -> Sequence[Send]:
        if isinstance(send.message, Points) and send.message.number == 0:
            held.append(send)
            return []
        return [send, *(held.pop() for _ in held[:])] if isinstance(send.message, Points) else [send]

    assert "says piece 1 of party0's set where 0 was due" in lie("party0", swapped)


def test_a_chunk_said_twice_is_refused() -> None:
    def twice(send: Send) -> Sequence[Send]:
        return [send, send] if isinstance(send.message, Points) else [send]

    assert "where 1 was due" in lie("party0", twice)


def test_points_of_a_set_that_is_not_the_senders_to_pass_on_are_refused() -> None:
    # party0 hears chunks of party2's and the hub's sets from party2 only.
    stray = ("party0", Points("hub", 0, torch.zeros(4, 32, dtype=torch.uint8)))
    assert "not its to say" in lie("hub", besides(Opening, stray), THREE)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (N - 1, "torch.uint8 (2, 32) where piece 7 of party0's set is torch.uint8 (1, 32)"),
        (N - 4, "torch.uint8 (4, 32) where piece 6 of party0's set is torch.uint8 (2, 32)"),
        (N + 1, "torch.uint8 (2, 32) where piece 7 of party0's set is torch.uint8 (3, 32)"),
    ],
)
def test_more_or_fewer_points_than_announced_are_refused(rows: int, words: str) -> None:
    assert words in lie("party0", at(Opening, 0, rows=rows))


def test_a_set_that_breaks_off_is_waited_for_by_name() -> None:
    def breaks_off(send: Send) -> Sequence[Send]:
        message = send.message
        return [] if isinstance(message, Points) and message.number == 7 else [send]

    with pytest.raises(Deadlock, match=r"hub waits for .* from party0"):
        play(psi, TWO, party0=lying(breaks_off))


def test_a_set_that_goes_on_beyond_what_was_announced_is_refused() -> None:
    def goes_on(send: Send) -> Sequence[Send]:
        message = send.message
        if isinstance(message, Points) and message.owner == "party0" and message.number == 7:
            return [send, send._replace(message=replace(message, number=8))]
        return [send]

    assert lie("party0", goes_on) == "says more of party0's set than its 30 ids"


# --- openings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", ["party0", "hub", "party2"])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rows": 2**28 + 1}, "says that it has 268435457 ids; there may be 0 to 268435456"),
        ({"rows": 2**62}, "there may be"),
        ({"rows": -1}, "says that it has -1 ids"),
        ({"salt": bytes(31)}, "says a salt of 31 bytes"),
    ],
)
def test_an_opening_that_cannot_be_is_refused(liar: str, fields: dict[str, Any], words: str) -> None:
    assert words in lie(liar, at(Opening, 0, **fields), THREE)


@pytest.mark.parametrize("liar", ["party0", "hub"])
def test_a_key_or_a_seal_where_nobody_relays_is_refused(liar: str) -> None:
    assert lie(liar, at(Opening, 0, key=bytes(32))) == "says a key of 32 bytes where 0 are due"
    assert lie(liar, at(Points, 0, tag=bytes(16))) == "seals Points, which nobody passes on"


def test_a_salt_that_is_not_the_hubs_is_refused_and_so_is_a_hub_without_one() -> None:
    assert lie("party0", at(Opening, 0, salt=bytes(32))) == "says a salt of 32 bytes"
    assert lie("hub", at(Opening, 0, salt=b"")) == "says a salt of 0 bytes"


# --- credits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", ["party0", "hub"])
@pytest.mark.parametrize("number", [1, -1, 5, 2**40])
def test_a_credit_out_of_turn_is_refused(liar: str, number: int) -> None:
    assert f"credits piece {number}, for which nothing more was due" in lie(
        liar, at(Credit, 0, number=number)
    )


@pytest.mark.parametrize("liar", ["party0", "hub"])
def test_a_credit_said_twice_is_refused(liar: str) -> None:
    def twice(send: Send) -> Sequence[Send]:
        return [send, send] if isinstance(send.message, Credit) else [send]

    assert "credits piece 0, for which" in lie(liar, twice)


@pytest.mark.parametrize("owner", ["nobody", "party2", ""])
def test_a_credit_for_what_was_not_said_is_refused(owner: str) -> None:
    assert f"credits a piece of the set of {owner!r} that it was not said" in lie(
        "party0", at(Credit, 0, owner=owner)
    )


def test_a_credit_for_values_that_were_not_said_yet_is_refused() -> None:
    stray = ("party0", Credit("hub", 0))
    assert "credits a piece of the set of 'hub'" in lie("hub", besides(Opening, stray))


# --- values ------------------------------------------------------------------------------------------


def altered(change: Callable[[np.ndarray], object]) -> Callable[[Values], Values]:
    def alter(message: Values) -> Values:
        values = message.values.numpy().copy()
        change(values)
        return replace(message, values=torch.from_numpy(values))

    return alter


def reverse(values: np.ndarray) -> None:
    values[:] = values[::-1].copy()


def repeat(values: np.ndarray) -> None:
    values[1] = values[0]


def lower_first(values: np.ndarray) -> None:
    values[0] = 0


@pytest.mark.parametrize("change", [reverse, repeat, lower_first])
def test_values_that_are_not_sorted_or_said_twice_are_refused(change: Callable[[np.ndarray], object]) -> None:
    assert "says values of hub's set that do not ascend, or says one twice" in lie(
        "party0", at(Values, 1, altered(change))
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"owner": "party0"}, "says values of 'party0', which are not its to say"),
        ({"owner": "nobody"}, "says values of 'nobody', which are not its to say"),
        ({"number": 0}, "says piece 0 of hub's set where 1 was due"),
        ({"number": 2}, "says piece 2 of hub's set where 1 was due"),
        (
            {"values": torch.zeros(8, 16)},
            "torch.float32 (8, 16) where piece 1 of hub's set is torch.uint8 (8, 16)",
        ),
        ({"values": torch.zeros(7, 16, dtype=torch.uint8)}, "torch.uint8 (7, 16)"),
        ({"values": torch.zeros(8, 32, dtype=torch.uint8)}, "torch.uint8 (8, 32)"),
    ],
)
def test_values_that_are_not_due_are_refused(fields: dict[str, Any], words: str) -> None:
    assert words in lie("party0", at(Values, 1, **fields))


def test_values_beyond_the_set_are_refused() -> None:
    def one_more(send: Send) -> Sequence[Send]:
        message = send.message
        last = isinstance(message, Values) and message.number == 3
        return [send, send._replace(message=replace(message, number=4))] if last else [send]  # type: ignore[type-var]

    # The last piece of the hub's set; party0's own may be incomplete, so that the hub still listens.
    sets = {"party0": THREE["party0"] + [f"more {at}" for at in range(40)], "hub": THREE["hub"]}
    assert lie("party0", one_more, sets) == "says values of 'hub', which are not its to say"


# --- answers -----------------------------------------------------------------------------------------


def bits(n: int, *which: int) -> torch.Tensor:
    flags = np.zeros(8 * n, dtype=bool)
    flags[list(which)] = True
    return torch.from_numpy(np.packbits(flags))


ANSWERS = [
    (bits(3), "answers torch.uint8 (3,) where torch.uint8 (4,) is due"),
    (bits(5), "answers torch.uint8 (5,)"),
    (bits(0), "answers torch.uint8 (0,)"),
    (torch.zeros(4), "answers torch.float32 (4,)"),
    (torch.zeros(4, 1, dtype=torch.uint8), "answers torch.uint8 (4, 1)"),
    (bits(4, 0, 30), "answers for more than the 30 that were asked for"),
    (bits(4, 31), "answers for more than the 30"),
]


@pytest.mark.parametrize(("answer", "words"), ANSWERS)
def test_an_answer_of_another_length_or_beyond_the_end_is_refused(answer: torch.Tensor, words: str) -> None:
    assert words in lie("hub", at(Shared, 0, bits=answer))
    assert words in lie("hub", at(Found, 0, bits=answer))
    assert words in lie("party0", at(Found, 0, bits=answer))


@pytest.mark.parametrize(("liar", "kind"), [("hub", Shared), ("hub", Found), ("party0", Found)])
def test_another_number_of_shared_ids_than_was_said_before_is_refused(liar: str, kind: type[Message]) -> None:
    assert "says another number of shared ids than was said before" in lie(liar, at(kind, 0, bits=bits(4, 0)))
    assert "says another number" in lie(liar, at(kind, 0, bits=bits(4)))


@pytest.mark.parametrize("liar", ["party0", "hub"])
def test_an_answer_before_anything_was_asked_is_refused(liar: str) -> None:
    other = "hub" if liar == "party0" else "party0"
    early = besides(Points, (other, Found(bits(4))))
    assert "says which ids all hold where nobody asked" in lie(liar, early)


@pytest.mark.parametrize("liar", ["party0", "hub"])
def test_which_values_all_hold_is_the_hubs_to_say_once_it_has_them(liar: str) -> None:
    other = "hub" if liar == "party0" else "party0"
    early = besides(Points, (other, Shared(bits(4))))
    assert "says which values all hold where nobody asked" in lie(liar, early)


def test_an_opening_said_again_is_refused() -> None:
    opening = Opening(N, b"", b"")
    assert "said Opening where Points or Credit" in lie("party0", besides(Opening, ("hub", opening)))


# --- what only the comparison afterwards can see --------------------------------------------------------


def test_points_that_a_party_in_the_middle_swaps_lead_to_other_rows_and_not_to_an_error_here() -> None:
    def swaps(send: Send) -> Send:
        message = send.message
        if isinstance(message, Points) and message.owner == "party0" and send.to == "party2":
            return send._replace(message=replace(message, points=message.points.flip(0)))
        return send

    results = play(psi, THREE, hub=lying(swaps)).results
    found = {name: {own[row] for row in results[name]} for name, own in THREE.items()}
    assert found["hub"] == found["party2"] != found["party0"]
    assert len(found["party0"]) == len(found["hub"])


def test_a_peer_that_changes_a_point_only_hides_a_row_as_it_could_by_leaving_it_out() -> None:
    results = play(psi, TWO, hub=lying(at(Points, 0, with_point(0, POINT)))).results
    shared = set(TWO["hub"]) & set(TWO["party0"])
    found = {name: {TWO[name][row] for row in results[name]} for name in TWO}
    assert found["hub"] == found["party0"] <= shared
    assert len(found["hub"]) >= len(shared) - 1


# --- over real links ------------------------------------------------------------------------------------


def test_over_loopback_a_liar_is_named_by_who_hears_it_and_the_others_are_told() -> None:
    change = at(Points, 1, with_point(0, bytes(32)))
    outcomes = over_loopback(roles_of(psi, THREE, {"party0": lying(change)}), MESSAGES)
    assert isinstance(outcomes["hub"], RemoteProtocolError)
    assert outcomes["hub"].peer == "party0"
    assert isinstance(outcomes["party2"], PeerAborted)
    assert outcomes["party2"].culprit == "party0"
    assert isinstance(outcomes["party0"], PeerAborted)
