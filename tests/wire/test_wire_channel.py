from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wire_messages import Number

from vfl.errors import RemoteProtocolError
from vfl.wire.channel import WINDOW_MESSAGES, Ack, Channel
from vfl.wire.codec import Buffer, encode, open_envelope

SESSION = bytes(16)


class Side:
    """Is one end: a channel, what its role has said and taken, and what is on the way to it."""

    def __init__(self, name: str, neighbour: str) -> None:
        self.name = name
        self.channel = Channel(neighbour)
        self.n_said = 0
        self.arrived: deque[int] = deque()
        self.taken: list[int] = []
        self.mail: deque[list[Buffer]] = deque()


def numbered(n: int) -> list[Buffer]:
    return encode(Number(n), to="you", sender="me")


class TwoChannels(RuleBasedStateMachine):
    """Two channels over a connection that loses what is on the way when it is cut."""

    sides = st.sampled_from([0, 1])

    def __init__(self) -> None:
        super().__init__()
        self.ends = (Side("bank", "label"), Side("label", "bank"))
        self.connected = True

    @rule(which=sides)
    def say(self, which: int) -> None:
        me, you = self.ends[which], self.ends[1 - which]
        if me.channel.full:
            return
        me.channel.number(numbered(me.n_said))
        me.n_said += 1
        if self.connected:
            you.mail.append(me.channel.latest(SESSION))

    @rule(which=sides, twice=st.booleans())
    def arrive(self, which: int, twice: bool) -> None:
        me = self.ends[which]
        if not me.mail:
            return
        frames = me.mail.popleft()
        for _ in range(2 if twice else 1):
            envelope = open_envelope(frames, me.channel.neighbour)
            if envelope.sequence == 0:
                me.channel.acknowledge(envelope.acknowledged)
            elif me.channel.accept(envelope):
                me.arrived.append(envelope.sequence - 1)

    @rule(which=sides)
    def take(self, which: int) -> None:
        me = self.ends[which]
        if me.arrived:
            me.taken.append(me.arrived.popleft())
            if me.channel.taken(100):
                self.acknowledge(which)

    @rule(which=sides)
    def acknowledge(self, which: int) -> None:
        if self.connected:
            frames = encode(Ack(), to="you", sender="me")
            self.ends[1 - which].mail.append(self.ends[which].channel.control(frames, SESSION))

    @rule(which=sides)
    def promise(self, which: int) -> None:
        self.ends[which].channel.promise()

    @rule(which=sides)
    def lose_the_last(self, which: int) -> None:
        """Some of what is on the way never arrives, and the rest of it neither: that is a cut."""
        if self.connected and self.ends[which].mail:
            self.ends[which].mail.pop()
            self.connected = False

    @precondition(lambda self: not self.connected)
    @rule(n_left=st.integers(0, 3))
    def come_back(self, n_left: int) -> None:
        for me in self.ends:
            while len(me.mail) > n_left:
                me.mail.pop()
        for which in (0, 1):
            while self.ends[which].mail:
                self.arrive(which, twice=False)
        received = [end.channel.received for end in self.ends]
        self.connected = True
        for which in (0, 1):
            self.ends[1 - which].mail.extend(self.ends[which].channel.resend(SESSION, received[1 - which]))

    @invariant()
    def all_arrives_once_and_in_order(self) -> None:
        for me in self.ends:
            seen = [*me.taken, *me.arrived]
            assert seen == list(range(len(seen)))

    @invariant()
    def a_window_is_never_exceeded(self) -> None:
        for me in self.ends:
            assert len(me.channel._unacknowledged) <= WINDOW_MESSAGES

    def teardown(self) -> None:
        if not self.connected:
            self.come_back(0)
        while any(end.mail or end.arrived for end in self.ends):
            for which in (0, 1):
                self.arrive(which, twice=False)
                self.take(which)
        for which in (0, 1):
            self.acknowledge(which)
            self.arrive(1 - which, twice=False)
        for me, you in (self.ends, self.ends[::-1]):
            assert me.taken == list(range(you.n_said))
        while any(end.mail for end in self.ends):
            self.arrive(0, twice=False)
            self.arrive(1, twice=False)
        assert all(end.channel.clear for end in self.ends)


TwoChannels.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
test_two_channels_over_a_bad_connection = TwoChannels.TestCase


def talking(n: int) -> tuple[Channel, list[list[Buffer]]]:
    """Returns a channel that has said `n` messages, and these."""
    channel = Channel("bank")
    said = []
    for number in range(n):
        channel.number(numbered(number))
        said.append(channel.latest(SESSION))
    return channel, said


def test_a_window_of_messages_is_full_until_the_neighbour_takes_some() -> None:
    sender, said = talking(WINDOW_MESSAGES)
    receiver = Channel("label")
    assert sender.full
    for frames in said:
        assert receiver.accept(open_envelope(frames, "label"))
    assert not receiver.untold  # what has only arrived is not acknowledged
    due = [receiver.taken(100) for _ in range(WINDOW_MESSAGES // 2)]
    assert due == [False] * (WINDOW_MESSAGES // 2 - 1) + [True]
    sender.acknowledge(WINDOW_MESSAGES // 2)
    assert not sender.full


def test_a_promise_acknowledges_what_has_only_arrived() -> None:
    _, said = talking(3)
    receiver = Channel("label")
    for frames in said:
        receiver.accept(open_envelope(frames, "label"))
    receiver.promise()
    assert receiver.untold
    ack = receiver.control(encode(Ack(), to="you", sender="me"), SESSION)
    assert open_envelope(ack, "x").acknowledged == 3
    assert not receiver.untold


def test_large_messages_fill_a_window_by_their_bytes() -> None:
    channel = Channel("bank")
    channel.number([*numbered(1), bytes(64 * 1024 * 1024)])
    assert channel.full


def test_messages_passed_on_without_room_are_repaid_as_room_comes() -> None:
    onward, _ = talking(WINDOW_MESSAGES + 2)
    origin = Channel("shop")
    onward.creditors.extend([origin, origin])
    assert onward.repay() == []
    onward.acknowledge(3)
    assert onward.repay() == [origin]
    onward.acknowledge(WINDOW_MESSAGES)
    assert onward.repay() == [origin]


def test_acknowledging_what_was_never_sent_is_a_lie() -> None:
    channel, _ = talking(2)
    with pytest.raises(RemoteProtocolError, match="bank: acknowledges a message that was never sent"):
        channel.acknowledge(3)
    with pytest.raises(RemoteProtocolError, match="never sent"):
        channel.resend(SESSION, 3)


def test_asking_again_for_what_was_acknowledged_is_a_lie() -> None:
    channel, _ = talking(3)
    channel.acknowledge(2)
    with pytest.raises(RemoteProtocolError, match="asks again for messages that it has acknowledged"):
        channel.resend(SESSION, 1)


def test_a_gap_is_a_lie() -> None:
    _, said = talking(3)
    receiver = Channel("label")
    assert receiver.accept(open_envelope(said[0], "label"))
    with pytest.raises(RemoteProtocolError, match="label: left out a message"):
        receiver.accept(open_envelope(said[2], "label"))
