"""What every protocol must keep, proved for one that factorises ratings and trains no network on rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fedmmf_cast import HUB, Setup, assert_same_factors, play, recommend, train_directly
from liars import Change, Wrap, lying
from sfa_cast import dying
from test_battery import assert_equal, spoilt_tensors
from torch import Tensor

import protocols
from vfl.errors import RemoteProtocolError
from vfl.masking.contributing import Contribution
from vfl.wire.codec import decode, encode, open_envelope, stamp
from vfl.wire.line import Send
from vfl.wire.messages import Message, kinds_by_name
from vfl.wire.rehearse import Said

FEDMMF = protocols.load("fedmmf")
SMALL = Setup(m=7, own=2, ratings=3, epochs=2, options={"rank": 1})


def small(**options: Any) -> Setup:  # noqa: ANN401
    return replace(SMALL, options={**SMALL.options, **options})


SCENES: dict[str, Setup] = {
    "masked": SMALL,
    "plain": small(aggregation="plain"),
    "adaptive": small(aggregation="adaptive", solver="sgd", batches=2),
    "paillier": small(aggregation="paillier", key_bits=256, unsafe_small_key=True),
    "recommending": small(by="item"),
    "vanishing": replace(SMALL, epochs=3, goes_on=True),
}
every_scene = pytest.mark.parametrize("scene", SCENES)


@dataclass
class Stage:
    """Is what was said in one scene, and what came of it."""

    transcript: list[Said]
    result: Any
    factors: dict[str, dict[str, Tensor]]


@functools.cache
def honest(scene: str) -> Stage:
    return staged(scene)


def staged(scene: str, **liars: Wrap) -> Stage:
    """Plays a scene anew; in one of them somebody vanishes, in another there is recommending afterwards."""
    if scene == "vanishing":
        liars = {"shop2": dying(Contribution, 1, phase="train"), **liars}
    asks = scene == "recommending"
    played, company = play(SCENES[scene], **({} if asks else liars))
    transcript, factors = played.transcript, company.factors()
    if asks:
        company.sessions = company.setup.sessions()
        transcript = [*transcript, *recommend(company, "shop0", "i0003", 3, **liars).transcript]
    return Stage(transcript, played.results[HUB], factors)


def role_of(name: str) -> str:
    return "coordinator" if name == HUB else "participant"


def arrows_of(scene: str) -> set[tuple[str, str, str]]:
    said = honest(scene).transcript
    return {(role_of(one.sender), type(one.message).__name__, role_of(one.to)) for one in said}


@every_scene
def test_it_ends(scene: str) -> None:
    assert honest(scene).result.history


@every_scene
def test_twice_with_one_seed_is_equal(scene: str) -> None:
    one, again = honest(scene), staged(scene)
    assert_equal(
        replace(one.result, history=one.result.history), replace(again.result, history=again.result.history)
    )
    assert_same_factors(one.factors, again.factors)


@every_scene
def test_it_learns(scene: str) -> None:
    begun = train_directly(replace(SCENES[scene], epochs=1)).factors[0].state_dict()
    trained = honest(scene).factors["shop0"]
    assert not (trained["own"] == 0).all()
    assert all(trained[part].shape == begun[part].shape for part in begun)


@every_scene
def test_every_message_survives_the_codec(scene: str) -> None:
    kinds = kinds_by_name(FEDMMF.messages)
    for said in honest(scene).transcript:
        frames = encode(said.message, to=said.to, sender=said.sender)
        whole = stamp(frames, session=bytes(16), sequence=1, acknowledged=0)
        assert_equal(decode(open_envelope(whole, said.sender), kinds, said.sender), said.message)


def test_every_kind_of_message_is_said() -> None:
    said = {type(one.message) for scene in SCENES for one in honest(scene).transcript}
    assert said == set(FEDMMF.messages)


def test_the_transcripts_are_what_the_docstring_draws() -> None:
    assert set().union(*map(arrows_of, SCENES)) == set(FEDMMF.arrows)


@every_scene
def test_it_says_of_each_role_what_it_learns(scene: str) -> None:
    session = SCENES[scene].sessions()[HUB]
    assert session.members.keys() <= FEDMMF.module.learns(session, FEDMMF.learns).keys()  # type: ignore[attr-defined]
    assert all(words.strip().endswith(".") for words in FEDMMF.learns.values())


@pytest.mark.parametrize("arrow", sorted(FEDMMF.arrows), ids="-".join)
def test_a_wrong_message_is_an_error_that_names_the_peer(arrow: tuple[str, str, str]) -> None:
    sender, kind, _ = arrow
    scene = next(scene for scene in SCENES if scene != "vanishing" and arrow in arrows_of(scene))
    said = honest(scene).transcript
    specimen = next(
        one for one in said if (role_of(one.sender), type(one.message).__name__) == (sender, kind)
    )
    for what, _wrong in wrong_ones(specimen.message, said):
        change = once(kind, what, said)
        with pytest.raises(RemoteProtocolError) as caught:
            play_to_the_end(scene, specimen.sender, change, f"{kind} with {what}")
        assert caught.value.peer == specimen.sender, what


def play_to_the_end(scene: str, liar: str, change: Change, lie: str) -> None:
    staged(scene, **{liar: lying(change)})
    pytest.fail(f"{lie} from {liar} was taken for right: the role that hears it must refuse it")


def once(kind: str, what: str, said: list[Said]) -> Change:
    """Puts a wrong message in the place of the first one of this kind."""
    told: list[bool] = []

    def change(send: Send) -> Send:
        if told or type(send.message).__name__ != kind:
            return send
        told.append(True)
        return send._replace(message=dict(wrong_ones(send.message, said))[what])

    return change


def wrong_ones(right: Message, said: list[Said]) -> Iterator[tuple[str, Message]]:
    """Lists some of what may stand wrongly in a message's place, each with its name."""
    others = {type(one.message).__name__: one.message for one in said}
    others.pop(type(right).__name__)
    yield from ((f"{name} instead", others[name]) for name in list(others)[::4])
    for field in dataclasses.fields(right):  # type: ignore[arg-type]
        value = getattr(right, field.name)
        spoilt = spoilt_tensors(value) if isinstance(value, Tensor) and value.numel() else {}
        if type(right).__name__ == "PaillierKey":
            spoilt.pop("one column fewer", None)  # which only those can tell for whom it is sealed
        if field.name in ("step", "mark", "epoch"):
            spoilt = {"one more": value + 1, "the negative": -1 - value}
        for how, wrong in spoilt.items():
            yield f"{field.name}: {how}", replace(right, **{field.name: wrong})  # type: ignore[type-var]
