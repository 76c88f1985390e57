"""Salted hashes find what all share, at the price that the docstring states."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from aligning import (
    Crowd,
    assert_aligned,
    at,
    besides,
    caught,
    over_loopback,
    overlapping,
    play,
    roles_of,
    sessions_of,
    small_pieces,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from liars import lying

from protocols import ids
from protocols.ids import MESSAGES, Hashes, Matches, Salt, Size, align
from vfl.errors import ConfigError, DataError, Deadlock
from vfl.wire.codec import encode
from vfl.wire.line import Line
from vfl.wire.messages import Message
from vfl.wire.rehearse import rehearse

TWO, THREE = overlapping(2), overlapping(3)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with small_pieces():
        yield


@pytest.mark.parametrize("k", [2, 3, 5, 16])
def test_all_parties_find_what_all_share(k: int) -> None:
    sets = overlapping(k, n=39 if k == 16 else 30)
    rehearsal = play(ids, sets)
    assert_aligned(sets, rehearsal.results)
    assert 0 < len(rehearsal.results["hub"]) < 30


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text(max_size=4), max_size=20, unique=True), min_size=2, max_size=5), st.integers(0)
)
def test_it_is_pythons_set_intersection_whatever_arrives_when(drawn: list[list[str]], seed: int) -> None:
    sets = dict(zip(["hub", "a", "b", "c", "d"], drawn, strict=False))
    assert_aligned(sets, Crowd(roles_of(ids, sets), seed).run().results)


@pytest.mark.parametrize("kind", [object, np.dtypes.StringDType()], ids=["objects", "strings"])
def test_arrays_will_do(kind: Any) -> None:  # noqa: ANN401
    sets = {name: np.array(own, dtype=kind) for name, own in THREE.items()}
    assert_aligned(sets, play(ids, sets).results)


def test_fifty_thousand_against_one() -> None:
    with small_pieces(4096, 16384):
        sets = {"hub": ["777"], "shop": [str(at) for at in range(50_000)]}
        results = play(ids, sets).results
    assert results["shop"].tolist() == [777]
    assert results["hub"].tolist() == [0]


def test_over_loopback_it_is_what_it_is_in_memory() -> None:
    assert_aligned(THREE, over_loopback(roles_of(ids, THREE), MESSAGES))


def test_progress_counts_ids_up_to_the_total() -> None:
    told: list[tuple[int, int]] = []

    async def noted(line: Line) -> object:
        return await align(
            line,
            session=sessions_of(list(TWO))["hub"],
            hub="hub",
            roster=list(TWO),
            ids=TWO["hub"],
            progress=lambda *now: told.append(now),
        )

    rehearse(roles_of(ids, TWO) | {"hub": noted}, MESSAGES)
    assert told == [(8, 30), (16, 30), (24, 30), (30, 30)]


def test_no_id_and_no_hash_without_the_salt_is_said_and_two_sessions_have_none_in_common() -> None:
    said: list[bytes] = []
    hashes: list[set[bytes]] = []
    for _ in range(2):
        transcript = play(ids, TWO).transcript
        said += [
            bytes(frame) for one in transcript for frame in encode(one.message, to=one.to, sender=one.sender)
        ]
        hashes.append(
            {
                bytes(row)
                for one in transcript
                if isinstance(one.message, Hashes)
                for row in one.message.hashes.numpy()
            }
        )
    wire = b"|".join(said)
    for name in {one for own in TWO.values() for one in own}:
        assert name.encode() not in wire
        for hash_of in (hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.sha512, hashlib.blake2b):
            assert hash_of(name.encode()).digest()[:8] not in wire
        assert hashlib.blake2b(name.encode(), digest_size=16).digest()[:8] not in wire
    assert len(hashes[0]) == len(hashes[1]) == 30
    assert not hashes[0] & hashes[1]


def test_the_hub_can_test_a_guess_as_the_docstring_says() -> None:
    transcript = play(ids, TWO).transcript
    salt = next(bytes(one.message.salt.numpy()) for one in transcript if isinstance(one.message, Salt))
    seen = b"".join(
        one.message.hashes.numpy().tobytes() for one in transcript if isinstance(one.message, Hashes)
    )

    def has(guess: str) -> bool:
        return hashlib.blake2b(guess.encode(), key=salt, digest_size=16, person=b"vfl ids").digest() in seen

    only_there = set(TWO["party0"]) - set(TWO["hub"])
    assert only_there
    assert all(has(name) for name in only_there)
    assert not has("customer-999999")


def test_another_party_learns_nothing_but_its_own_matches() -> None:
    rehearsal = play(ids, THREE)
    assert {type(said.message) for said in rehearsal.view("party0")} == {Salt, Matches}
    assert {said.sender for said in rehearsal.view("party0")} == {"hub"}


@pytest.mark.parametrize("name", ["hub", "party0"])
def test_an_id_that_is_there_twice_is_its_own_partys_error(name: str) -> None:
    with pytest.raises(DataError, match=f"the id '{TWO[name][3]}' is there twice") as it:
        play(ids, TWO | {name: [*TWO[name], TWO[name][3]]})
    assert it.value.__notes__ == [f"in the role of {name}"]


@pytest.mark.parametrize(
    "roster", [["hub"], ["hub", "a", "a"], ["hub", "a"], ["me", "a"], ["hub", "me", *"abcdefghijklmno"]]
)
def test_a_roster_that_cannot_align_is_refused(roster: list[str]) -> None:
    async def role(line: Line) -> object:
        return await align(line, session=sessions_of(["me"])["me"], hub="hub", roster=roster, ids=["x"])

    with pytest.raises(ConfigError, match="ids is for 2 to 16, me and the hub hub among them"):
        rehearse({"me": role}, MESSAGES)


# --- liars -------------------------------------------------------------------------------------------


def bits(n: int, *which: int) -> torch.Tensor:
    flags = np.zeros(8 * n, dtype=bool)
    flags[list(which)] = True
    return torch.from_numpy(np.packbits(flags))


def lie(liar: str, change: Any) -> str:  # noqa: ANN401
    return caught(ids, TWO, liar, lying(change))


@pytest.mark.parametrize("salt", [torch.zeros(n, dtype=torch.uint8) for n in (0, 31, 33)] + [torch.zeros(32)])
def test_a_salt_of_another_length_or_type_is_refused(salt: torch.Tensor) -> None:
    words = f"says a salt of {salt.dtype} {tuple(salt.shape)}, not torch.uint8 (32,)"
    assert lie("hub", at(Salt, 0, salt=salt)) == words


@pytest.mark.parametrize(("liar", "kind"), [("party0", Size), ("hub", Salt)])
def test_a_key_where_nobody_relays_is_refused(liar: str, kind: type[Message]) -> None:
    assert lie(liar, at(kind, 0, key=bytes(32))) == "says a key of 32 bytes where 0 are due"


@pytest.mark.parametrize("rows", [-1, 2**31 + 1, 2**62])
def test_an_absurd_size_is_refused(rows: int) -> None:
    assert lie("party0", at(Size, 0, rows=rows)) == f"says that it has {rows} ids; there may be 0 to {2**31}"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"number": 0}, "says piece 0 of party0's set where 1 was due"),
        ({"number": 2}, "says piece 2 of party0's set where 1 was due"),
        (
            {"hashes": torch.zeros(8, 16)},
            "torch.float32 (8, 16) where piece 1 of party0's set is torch.uint8",
        ),
        ({"hashes": torch.zeros(7, 16, dtype=torch.uint8)}, "torch.uint8 (7, 16)"),
        ({"hashes": torch.zeros(8, 8, dtype=torch.uint8)}, "torch.uint8 (8, 8)"),
        ({"hashes": torch.zeros(8, 16, dtype=torch.uint8)}, "do not ascend, or says one twice"),
        ({"hashes": torch.full((8, 16), 255, dtype=torch.uint8)}, "do not ascend, or says one twice"),
    ],
)
def test_hashes_that_are_not_due_are_refused(fields: dict[str, Any], words: str) -> None:
    assert words in lie("party0", at(Hashes, 1, **fields))


def test_more_or_fewer_hashes_than_announced_are_refused_or_waited_for() -> None:
    assert "torch.uint8 (6, 16) where piece 3 of party0's set is torch.uint8 (5, 16)" in lie(
        "party0", at(Size, 0, rows=29)
    )
    assert "torch.uint8 (6, 16) where piece 3 of party0's set is torch.uint8 (8, 16)" in lie(
        "party0", at(Size, 0, rows=40)
    )
    with pytest.raises(Deadlock, match="hub waits for Hashes from party0"):
        play(ids, TWO, party0=lying(lambda send: [] if getattr(send.message, "number", 0) == 3 else send))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (bits(3), "answers torch.uint8 (3,) where torch.uint8 (4,) is due"),
        (bits(5), "answers torch.uint8 (5,)"),
        (torch.zeros(4), "answers torch.float32 (4,)"),
        (bits(4, 31), "answers for more than the 30 that were asked for"),
    ],
)
def test_an_answer_of_another_length_is_refused(answer: torch.Tensor, words: str) -> None:
    assert words in lie("hub", at(Matches, 0, bits=answer))


def test_an_answer_where_a_salt_was_due_is_refused() -> None:
    assert "said Matches where Salt was due" in lie("hub", at(Salt, 0, lambda salt: Matches(bits(4))))
    stray = Salt(b"", torch.zeros(32, dtype=torch.uint8))
    assert "said Salt where Matches was due" in lie("hub", besides(Salt, ("party0", stray)))
