"""Pieces are said and checked one by one, and answers are as long as they must be."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfl.errors import RemoteProtocolError
from vfl.intersection.hidden import as_tensor
from vfl.intersection.meeting import Meeting
from vfl.intersection.pieces import Incoming, Outgoing, pack, put_back, unpack


@given(rows=st.integers(0, 60), piece=st.integers(1, 9), ahead=st.integers(1, 4))
def test_every_row_is_said_once_and_never_more_than_ahead(rows: int, piece: int, ahead: int) -> None:
    outgoing, incoming = Outgoing(rows, piece, ahead), Incoming("owner", rows, piece, 2)
    whole = torch.arange(2 * rows, dtype=torch.uint8).reshape(-1, 2)
    under_way: deque[tuple[int, torch.Tensor]] = deque()
    while not incoming.complete:
        under_way.extend((number, whole[at]) for number, at in outgoing.due())
        assert 1 <= len(under_way) <= ahead
        number, content = under_way.popleft()
        incoming.kept.append(incoming.take("sender", number, content))
        if incoming.lets_follow(number, ahead):
            outgoing.credit("keeper", number)
    assert outgoing.all_said
    assert not under_way
    assert incoming.all_kept().tolist() == (whole.tolist() if rows else [])
    assert incoming.kept == []
    with pytest.raises(RemoteProtocolError, match=f"^sender: says more of owner's set than its {rows} ids"):
        incoming.take("sender", incoming.arrived, whole)
    with pytest.raises(RemoteProtocolError, match=f"^keeper: credits piece {outgoing.credited}, for which"):
        outgoing.credit("keeper", outgoing.credited)


@pytest.mark.parametrize("number", [-1, 0, 2, 10**12])
def test_a_piece_or_a_credit_out_of_turn_is_refused(number: int) -> None:
    incoming, outgoing = Incoming("owner", 10**6, 2, 2), Outgoing(10**6, 2, 1)
    incoming.take("sender", 0, torch.zeros(2, 2, dtype=torch.uint8))
    outgoing.credit("keeper", 0)
    with pytest.raises(RemoteProtocolError, match=f"says piece {number} of owner's set where 1 was due"):
        incoming.take("sender", number, torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(RemoteProtocolError, match=f"credits piece {number}, for which nothing more was due"):
        outgoing.credit("keeper", number)


@given(st.lists(st.booleans(), max_size=40))
def test_packed_answers_come_back(flags: list[bool]) -> None:
    packed = pack(np.array(flags, dtype=bool))
    assert packed.numel() == (len(flags) + 7) // 8
    assert unpack("peer", packed, len(flags)).tolist() == flags


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 60))
def test_answers_of_another_length_are_refused_where_it_shows(flags: list[bool], n: int) -> None:
    packed = pack(np.array([*flags, True], dtype=bool))  # the last bit is one, wherever it ends
    m = len(flags) + 1
    if n >= m and (n + 7) // 8 == (m + 7) // 8:
        assert unpack("peer", packed, n)[:m].tolist() == [*flags, True]
    else:
        with pytest.raises(RemoteProtocolError, match=r"^peer: answers"):
            unpack("peer", packed, n)


@given(st.lists(st.booleans(), max_size=40), st.randoms())
def test_answers_about_shuffled_things_are_put_back_in_order(flags: list[bool], drawn: random.Random) -> None:
    order = np.array(drawn.sample(range(len(flags)), len(flags)), dtype=np.int64)
    said = np.array(flags, dtype=bool)[order]
    assert put_back(said, order).tolist() == flags


def values(*numbers: int) -> np.ndarray:
    return np.array([number.to_bytes(16, "big") for number in numbers], dtype="S16")


def test_a_meeting_tells_of_every_set_what_all_hold() -> None:
    meeting = Meeting({"a": 5, "b": 3, "c": 2}, piece=2)
    meeting.put("c", values(4, 9))
    for number, piece in enumerate([(1, 2), (4, 7), (9,)]):
        assert not meeting.complete
        meeting.take("x", "a", number, as_tensor(values(*piece)))
    meeting.take("y", "b", 0, as_tensor(values(2, 9)))
    meeting.take("y", "b", 1, as_tensor(values(10)))
    assert meeting.complete
    answers = meeting.answers()
    assert {name: bits.tolist() for name, bits in answers.items()} == {
        "a": [False, False, False, False, True],
        "b": [False, True, False],
        "c": [False, True],
    }


def test_an_empty_set_is_there_from_the_start_and_nothing_is_shared_with_it() -> None:
    meeting = Meeting({"a": 1, "b": 0}, piece=2)
    assert set(meeting.coming) == {"a"}
    meeting.take("x", "a", 0, as_tensor(values(1)))
    assert {name: bits.tolist() for name, bits in meeting.answers().items()} == {"a": [False], "b": []}


@pytest.mark.parametrize("second", [(2, 3), (1, 3), (3, 3), (4, 3)])
def test_values_that_do_not_go_on_ascending_are_refused(second: tuple[int, ...]) -> None:
    meeting = Meeting({"a": 4}, piece=2)
    meeting.take("x", "a", 0, as_tensor(values(1, 2)))
    with pytest.raises(RemoteProtocolError, match=r"^x: says values of a's set that do not ascend"):
        meeting.take("x", "a", 1, as_tensor(values(*second)))


def test_a_set_that_nobody_awaits_is_refused() -> None:
    meeting = Meeting({"a": 1}, piece=2)
    with pytest.raises(RemoteProtocolError, match=r"^x: says more of the set of 'b' than was due"):
        meeting.take("x", "b", 0, as_tensor(values(1)))
