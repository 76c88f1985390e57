"""What is relayed can be read by its hearer only, and by it only as and in the order it was sealed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vfl.crypto.pairs import new_secret, public_of
from vfl.errors import RemoteProtocolError
from vfl.intersection.seals import Seals
from vfl.session import Member, Session
from vfl.wire.messages import Message


@dataclass(frozen=True, eq=False)
class Key(Message):
    """Tells a key, and something beside it."""

    rows: int
    key: bytes


@dataclass(frozen=True, eq=False)
class Piece(Message):
    """Carries something."""

    owner: str
    number: int
    content: Tensor
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Word(Message):
    """Carries no tensor."""

    owner: str
    number: int
    tag: bytes = b""


NAMES = ("bank", "shop", "zoo")
SECRETS = {name: new_secret() for name in (*NAMES, "relay")}


def session_of(me: str, *, hub: str = "relay", identified: bool = True, nonce: bytes = bytes(16)) -> Session:
    members = {
        name: Member("feature", None, public_of(secret) if identified else None)
        for name, secret in SECRETS.items()
    }
    return Session(me, hub, members, nonce, secret_key=SECRETS[me] if identified else None)


Told = Callable[[Key], Key]


def pair(
    one: Session, other: Session, dialogues: tuple[str, str] = ("x", "x"), passed_on: Told = lambda key: key
) -> tuple[Seals, Seals]:
    """Lets two parties tell each other their keys; `passed_on` is what becomes of the first one's words."""
    here, there = Seals(one, dialogues[0]), Seals(other, dialogues[1])
    from_here, from_there = Key(3, here.key_for(other.me)), Key(4, there.key_for(one.me))
    here.meet(other.me, from_here, from_there, from_there.key)
    heard = passed_on(from_here)
    there.meet(one.me, from_there, heard, heard.key)
    return here, there


def piece(*values: int, owner: str = "bank", number: int = 0) -> Piece:
    return Piece(owner, number, torch.tensor(values, dtype=torch.uint8))


@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize(("me", "other"), [*permutations(NAMES, 2)])
def test_what_is_closed_comes_open_at_the_other_end(me: str, other: str, identified: bool) -> None:
    here, there = pair(session_of(me, identified=identified), session_of(other, identified=identified))
    for number in range(3):
        for one, two, a, b in ((here, there, me, other), (there, here, other, me)):
            said = one.close(b, piece(*range(40), number=number))
            assert said.content.shape == (40,)
            assert said.content.tolist() != list(range(40))
            assert len(said.tag) == 16
            heard = two.open(a, said)
            assert (heard.owner, heard.number, heard.tag) == ("bank", number, b"")
            assert heard.content.tolist() == list(range(40))
            word = two.open(a, one.close(b, Word("bank", number)))
            assert (word.owner, word.number, word.tag) == ("bank", number, b"")


@given(st.integers(0, 5), st.integers(0, 5))
def test_any_shape_comes_back_as_it_was(rows: int, width: int) -> None:
    here, there = pair(session_of("bank"), session_of("zoo"))
    content = torch.arange(rows * width, dtype=torch.uint8).reshape(rows, width)
    heard = there.open("bank", here.close("zoo", Piece("bank", 0, content)))
    assert torch.equal(heard.content, content)


def test_the_same_piece_is_never_sealed_alike() -> None:
    here, there = pair(session_of("bank"), session_of("shop"))
    sealed = [here.close("shop", piece(*bytes(32))) for _ in range(20)]
    sealed += [there.close("bank", piece(*bytes(32))) for _ in range(20)]
    sealed += [pair(session_of("bank"), session_of("shop"))[0].close("shop", piece(*bytes(32)))]
    assert len({bytes(one.content.numpy()) for one in sealed}) == len({one.tag for one in sealed}) == 41


