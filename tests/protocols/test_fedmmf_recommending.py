"""Recommending in a federated factorisation: who asks, what is answered, and who is blamed for lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fedmmf_cast import HUB, Company, Setup, cast, recommend, spoiling
from liars import Wrap, lying

from protocols import fedmmf
from protocols.fedmmf.messages import Ask, Askers, Best, Wish
from vfl.errors import Refused, RemoteProtocolError
from vfl.journal import Silent
from vfl.wire.line import Send
from vfl.wire.messages import Message


@pytest.fixture(scope="module")
def by_item() -> Company:
    """Makes participants that have items of their own; their factors may be anything."""
    return cast(Setup(m=24, own=9, ratings=4, options={"by": "item"}))


def blamed(by_item: Company, liar: str, change: Callable[[Send], Send | Sequence[Send]]) -> tuple[str, str]:
    with pytest.raises(RemoteProtocolError) as caught:
        recommend(by_item, "shop1", "i0003", 3, **{liar: lying(change)})
    return caught.value.peer, caught.value.why


@pytest.mark.parametrize(
    ("names", "to", "words"),
    [
        ((), "shop1", "says that shop1 asks, or does not, against its word"),
        (("shop0",), "shop1", "against its word"),
        (("shop0",), "shop0", "says that shop0 asks"),
        (("shop0", "shop1"), "shop0", "says that shop0 asks"),
        (("mallory",), "shop0", "says that mallory ask, who are no roster"),
        ((HUB,), "shop0", "who are no roster"),
        (("shop1", "shop1"), "shop1", "who are no roster"),
        (("shop2", "shop1"), "shop1", "who are no roster"),
        (("shop1", "x\x1b[2J"), "shop1", "'x\\x1b[2J'"),
        (("shop1", *["y" * 99] * 99), "shop1", "and 95 more"),
    ],
)
def test_a_coordinator_that_names_askers_who_cannot_be_is_named(
    by_item: Company, names: tuple[str, ...], to: str, words: str
) -> None:
    peer, why = blamed(by_item, HUB, spoiling(Askers, 0, lambda said: Askers(names), to=to))
    assert peer == HUB
    assert words in why
    assert why.isprintable()
    assert len(why) < 400


@pytest.mark.parametrize(
    ("liar", "kind", "said"),
    [
        ("shop0", Wish, Ask(3, 3)),
        ("shop1", Ask, Wish(True)),
        ("shop2", Best, Wish(False)),
        (HUB, Askers, Ask(3, 3)),
        (HUB, Ask, Askers(("shop1",))),
    ],
)
def test_another_message_than_is_due_is_refused_by_name(
    by_item: Company, liar: str, kind: type[Any], said: Message
) -> None:
    peer, why = blamed(by_item, liar, spoiling(kind, 0, lambda _: said))
    assert peer == liar
    assert f"said {type(said).__name__} where {kind.__name__}" in why


@pytest.mark.parametrize(
    "titles",
    [(), ("a",), ("a", "b", "c", "d"), ("a", "b", "c" * 201)],
    ids=["none", "few", "many", "long"],
)
def test_titles_that_are_not_those_of_the_items_are_refused(
    by_item: Company, titles: tuple[str, ...]
) -> None:
    change = spoiling(Best, 0, lambda said: replace(said, titles=titles))
    assert blamed(by_item, "shop0", change) == ("shop0", "answers with titles that are none")


def test_an_item_named_twice_is_refused(by_item: Company) -> None:
    change = spoiling(Best, 0, lambda said: replace(said, items=(said.items[0],) * 3))
    assert "or one twice" in blamed(by_item, "shop2", change)[1]


def asking(by_item: Company, name: str) -> Wrap:
    """Lets an honest participant ask, too."""
    given: dict[str, Any] = {
        "holding": by_item.held[name],
        "mask": by_item.masks[name],
        "factors": by_item.learners[name].network,
    }
    return lambda role: (
        lambda line: fedmmf.PREDICTORS["participant"](
            line, session=by_item.sessions[name], journal=Silent(), user="i0004", **given
        )
    )


def test_unless_one_asks_all_are_refused_before_anybody_names_a_user(by_item: Company) -> None:
    with pytest.raises(Refused, match="asks for no user, and nobody else does: start one participant with"):
        recommend(by_item, "nobody", "i0003", 3)
    with pytest.raises(Refused, match=r"asks for a user, and so does shop[02]: start all but one without"):
        recommend(by_item, "nobody", "i0003", 3, **{one: asking(by_item, one) for one in ("shop0", "shop2")})


def test_titles_are_those_of_whoever_has_the_item_or_else_of_who_asks(by_item: Company) -> None:
    def titled(name: str, title_of: Callable[[str], str]) -> Wrap:
        given: dict[str, Any] = {
            "holding": by_item.held[name], "mask": by_item.masks[name],
            "factors": by_item.learners[name].network, "title_of": title_of,
        }  # fmt: skip
        user = "i0003" if name == "shop1" else None
        return lambda role: (
            lambda line: fedmmf.PREDICTORS["participant"](
                line, session=by_item.sessions[name], journal=Silent(), user=user, top=100, **given
            )
        )

    wraps = {
        "shop0": titled("shop0", lambda item: f"of shop0: {item}"),
        "shop1": titled("shop1", lambda item: f"of shop1: {item}"),
        "shop2": titled("shop2", str),
    }
    found = recommend(by_item, "shop1", "i0003", 100, **wraps).results["shop1"]
    told = {item.partition("/")[0]: title.partition(":")[0] for item, title in found.titles.items()}
    assert told == {"shop0": "of shop0", "shop1": "of shop1", "shop2": "of shop1"}


def test_long_titles_are_cut_and_fit_into_a_message() -> None:
    company = cast(Setup(own=1200, ratings=1, options={"by": "item"}))

    def wordy(name: str) -> Wrap:
        given: dict[str, Any] = {
            "holding": company.held[name], "mask": company.masks[name],
            "factors": company.learners[name].network, "title_of": lambda item: item + 500 * "🎬",
        }  # fmt: skip
        return lambda role: (
            lambda line: fedmmf.PREDICTORS["participant"](
                line, session=company.sessions[name], journal=Silent(), **given
            )
        )

    said = recommend(company, "shop1", "i0003", 100, shop0=wordy("shop0")).results
    assert len(said["shop0"].items) == len(said["shop1"].items) == 100
    assert {len(title) for title in said["shop0"].titles.values()} == {100}


def test_nobody_recommends_what_the_asker_has_itself_nor_what_another_has_said(by_item: Company) -> None:
    mine = by_item.held["shop1"].own_ids[0]

    def spoof(send: Send) -> Send:
        if not isinstance(send.message, Best):
            return send
        ratings = torch.tensor([9.0, 8.0, 7.0], dtype=torch.float64)
        return send._replace(message=Best((mine, "both", "one"), ("SPOOF", "", ""), ratings))

    found = recommend(by_item, "shop1", "i0003", 20, shop0=lying(spoof), shop2=lying(spoof)).results["shop1"]
    items = [item for item, _ in found.items]
    assert items[:2] == ["both", "one"]
    assert len(items) == len(set(items))
    assert "SPOOF" not in found.titles.values()
