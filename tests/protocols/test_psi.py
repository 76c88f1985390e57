"""Private set intersection finds what Python's set intersection finds, and shows nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from aligning import (
    Crowd,
    assert_aligned,
    over_loopback,
    overlapping,
    play,
    roles_of,
    sessions_of,
    small_pieces,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import psi
from protocols.psi import MESSAGES, Found, Opening, Points, Shared, Values, align
from vfl.crypto import group
from vfl.crypto.group import hash_to_point, multiply
from vfl.errors import ConfigError
from vfl.intersection.ring import pieces_ahead
from vfl.intersection.seals import Seals
from vfl.wire.channel import WINDOW_MESSAGES
from vfl.wire.codec import encode
from vfl.wire.line import Line
from vfl.wire.link import Link
from vfl.wire.messages import Message
from vfl.wire.rehearse import Rehearsal, Said, rehearse


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with small_pieces():
        yield


# --- what comes of it --------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4, 5, 16])
def test_all_parties_find_what_all_share(k: int) -> None:
    sets = overlapping(k, n=39 if k == 16 else 30)
    rehearsal = play(psi, sets)
    assert_aligned(sets, rehearsal.results)
    assert 0 < len(rehearsal.results["hub"]) < 30


@pytest.mark.parametrize("place", range(3))
def test_the_hub_may_stand_anywhere_in_the_ring(place: int) -> None:
    sets = list(overlapping(3).values())
    names = ["bank", "shop"]
    names.insert(place, "hub")
    named = dict(zip(names, sets, strict=True))
    assert_aligned(named, play(psi, named).results)


MANY = [f"row {at}" for at in range(25)]
CASES: dict[str, dict[str, Any]] = {
    "nothing shared": {"hub": MANY, "shop": [f"other {at}" for at in range(25)]},
    "nothing shared by all three": {"hub": MANY[:10], "shop": MANY[5:15], "bank": MANY[10:20]},
    "everything": {"hub": MANY, "shop": MANY, "bank": MANY},
    "permuted": {"hub": MANY, "shop": MANY[::-1], "bank": MANY[7:] + MANY[:7]},
    "one row": {"hub": ["x"], "shop": ["x"]},
    "one row each, differing": {"hub": ["x"], "shop": ["y"], "bank": ["x"]},
    "one inside the other": {"hub": MANY, "shop": MANY[3:5]},
    "exactly a chunk": {"hub": MANY[:4], "shop": MANY[2:10]},
    "an empty set": {"hub": MANY, "shop": [], "bank": MANY},
    "an empty set at the hub": {"shop": MANY, "hub": []},
    "only empty sets": {"hub": [], "shop": []},
    "unicode": {
        "hub": ["Ünal", "ünal", "U\u0308nal", "日本", "", " ", "a\0b", "007", "7", "\U0001f600"],
        "shop": ["日本", "Ünal", "7", "a\0b", "a", "b", " ", "\U0001f600"],
    },
    "prefixes": {"hub": ["a", "ab", "abc"], "shop": ["abc", "abcd", "a"]},
    "object arrays": {"hub": np.array(MANY, dtype=object), "shop": np.array(MANY[4:], dtype=object)},
    "string arrays": {
        "hub": np.array(MANY, dtype=np.dtypes.StringDType()),
        "shop": np.array(MANY[4:], dtype=np.dtypes.StringDType()),
    },
}


@pytest.mark.parametrize("sets", CASES.values(), ids=CASES)
def test_it_holds_with(sets: dict[str, Any]) -> None:
    assert_aligned(sets, play(psi, sets).results)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(max_size=4), max_size=20, unique=True), min_size=2, max_size=5))
def test_it_is_pythons_set_intersection(drawn: list[list[str]]) -> None:
    sets = dict(zip(["hub", "a", "b", "c", "d"], drawn, strict=False))
    assert_aligned(sets, play(psi, sets).results)


def test_one_row_against_very_many() -> None:
    many = [f"customer-{at:06d}" for at in range(10_000)]
    with small_pieces(4096, 1000):
        sets = {"hub": many, "shop": ["customer-007777"]}
        rehearsal = play(psi, sets)
    assert rehearsal.results["hub"].tolist() == [7777]
    assert rehearsal.results["shop"].tolist() == [0]


@settings(max_examples=25, deadline=None)
@given(k=st.integers(2, 6), seed=st.integers(0, 2**32))
def test_it_does_not_matter_what_arrives_when(k: int, seed: int) -> None:
    sets = overlapping(k, seed=seed % 7)
    assert_aligned(sets, Crowd(roles_of(psi, sets), seed).run().results)


@dataclass(frozen=True, eq=False)
class Later(Message):
    """Belongs to what comes after the alignment."""

    n: int


@pytest.mark.parametrize("seed", range(10))
def test_whoever_ends_first_may_go_on_without_being_misheard(seed: int) -> None:
    sets = overlapping(4)
    sessions = sessions_of(list(sets))

    async def goes_on(line: Line, name: str) -> object:
        found = await align(line, session=sessions[name], hub="hub", roster=list(sets), ids=sets[name])
        others = [other for other in sets if other != name]
        for other in others:
            await line.say(other, Later(len(found)))
        assert {(await line.hear(other, Later)).n for other in others} == {len(found)}
        return found

    roles = {name: lambda line, name=name: goes_on(line, name) for name in sets}
    assert_aligned(sets, Crowd(roles, seed).run().results)


def test_threads_change_nothing_but_the_time() -> None:
    sets = overlapping(2, n=300, of=400)
    sessions = sessions_of(list(sets))
    roles: dict[str, Any] = {
        name: lambda line, name=name: align(
            line, session=sessions[name], hub="hub", roster=list(sets), ids=sets[name], threads=3
        )
        for name in sets
    }
    with small_pieces(256, 256):
        assert_aligned(sets, rehearse(roles, MESSAGES).results)


def test_progress_counts_this_partys_group_operations_up_to_the_total() -> None:
    sets = {"hub": MANY, "shop": MANY[:9], "bank": MANY[:14]}
    told: dict[str, list[tuple[int, int]]] = {name: [] for name in sets}
    sessions = sessions_of(list(sets))
    roles: dict[str, Any] = {
        name: lambda line, name=name: align(
            line,
            session=sessions[name],
            hub="hub",
            roster=list(sets),
            ids=sets[name],
            progress=lambda done, total: told[name].append((done, total)),
        )
        for name in sets
    }
    rehearse(roles, MESSAGES)
    for name, own in sets.items():
        assert told[name] == sorted(told[name])
        assert {total for _, total in told[name]} == {
            2 * len(own) + sum(len(s) for s in sets.values()) - len(own)
        }
        assert told[name][-1][0] == told[name][-1][1]


@pytest.mark.parametrize(
    ("roster", "words"),
    [
        (["hub"], "there are 1; psi is for 2 to 16"),
        (["hub", *"abcdefghijklmnop"], "there are 17"),
        (["hub", "a", "a"], "each named once"),
        (["hub", "a"], "me and the hub hub must both"),
        (["me", "a"], "me and the hub hub must both"),
    ],
)
def test_a_roster_that_cannot_align_is_refused(roster: list[str], words: str) -> None:
    async def role(line: Line) -> object:
        return await align(line, session=sessions_of(["me"])["me"], hub="hub", roster=roster, ids=["x"])

    with pytest.raises(ConfigError, match=words):
        rehearse({"me": role}, MESSAGES)


# --- what it costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(2, 17))
def test_what_is_under_way_always_fits_the_windows(k: int) -> None:
    # A link may leave half a window less one unacknowledged that was taken already.
    sets = overlapping(k, n=60, of=70)
    for seed in range(3 if k < 9 else 1):
        with small_pieces(2, 2):
            crowd = Crowd(roles_of(psi, sets), seed, uncounted=(Opening,)).run()
        assert crowd.peak <= k * pieces_ahead(k) <= 32
        assert crowd.peak + WINDOW_MESSAGES // 2 - 1 < WINDOW_MESSAGES


def test_the_openings_are_out_of_the_way_before_anything_else_is_said() -> None:
    # The hub opens last, and each party opens to the hub last: what passed the hub before has been taken.
    openings = [said for said in play(psi, overlapping(5)).transcript if isinstance(said.message, Opening)]
    for name in {said.sender for said in openings} - {"hub"}:
        assert [said.to for said in openings if said.sender == name][-1] == "hub"
    assert {said.sender for said in openings[-4:]} == {"hub"}


@pytest.mark.parametrize("k", [2, 5])
def test_over_loopback_nobody_ever_waits_to_say_something(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(link: Link, channel: object) -> None:
        raise AssertionError("a window was full")

    monkeypatch.setattr(Link, "_wait_for_room", never)
    sets = overlapping(k, n=150, of=160)
    with small_pieces(1, 1):  # as many messages as there can be
        outcomes = over_loopback(roles_of(psi, sets), MESSAGES)
    assert_aligned(sets, outcomes)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_bytes_a_row_are_those_of_the_docs(k: int) -> None:
    n = 64
    sets = {name: [f"{at}" for at in range(n)] for name in overlapping(k)}
    with small_pieces(64, 64):
        transcript = play(psi, sets).transcript
    tensors = {kind: 0 for kind in (Points, Values, Shared, Found)}
    for said in transcript:
        for kind, name in ((Points, "points"), (Values, "values"), (Shared, "bits"), (Found, "bits")):
            if isinstance(said.message, kind):
                tensors[kind] += getattr(said.message, name).numel()
    assert tensors[Points] == 32 * n * k * (k - 1)  # each set makes k - 1 hops
    assert tensors[Values] == 16 * n * (k - 1)  # the hub keeps one itself
    assert tensors[Found] == n / 8 * k
    assert tensors[Shared] == n / 8 * (k - 1)


# --- what it shows -----------------------------------------------------------------------------------


def on_the_wire(rehearsal: Rehearsal) -> bytes:
    frames = [encode(said.message, to=said.to, sender=said.sender) for said in rehearsal.transcript]
    return b"|".join(bytes(frame) for message in frames for frame in message)


@pytest.mark.parametrize("k", [2, 3])
def test_no_id_and_no_hash_that_anybody_could_make_of_it_is_ever_said(k: int) -> None:
    sets = overlapping(k)
    rehearsal = play(psi, sets)
    wire = on_the_wire(rehearsal)
    salt = next(
        said.message.salt
        for said in rehearsal.transcript
        if isinstance(said.message, Opening) and said.sender == "hub"
    )
    assert len(salt) == 32
    for name in {one for own in sets.values() for one in own}:
        raw = name.encode()
        assert raw not in wire
        assert name.encode("utf-16-le") not in wire
        assert raw.removeprefix(b"customer-") not in wire
        for hash_of in (hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.sha512, hashlib.blake2b):
            for text in (raw, salt + raw, raw + salt):
                digest = hash_of(text).digest()
                assert digest[:8] not in wire
                assert digest.hex()[:16].encode() not in wire
        assert hash_to_point(name, salt)[:8] not in wire
        assert hash_to_point(name, b"")[:8] not in wire


def said_rows(rehearsal: Rehearsal) -> list[bytes]:
    """Lists the first 16 bytes of every point and value that was said."""
    rows: list[bytes] = []
    for said in rehearsal.transcript:
        tensor = getattr(said.message, "points", getattr(said.message, "values", None))
        if tensor is not None:
            rows += [bytes(row[:16]) for row in tensor.numpy()]
    return rows


def test_two_sessions_over_the_same_ids_have_nothing_in_common() -> None:
    sets = overlapping(3)
    first, second = said_rows(play(psi, sets)), said_rows(play(psi, sets))
    assert len(first) == len(second) > 100
    assert not set(first) & set(second)


def test_no_point_is_ever_said_twice_but_the_values_that_the_hub_compares() -> None:
    sets = overlapping(3)
    rehearsal = play(psi, sets)
    points = [
        bytes(row)
        for said in rehearsal.transcript
        if isinstance(said.message, Points)
        for row in said.message.points.numpy()
    ]
    assert len(points) == len(set(points)) == 30 * 3 * 2


def test_values_are_sorted_so_that_their_order_says_nothing() -> None:
    rehearsal = play(psi, {"hub": MANY, "shop": MANY})
    said = [
        bytes(row)
        for one in rehearsal.view("hub")
        if isinstance(one.message, Values)
        for row in one.message.values.numpy()
    ]
    assert said == sorted(said)


def test_an_owner_says_its_ids_in_another_order_each_time() -> None:
    # Of the order in which they were said, Found is all that shows: one of 25, at a random place.
    places = set()
    for _ in range(12):
        rehearsal = play(psi, {"hub": [MANY[3]], "shop": MANY})
        bits = [said.message.bits for said in rehearsal.view("shop") if isinstance(said.message, Found)]
        places.add(int(np.flatnonzero(np.unpackbits(bits[0].numpy()))[0]))
    assert len(places) > 3


def told_by(seen: Callable[[Said], bool], owner: str, following: str, sets: dict[str, list[str]]) -> int:
    """Counts the owner's ids that points of its own set, seen past the next party, tell to be that one's.

    The owner's scalar is tried on what the next party said of its own set: that makes the two sets equal
    where they are. Sealed points are no points, or none that match.
    """
    scalars: list[bytes] = []
    drawn = group.random_scalar

    def noted() -> bytes:
        scalars.append(drawn())
        return scalars[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "random_scalar", noted)  # which the blinders draw with
        transcript = play(psi, sets).transcript
    rows = {
        name: {
            bytes(row)
            for said in transcript
            if isinstance(said.message, Points) and said.message.owner == name and seen(said)
            for row in said.message.points.numpy()
        }
        for name in (owner, following)
    }
    assert {name: len(seen_rows) for name, seen_rows in rows.items()} == {
        name: len(sets[name]) for name in (owner, following)
    }
    blinded = {multiply(point, one) for one in scalars for point in rows[following] if is_point(point)}
    return len(blinded & rows[owner])


THREE = {"hub": MANY[:10], "shop": MANY[6:16], "bank": MANY[14:]}


def test_what_the_hub_relays_does_not_tell_it_which_ids_it_shares_with_the_next_party(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def relayed(said: Said) -> bool:
        return (said.sender, said.to) == ("shop", "bank")

    assert told_by(relayed, "hub", "shop", THREE) == 0
    monkeypatch.setattr(Seals, "close", lambda seals, to, message: message)
    monkeypatch.setattr(Seals, "open", lambda seals, sender, message: message)
    assert told_by(relayed, "hub", "shop", THREE) == 4  # the attack works where nothing is sealed


def test_two_who_collude_learn_what_one_shares_with_the_next_party_as_the_docstring_says() -> None:
    def heard_by_the_hub(said: Said) -> bool:
        return (said.sender, said.to) == ("bank", "hub")

    ring = {"shop": THREE["hub"], "bank": THREE["shop"], "hub": THREE["bank"]}
    assert told_by(heard_by_the_hub, "shop", "bank", ring) == 4


def is_point(raw: bytes) -> bool:
    try:
        multiply(raw, group.random_scalar())
    except ValueError:
        return False
    return True