ALTERATIONS: dict[str, Callable[[Piece], Message]] = {
    "a bit": lambda said: replace(said, content=said.content ^ torch.tensor([1, 0, 0, 0]).to(torch.uint8)),
    "its tag": lambda said: replace(said, tag=bytes([said.tag[0] ^ 1]) + said.tag[1:]),
    "no tag": lambda said: replace(said, tag=b""),
    "a longer tag": lambda said: replace(said, tag=said.tag + b"\0"),
    "its owner": lambda said: replace(said, owner="zoo"),
    "its number": lambda said: replace(said, number=1),
    "its shape": lambda said: replace(said, content=said.content.reshape(2, 2)),
    "its type": lambda said: replace(said, content=said.content.to(torch.int8)),
    "a type without arrays": lambda said: replace(said, content=said.content.to(torch.bfloat16)),
    "its length": lambda said: replace(said, content=said.content[:3]),
    "nothing": lambda said: replace(said, content=said.content[:0]),
    "the tag as content": lambda said: replace(
        said, content=torch.tensor([*said.content.tolist(), *said.tag], dtype=torch.uint8), tag=b""
    ),
    "its kind": lambda said: Word("bank", 0, bytes(said.content.numpy()) + said.tag),
}


@pytest.mark.parametrize("alteration", ALTERATIONS.values(), ids=ALTERATIONS)
def test_whatever_a_relay_alters_is_refused_in_its_name(alteration: Callable[[Piece], Message]) -> None:
    here, there = pair(session_of("bank"), session_of("shop"))
    with pytest.raises(RemoteProtocolError, match=r"^relay: passes on \w+ of bank that bank has not sealed"):
        there.open("bank", alteration(here.close("shop", piece(1, 2, 3, 4))))


def test_a_piece_repeated_left_out_exchanged_or_sent_back_is_refused() -> None:
    here, there = pair(session_of("bank"), session_of("shop"))
    first, second, third = (here.close("shop", piece(n)) for n in range(3))
    there.open("bank", first)
    for wrong in (first, third):
        with pytest.raises(RemoteProtocolError, match=r"^relay: "):
            there.open("bank", wrong)
    there.open("bank", second)
    with pytest.raises(RemoteProtocolError, match=r"^relay: "):
        here.open("shop", third)


@pytest.mark.parametrize("identified", [True, False])
def test_keys_are_of_one_session_one_dialogue_and_the_words_that_told_them(identified: bool) -> None:
    bank, shop = (session_of(name, identified=identified) for name in ("bank", "shop"))
    others = [
        pair(bank, replace(shop, nonce=b"1" * 16)),
        pair(bank, shop, ("x", "y")),
        pair(bank, shop, passed_on=lambda key: replace(key, rows=5)),
        pair(bank, replace(shop, me="zoo")),
    ]
    for here, there in others:
        with pytest.raises(RemoteProtocolError):
            there.open("bank", here.close("shop", piece(1)))


def test_a_key_that_a_relay_swaps_opens_nothing_where_identities_are_listed() -> None:
    for identified in (True, False):
        bank, shop = (session_of(name, identified=identified) for name in ("bank", "shop"))
        # The relay poses as the shop, with all that the shop has but its secret key.
        posing = replace(shop, secret_key=SECRETS["relay"] if identified else None)
        here, relays = pair(bank, posing)
        said = here.close("shop", piece(1, 2))
        if identified:
            with pytest.raises(RemoteProtocolError):
                relays.open("bank", said)
        else:  # as the docs say
            assert relays.open("bank", said).content.tolist() == [1, 2]


@pytest.mark.parametrize("hub", ["bank", "shop"])
def test_what_nobody_relays_stays_as_it_is(hub: str) -> None:
    here, there = pair(session_of("bank", hub=hub), session_of("shop", hub=hub))
    said = piece(1, 2)
    assert here.key_for("shop") == there.key_for("bank") == b""
    assert here.close("shop", said) is said
    assert there.open("bank", said) is said
    with pytest.raises(RemoteProtocolError, match=r"^bank: seals Piece, which nobody passes on"):
        there.open("bank", replace(said, tag=bytes(16)))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32), b"\1" + bytes(31)])
def test_a_key_that_cannot_be_one_is_refused(key: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^bank: says a key "):
        pair(session_of("bank"), session_of("shop"), passed_on=lambda told: replace(told, key=key))


def test_a_key_sent_back_is_refused() -> None:
    here = Seals(session_of("bank"), "x")
    own = Key(3, here.key_for("shop"))
    with pytest.raises(RemoteProtocolError, match=r"^shop: says a key that cannot be used"):
        here.meet("shop", own, own, own.key)
