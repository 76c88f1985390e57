"""Past a relay all find what they find without it; it reads nothing, and alters nothing unnoticed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aligning import (
    Crowd,
    Sets,
    assert_aligned,
    at,
    caught,
    over_loopback,
    overlapping,
    play,
    roles_of,
    sessions_of,
    small_pieces,
)
from liars import Change, lying

from protocols import ids, psi
from vfl.crypto.pairs import new_secret
from vfl.errors import PeerAborted, RemoteProtocolError
from vfl.intersection.seals import Seals
from vfl.session import Session
from vfl.wire.handshake import KINDS, compare_rows
from vfl.wire.line import Line, Send
from vfl.wire.link import Link
from vfl.wire.messages import Message
from vfl.wire.rehearse import Said

RELAY = "coordinator"
NAME_OF = {psi: "psi", ids: "ids"}
both = pytest.mark.parametrize("module", [psi, ids], ids=["psi", "ids"])


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with small_pieces():
        yield


def past_a_relay(sets: Sets, *, identified: bool = True) -> dict[str, Session]:
    return sessions_of(list(sets), RELAY, identified=identified)


# --- what comes of it --------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("k", "identified"), [(2, True), (2, False), (3, True), (3, False), (16, True)])
def test_all_find_what_they_find_without_the_relay(module: ModuleType, k: int, identified: bool) -> None:
    sets = overlapping(k, n=39 if k == 16 else 30)
    relayed = play(module, sets, sessions=past_a_relay(sets, identified=identified)).results
    direct = play(module, sets).results
    assert_aligned(sets, relayed)
    assert {name: rows.tolist() for name, rows in relayed.items()} == {
        name: rows.tolist() for name, rows in direct.items()
    }


@both
@pytest.mark.parametrize("seed", range(8))
def test_it_does_not_matter_what_arrives_when(module: ModuleType, seed: int) -> None:
    sets = overlapping(2 + seed % 4, seed=seed)
    assert_aligned(sets, Crowd(roles_of(module, sets, sessions=past_a_relay(sets)), seed).run().results)


@both
@pytest.mark.parametrize("sets", [{"hub": [], "shop": ["x"]}, {"hub": ["x"], "shop": [], "bank": ["x"]}])
def test_an_empty_set_shares_nothing_past_a_relay_either(module: ModuleType, sets: Sets) -> None:
    assert_aligned(sets, play(module, sets, sessions=past_a_relay(sets)).results)


def with_the_relay(module: ModuleType, sets: Sets, **liars: Any) -> dict[str, Any]:  # noqa: ANN401
    """Aligns over CURVE, and lets a relay without rows compare what came of it."""
    roles = roles_of(module, sets, liars, past_a_relay(sets))

    async def party(line: Line) -> object:
        rows = await roles[line.me](line)
        shared = "".join(sorted(str(sets[line.me][row]) for row in rows))
        assert await compare_rows(line, RELAY, [], len(rows), shared) == len(rows)
        return rows

    async def relay(line: Line) -> int:
        return await compare_rows(line, RELAY, list(sets), None, None)

    return over_loopback(dict.fromkeys(sets, party) | {RELAY: relay}, (*module.MESSAGES, *KINDS), RELAY)


@both
@pytest.mark.parametrize("k", [2, 5])
def test_over_loopback_a_relay_passes_all_on_and_nobody_waits_to_say_something(
    module: ModuleType, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(link: Link, channel: object) -> None:
        raise AssertionError("a window was full")

    sets = overlapping(k, n=90, of=100)
    if module is psi:
        monkeypatch.setattr(Link, "_wait_for_room", never)
    with small_pieces(1, 1) if module is psi else small_pieces():
        outcomes = with_the_relay(module, sets)
    assert outcomes[RELAY] == len(outcomes["hub"]) > 0
    del outcomes[RELAY]
    assert_aligned(sets, outcomes)


# --- what the relay sees -----------------------------------------------------------------------------


def seen_by(relay: str, transcript: list[Said]) -> list[Said]:
    """Picks what passes a relay: all that two others say to each other."""
    return [said for said in transcript if relay not in (said.sender, said.to)]


def tensors_of(message: Message) -> list[bytes]:
    return [value.numpy().tobytes() for value in vars(message).values() if hasattr(value, "numpy")]


@dataclass
class Noted:
    """Notes what is sealed before it is: what the parties know."""

    contents: list[bytes] = field(default_factory=list)

    @classmethod
    def by(cls, patch: pytest.MonkeyPatch) -> Noted:
        noted, honest = cls(), Seals.close

        def close(seals: Seals, to: str, message: Message) -> Message:
            noted.contents.extend(tensors_of(message))
            return honest(seals, to, message)

        patch.setattr(Seals, "close", close)
        return noted


def chi_square(raw: bytes) -> float:
    """Measures how unevenly bytes are spread; 255 is to be expected of even ones, with deviation 23."""
    counts = np.bincount(np.frombuffer(raw, dtype=np.uint8), minlength=256)
    due = len(raw) / 256
    return float(((counts - due) ** 2 / due).sum())


def first_bytes(seen: list[bytes]) -> bytes:
    return b"".join(raw[::16] for raw in seen)


@both
@pytest.mark.parametrize("k", [2, 3])
def test_what_a_relay_sees_is_even_noise_and_nothing_that_a_party_knows(
    module: ModuleType, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, rows = relayed_and_known(module, k, monkeypatch)
    assert chi_square(b"".join(seen)) < 450
    assert chi_square(first_bytes(seen)) < 450
    assert not any(row in raw for raw in seen for row in rows)
    for raw in seen:
        starts = [raw[at : at + 8] for at in range(0, len(raw), 16)]
        assert len(starts) < 9 or starts != sorted(starts)  # hashes and values were sorted


@both
def test_a_relay_would_see_all_of_it_if_nothing_were_sealed(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seals, "close", lambda seals, to, message: message)
    monkeypatch.setattr(Seals, "open", lambda seals, sender, message: message)
    seen, rows = relayed_and_known(module, 2, monkeypatch)
    assert all(any(row in raw for raw in seen) for row in rows)
    assert module is ids or chi_square(first_bytes(seen)) > 900  # a point's is even


def relayed_and_known(
    module: ModuleType, k: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], set[bytes]]:
    """Returns every tensor that the relay sees, and every 16 bytes that the parties said to each other."""
    noted = Noted.by(monkeypatch)
    sets = overlapping(k, n=900, of=1000)
    with small_pieces(128, 128):
        rehearsal = play(module, sets, sessions=past_a_relay(sets))
    assert_aligned(sets, rehearsal.results)
    seen = [raw for said in seen_by(RELAY, rehearsal.transcript) for raw in tensors_of(said.message)]
    known = [raw for raw in noted.contents if raw]
    assert [len(raw) for raw in seen] == [len(raw) for raw in known]  # every tensor passes the relay
    rows = {raw[at : at + 16] for raw in known for at in range(0, len(raw) - 15, 16)}
    assert len(rows) > 900
    return seen, rows


@both
def test_the_same_bits_are_sealed_otherwise_each_time(module: ModuleType) -> None:
    sets = {"hub": ["x"], "shop": ["x"]}
    seen = [
        raw
        for _ in range(20)
        for said in seen_by(RELAY, play(module, sets, sessions=past_a_relay(sets)).transcript)
        for raw in tensors_of(said.message)
        if len(raw) == 1  # one byte with one bit: Shared, Found or Matches
    ]
    assert len(seen) >= 20
    assert len(set(seen)) > 5


# --- a relay that lies -------------------------------------------------------------------------------


@dataclass
class Swapper:
    """Puts keys of its own in place of those that it passes on, and reads what it then can."""

    relay: str
    poses: dict[tuple[str, str], Seals]  # in the name of the first, to the second
    told: dict[tuple[str, str], tuple[Message, Message]] = field(default_factory=dict)
    read: list[Message] = field(default_factory=list)

    @classmethod
    def among(cls, module: ModuleType, sessions: Mapping[str, Session], relay: str) -> Swapper:
        def pose(name: str) -> Seals:
            own = new_secret() if sessions[name].secret_key else None
            return Seals(replace(sessions[name], secret_key=own), NAME_OF[module])

        return cls(relay, {(a, b): pose(a) for a in sessions for b in sessions if a != b})

    def passing(self, sender: str) -> Change:
        def change(send: Send) -> Send:
            if self.relay in (sender, send.to):
                return send
            return send._replace(message=self._swapped(sender, send.to, send.message))

        return change

    def _swapped(self, sender: str, to: str, message: Any) -> Message:  # noqa: ANN401
        as_sender, as_hearer = self.poses[sender, to], self.poses[to, sender]
        passed = message
        if hasattr(message, "key"):
            passed = replace(message, key=as_sender.key_for(to))
            self.told[sender, to] = message, passed
            if (to, sender) in self.told:
                said, altered = self.told[to, sender]
                as_hearer.meet(sender, altered, message, message.key)
                as_sender.meet(to, passed, said, said.key)  # type: ignore[attr-defined]
        if not hasattr(message, "tag"):
            return passed
        try:
            opened = as_hearer.open(sender, message)
        except RemoteProtocolError:
            return passed  # it cannot do better than pass on what it cannot read
        self.read.append(opened)
        return as_sender.close(to, replace(opened, key=passed.key) if hasattr(opened, "key") else opened)


RELAYED = [
    pytest.param(psi, 2, RELAY, id="psi"),
    pytest.param(psi, 3, RELAY, id="psi of three"),
    pytest.param(psi, 3, "hub", id="psi past the hub"),
    pytest.param(ids, 2, RELAY, id="ids"),
    pytest.param(ids, 3, RELAY, id="ids of three"),
]


def under(relay: str, sets: Sets, change: Any) -> dict[str, Any]:  # noqa: ANN401
    """Lets a relay change what any party says past it."""
    return {name: lying(change(name)) for name in sets}


@pytest.mark.parametrize(("module", "k", "relay"), RELAYED)
def test_a_relay_that_swaps_keys_reads_nothing_and_is_named(module: ModuleType, k: int, relay: str) -> None:
    sets = overlapping(k)
    sessions = sessions_of(list(sets), relay)
    swapper = Swapper.among(module, sessions, relay)
    with pytest.raises(RemoteProtocolError, match=f"^{relay}: passes on .* swapped a key") as it:
        play(module, sets, sessions=sessions, **under(relay, sets, swapper.passing))
    assert it.value.peer == relay
    assert len(swapper.told) >= 2
    assert not swapper.read


@pytest.mark.parametrize(("module", "k", "relay"), RELAYED)
def test_without_listed_keys_it_reads_all_as_the_docs_say(module: ModuleType, k: int, relay: str) -> None:
    sets = overlapping(k)
    sessions = sessions_of(list(sets), relay, identified=False)
    swapper = Swapper.among(module, sessions, relay)
    rehearsal = play(module, sets, sessions=sessions, **under(relay, sets, swapper.passing))
    assert_aligned(sets, rehearsal.results)
    carried = [said.message for said in seen_by(relay, rehearsal.transcript) if hasattr(said.message, "tag")]
    assert len(swapper.read) == len(carried) > 5


def tampering(relay: str, how: str, nth: int) -> Any:  # noqa: ANN401
    """Alters, repeats or leaves out the message that passes the relay as number `nth` of those sealed."""
    count = 0

    def altered(message: Any) -> Message:  # noqa: ANN401
        name = next((name for name, value in vars(message).items() if hasattr(value, "numpy")), None)
        if name is None:
            return replace(message, tag=bytes(16))
        return replace(message, **{name: getattr(message, name) ^ 1})

    def passing(sender: str) -> Change:
        def change(send: Send) -> Any:  # noqa: ANN401
            nonlocal count
            if relay in (sender, send.to) or not hasattr(send.message, "tag"):
                return send
            count += 1
            if count != nth + 1:
                return send
            if how == "altered":
                return send._replace(message=altered(send.message))
            return [send, send] if how == "repeated" else []

        return change

    return passing


@pytest.mark.parametrize("nth", [0, 3, 5])
@pytest.mark.parametrize(("module", "k", "relay"), RELAYED)
def test_a_relay_that_alters_a_sealed_message_is_named(
    module: ModuleType, k: int, relay: str, nth: int
) -> None:
    sets = overlapping(k)
    with pytest.raises(RemoteProtocolError, match=f"^{relay}: passes on .* altered") as it:
        play(
            module,
            sets,
            sessions=sessions_of(list(sets), relay),
            **under(relay, sets, tampering(relay, "altered", nth)),
        )
    assert it.value.peer == relay


@pytest.mark.parametrize("how", ["repeated", "left out"])
@pytest.mark.parametrize("module", [psi, ids], ids=["psi", "ids"])
def test_a_relay_that_repeats_a_sealed_message_or_leaves_one_out_is_named(
    module: ModuleType, how: str
) -> None:
    sets = overlapping(2)
    with pytest.raises(RemoteProtocolError, match=f"^{RELAY}: passes on .* repeated it, left something out"):
        play(
            module,
            sets,
            sessions=past_a_relay(sets),
            **under(RELAY, sets, tampering(RELAY, how, 1)),
        )


@both
def test_over_loopback_all_end_where_a_relay_lies(module: ModuleType) -> None:
    sets = overlapping(3)
    outcomes = with_the_relay(module, sets, **under(RELAY, sets, tampering(RELAY, "altered", 2)))
    named = [error for error in outcomes.values() if isinstance(error, RemoteProtocolError)]
    assert len(named) >= 1
    assert {error.peer for error in named} == {RELAY}
    assert all(isinstance(error, (RemoteProtocolError, PeerAborted)) for error in outcomes.values())


# --- a party that lies past a relay -----------------------------------------------------------------


@pytest.mark.parametrize("byte", [0, 255])
def test_sealed_bytes_that_are_no_point_are_refused_in_the_name_of_whoever_sealed_them(
    byte: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Seals.close

    def liars_close(seals: Seals, to: str, message: Message) -> Message:
        lies = to == "party0" and isinstance(message, psi.Points)
        return honest(seals, to, replace(message, points=message.points * 0 + byte) if lies else message)

    monkeypatch.setattr(Seals, "close", liars_close)
    assert "is no element of the group, or the identity" in caught(
        psi, overlapping(3), "party2", lying(lambda send: send)
    )


@pytest.mark.parametrize("liar", ["party0", "party2"])  # whose first opening is to the other one
@pytest.mark.parametrize(
    ("key", "words"),
    [
        (b"", "says a key of 0 bytes where 32 are due"),
        (bytes(33), "says a key of 33 bytes where 32 are due"),
        (bytes(32), "says a key that cannot be used"),
        (b"\1" + bytes(31), "says a key that cannot be used"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(liar: str, key: bytes, words: str) -> None:
    assert words in caught(psi, overlapping(3), liar, lying(at(psi.Opening, 0, key=key)))
