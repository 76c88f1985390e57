"""Few masks each, and still no sum of some of the honest ones shows but with the stated probability."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any

import pytest
import torch
from agreeing_roles import sessions
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.errors import ConfigError, RemoteProtocolError
from vfl.masking.agreeing import KINDS, Confirmations, Keys, KeyShare, Roster, agree_on_keys, relay_keys
from vfl.masking.graph import (
    COMPLETE_UP_TO,
    Graph,
    collusion_bound,
    degree_for,
    degree_of,
    drawn_with,
    neighbours,
)
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring
from vfl.wire.line import Line
from vfl.wire.messages import Message
from vfl.wire.rehearse import Rehearsal, rehearse


def names_of(k: int) -> tuple[str, ...]:
    return tuple(f"party{place:04}" for place in range(k))


def hangs_together(graph: Mapping[str, tuple[str, ...]], honest: Collection[str]) -> bool:
    left, reached = set(honest), [next(iter(honest))]
    while reached:
        name = reached.pop()
        if name in left:
            left.remove(name)
            reached += [other for other in graph[name] if other in left]
    return not left


@given(k=st.integers(2, 80), half=st.integers(1, 12), seed=st.binary(min_size=1, max_size=8))
def test_everybody_has_as_many_neighbours_and_each_is_the_others(k: int, half: int, seed: bytes) -> None:
    names = names_of(k)
    graph = neighbours(names, 2 * half, seed)
    assert tuple(graph) == names
    assert {len(near) for near in graph.values()} == {min(2 * half, k - 1)}
    for name, near in graph.items():
        assert name not in near
        assert list(near) == sorted(near)  # in the roster's order
        assert all(name in graph[other] for other in near)
    assert hangs_together(graph, names)


def test_another_seed_gives_another_graph_and_the_same_one_the_same() -> None:
    names = names_of(60)
    one, again, other = (neighbours(names, 8, seed) for seed in (b"a", b"a", b"b"))
    assert one == again != other


def test_each_roster_of_a_session_has_a_graph_of_its_own() -> None:
    names, graph = names_of(60), drawn_with(b"nonce", 8)
    assert graph(names, 1) == drawn_with(b"nonce", 8)(names, 1)
    assert graph(names, 1) != graph(names, 2) != drawn_with(b"other", 8)(names, 2)


@pytest.mark.parametrize("degree", [-2, 0, 1, 3])
def test_a_degree_that_gives_no_regular_ring_is_refused(degree: int) -> None:
    with pytest.raises(ConfigError, match="set an even number, 2 or more"):
        neighbours(names_of(9), degree, b"")


@pytest.mark.parametrize(("k", "c", "degree"), [(7, 3, 2), (8, 4, 2), (9, 4, 4), (9, 5, 4), (8, 3, 4)])
def test_the_bound_holds_for_every_choice_of_those_in_league(k: int, c: int, degree: int) -> None:
    """The order is random: so the share of choices that part one ring is the probability."""
    names = names_of(k)
    graph = neighbours(names, degree, b"any")
    choices = list(itertools.combinations(names, c))
    parted = sum(not hangs_together(graph, set(names) - set(choice)) for choice in choices)
    bound = collusion_bound(k, degree, c / k)
    assert parted / len(choices) <= 2**bound + 1e-12
    assert parted or bound == -math.inf or bound > -8


def test_the_bound_is_nothing_where_all_mask_with_all_or_too_few_are_in_league() -> None:
    assert collusion_bound(32, 31) == -math.inf
    assert collusion_bound(60, 20, 0.3) == -math.inf  # 18 in league cannot fill two runs of 10
    assert collusion_bound(60, 2) == 0.0


@pytest.mark.parametrize("k", [33, 60, 100, 333, 1000])
def test_as_many_neighbours_as_are_needed_and_no_more_than_that(k: int) -> None:
    degree = degree_for(k)
    assert collusion_bound(k, degree) <= -40 < collusion_bound(k, degree - 2)
    assert degree % 2 == 0
    assert degree <= 40  # few, of however many


def test_few_mask_with_all_and_many_with_as_many_as_is_safe_or_said() -> None:
    assert degree_of(COMPLETE_UP_TO) == COMPLETE_UP_TO - 1
    assert degree_of(1000) == degree_for(1000) < 40
    assert degree_of(1000, 50) == 50
    assert degree_of(20, 50) == 19
    assert degree_of(1) == 0


# --- the agreement in a graph -------------------------------------------------------------------------


def agree(k: int, graph: Graph | None, alter: Any = None, *, other: Graph | None = None) -> Rehearsal:  # noqa: ANN401
    """Lets k agree; the first of them goes by another graph, if one is given."""
    names = names_of(k)
    given = sessions(names)

    class Altering(Line):
        async def say(self, to: str, message: Message) -> None:
            await super().say(to, alter(to, message) if alter else message)

    async def hub(line: Line) -> None:
        await relay_keys(Altering(line.me), Roster(1, names), graph=graph)

    def role(name: str) -> Any:  # noqa: ANN401
        async def contributor(line: Line) -> dict[str, bytes]:
            roster = await line.hear("hub", Roster)
            mine = other if other and name == names[0] else graph
            return (await agree_on_keys(line, given[name], "hub", roster, graph=mine))[0]

        return contributor

    return rehearse({"hub": hub} | {name: role(name) for name in names}, KINDS)


def test_each_two_neighbours_find_a_key_and_nobody_hears_of_any_others() -> None:
    names, graph = names_of(60), drawn_with(b"nonce")
    played, near = agree(60, graph), graph(names, 1)
    shares = {
        said.sender: said.message.key for said in played.transcript if isinstance(said.message, KeyShare)
    }
    for name in names:
        found = played.results[name]
        assert tuple(found) == near[name]
        assert all(played.results[one][name] == key for one, key in found.items())
        heard = next(said.message.keys for said in played.view(name) if isinstance(said.message, Keys))
        assert set(heard) == {shares[one] for one in (name, *near[name])}
        assert len(heard) < 60


@settings(max_examples=5, deadline=None)
@given(k=st.integers(5, 40), half=st.integers(1, 3))
def test_masks_of_a_graph_cancel_in_the_sum_of_all(k: int, half: int) -> None:
    ring = Ring.fitting(64, 8.0, k)
    played = agree(k, drawn_with(b"nonce", 2 * half))
    taken = [Masks(name, played.results[name], ring).take(Counter(0, 1, 2), (3, 4)) for name in names_of(k)]
    assert not ring.total(taken).any()
    assert all(mask.any() for mask in taken)


def test_whoever_has_no_neighbours_agrees_on_nothing_and_has_no_mask() -> None:
    def graph(names: Any, number: int) -> Any:  # noqa: ANN401
        return {names[0]: (), names[1]: (names[2],), names[2]: (names[1],)}

    played, ring = agree(3, graph), Ring.fitting(32, 8.0, 3)
    none, one, two = (
        Masks(name, played.results[name], ring).take(Counter(0, 0, 0), (5,)) for name in names_of(3)
    )
    assert not none.any()
    assert torch.equal(one, -two)


def changed_tag(to: str, message: Message) -> Message:
    if isinstance(message, Confirmations) and to == "party0003":
        return Confirmations(message.number, (bytes(16), *message.tags[1:]))
    return message


def changed_key(to: str, message: Message) -> Message:
    if isinstance(message, Keys) and to == "party0003":
        return Keys(message.number, message.keys[::-1])
    return message


def missing_key(to: str, message: Message) -> Message:
    if isinstance(message, Keys) and to == "party0003":
        return Keys(message.number, message.keys[:-1])
    return message


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (changed_tag, "another key than"),
        (changed_key, "another key than"),
        (missing_key, "passed on 4 keys of 5 contributors"),
    ],
)
def test_a_relay_that_passes_on_something_else_is_found_out_in_a_graph_too(alter: Any, words: str) -> None:  # noqa: ANN401
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        agree(12, drawn_with(b"nonce", 4), alter)
    assert caught.value.peer == "hub"


def test_two_that_are_told_of_different_graphs_find_no_keys() -> None:
    graph = drawn_with(b"nonce", 4)
    # Told another seed, it takes the keys of its neighbours for others' keys.
    with pytest.raises(RemoteProtocolError):
        agree(12, graph, other=drawn_with(b"other", 4))


def test_a_mask_in_another_ring_is_of_that_rings_type() -> None:
    keys = {"b": bytes(32)}
    masks, wide = Masks("a", keys, Ring.fitting(32, 8.0, 2)), Ring.fitting(64, 8.0, 2)
    theirs = Masks("b", {"a": bytes(32)}, wide)
    mine = masks.take(Counter(1, 0, 0), (7,), wide)
    assert mine.dtype == torch.int64
    assert not wide.total([mine, theirs.take(Counter(1, 0, 0), (7,))]).any()
