"""Who may take part in secure forward aggregation; what is let in can neither show anybody nor overflow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from casting import LABEL
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sfa_cast import Setup, cast, contributions, noting_masks, play

from protocols.sfa.roster import Config, check_roster, contributors_of, ring_of, sum_of
from vfl.errors import ConfigError

Parties = dict[str, tuple[str, int | None]]

BANK_SHOP: Parties = {"bank": ("feature", 8), "shop": ("feature", 8)}
CLINIC: Parties = {"clinic": ("label", None)}
CAROL: Parties = {"carol": ("coordinator", 16)}


def check(parties: Parties, **options: Any) -> None:  # noqa: ANN401
    roles = {name: role for name, (role, _) in parties.items()}
    check_roster(Config(**options), roles, {name: width for name, (_, width) in parties.items()})


def refused(parties: Parties, **options: Any) -> str:  # noqa: ANN401
    with pytest.raises(ConfigError) as caught:
        check(parties, **options)
    return str(caught.value)


REFUSED: dict[str, tuple[Parties, str]] = {
    "one feature party beside a label party that sums": (
        {"bank": ("feature", 8), "clinic": ("label", 8)},
        "parties: masks would hide nothing, since clinic sums and would see what bank alone contributes; add "
        "a party with role = 'coordinator' and a width, which sums and has no columns, or add a second "
        "feature party",
    ),
    "one feature party beside a label party without columns": (
        {"bank": ("feature", 8)} | CLINIC,
        "parties: masks would hide nothing, since clinic sums and would see what bank alone contributes; add "
        "a second feature party",
    ),
    "one contributor beside a coordinator": (
        {"bank": ("feature", 8)} | CLINIC | CAROL,
        "parties: masks would hide nothing, since bank alone contributes and the coordinator would see "
        "that; give the label party a width and columns, or add a feature party",
    ),
    "the label party alone beside a coordinator": (
        {"clinic": ("label", 8)} | CAROL,
        "parties: masks would hide nothing, since clinic alone contributes and the coordinator would see "
        "that; give the label party a width and columns, or add a feature party",
    ),
    "no contributor": (CLINIC, "nobody contributes; add feature parties"),
    "no label party": (BANK_SHOP | CAROL, "parties: 0 have role = 'label'; exactly one holds the label"),
    "two label parties": (BANK_SHOP | CLINIC | {"ward": ("label", None)}, "parties: 2 have role = 'label'"),
    "two coordinators": (
        BANK_SHOP | CLINIC | CAROL | {"carl": ("coordinator", 4)},
        "parties: 2 have role = 'coordinator'; there may be one",
    ),
    "a feature party without a width": (
        BANK_SHOP | {"shop": ("feature", None)} | CLINIC,
        "parties.shop.width: is missing; say how many numbers a row it brings to the sum",
    ),
    "a coordinator without a width": (
        BANK_SHOP | CLINIC | {"carol": ("coordinator", None)},
        "parties.carol.width: is missing; say how many numbers a row it hands on to the label party",
    ),
    "two widths": (
        BANK_SHOP | {"club": ("feature", 4)} | CLINIC,
        "parties: a sum needs one width for all, and they are bank 8, shop 8, club 4; make them equal",
    ),
    "another width of a label party that sums": (
        BANK_SHOP | {"clinic": ("label", 4)},
        "they are bank 8, shop 8, clinic 4; make them equal",
    ),
    "too many": (
        {f"p{i}": ("feature", 8) for i in range(65)} | CLINIC,
        "parties: 65 contribute; there may be 2 to 64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_its_remedy(case: str) -> None:
    parties, sentence = REFUSED[case]
    assert sentence in refused(parties)


TAKEN: dict[str, Parties] = {
    "two beside a label party that sums": BANK_SHOP | CLINIC,
    "two beside a label party with columns": BANK_SHOP | {"clinic": ("label", 8)},
    "two beside a coordinator of another width": BANK_SHOP | CLINIC | CAROL,
    "one and the label party beside a coordinator": {"bank": ("feature", 8), "clinic": ("label", 8)} | CAROL,
    "64": {f"p{i}": ("feature", 8) for i in range(64)} | CLINIC,
}


@pytest.mark.parametrize("case", TAKEN)
@pytest.mark.parametrize("masks", [True, False])
def test_it_is_taken(case: str, masks: bool) -> None:
    check(TAKEN[case], masks=masks)


def test_without_masks_a_roster_is_refused_alike_so_that_the_switch_changes_nothing_else() -> None:
    assert refused({"bank": ("feature", 8)} | CLINIC, masks=False) == refused(
        {"bank": ("feature", 8)} | CLINIC
    )


def test_masks_are_of_those_whom_the_aggregator_could_read() -> None:
    roles = {"bank": "feature", "clinic": "label", "carol": "coordinator"}
    assert contributors_of(roles, {"bank": 8, "clinic": 8, "carol": 16}) == ["bank", "clinic"]
    assert contributors_of(roles, {"bank": 8, "clinic": None, "carol": 16}) == ["bank"]
    assert contributors_of({"bank": "feature", "clinic": "label"}, {"bank": 8, "clinic": 8}) == ["bank"]


@pytest.mark.parametrize(
    "options",
    [{"clip": 0}, {"clip": -1}, {"clip": float("inf")}, {"clip": float("nan")}, {"ring_bits": 16},
     {"fraction_bits": -1}, {"fraction_bits": 127}, {"mask": False}],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(**options)


def test_a_ring_without_head_room_is_refused_with_what_would_fit() -> None:
    said = refused(BANK_SHOP | CLINIC, fraction_bits=24)
    assert "fraction_bits = 23 or fewer, a smaller clip or ring_bits = 64" in said
    assert "2 contributors" in said
    # A label party that sums adds its own: three numbers then.
    assert "3 contributors" in refused(BANK_SHOP | {"clinic": ("label", 8)}, clip=256.0, fraction_bits=22)
    check(BANK_SHOP | CLINIC, fraction_bits=24, ring_bits=64)
    assert "set a smaller clip or ring_bits = 64" in refused(BANK_SHOP | CLINIC, clip=1e12)


@settings(max_examples=100)
@given(
    k=st.integers(2, 64),
    own=st.booleans(),
    coordinator=st.booleans(),
    bits=st.sampled_from([32, 64]),
    clip=st.floats(2.0**-60, 2.0**62, width=32),
    fraction_bits=st.none() | st.integers(0, 126),
)
@example(k=64, own=True, coordinator=False, bits=32, clip=64.0, fraction_bits=None)
@example(k=63, own=True, coordinator=True, bits=64, clip=1.0, fraction_bits=57)
def test_what_is_let_in_cannot_overflow(
    k: int, own: bool, coordinator: bool, bits: int, clip: float, fraction_bits: int | None
) -> None:
    parties: Parties = {f"p{i}": ("feature", 8) for i in range(k)} | {"clinic": ("label", 8 if own else None)}
    parties |= CAROL if coordinator else {}
    try:
        check(parties, ring_bits=bits, clip=clip, fraction_bits=fraction_bits)
    except ConfigError:
        assume(False)
    summed = k + own
    ring = ring_of(Config(ring_bits=bits, clip=clip, fraction_bits=fraction_bits), summed)  # type: ignore[arg-type]
    for extreme in (clip, -clip, 3e38, -3e38):
        one, _ = ring.encode(torch.tensor([extreme], dtype=torch.float32))
        assert ring.total([one] * summed).item() == summed * one.item()
        assert abs(summed * one.item()) < 2 ** (bits - 1)


def test_a_session_sums_in_the_ring_that_its_roster_was_checked_for() -> None:
    for setup in (Setup(k=3), Setup(k=3, own=True), Setup(k=3, own=True, coordinator=True)):
        names, ring = sum_of(setup.sessions()[LABEL])
        assert names == setup.masked
        assert ring == ring_of(setup.config, 3 + setup.own)
        assert {sum_of(session)[1] for session in setup.sessions().values()} == {ring}


# --- counters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinator", [False, True])
@pytest.mark.parametrize("ahead", [0, 2])
def test_no_counter_is_used_twice_in_a_session(coordinator: bool, ahead: int) -> None:
    setup = Setup(k=3, own=True, coordinator=coordinator, ahead=ahead, epochs=3)
    with noting_masks() as used:
        rehearsal, _ = play(setup)
    masked = len(setup.masked)
    assert len(used) == masked * (3 * (4 + 1) + 1)
    assert len({(one.me, one.counter) for one in used}) == len(used)
    pads = [(key, one.counter) for one in used for key in one.keys.values()]
    assert all(pads.count(pad) == 2 for pad in pads)  # once at either end of the pair
    assert len({one.mask for one in used}) == len(used)
    for name in setup.masked:
        assert len(list(contributions(rehearsal, name))) == 3 * (4 + 1) + 1


def test_a_run_that_is_begun_anew_with_the_same_seed_has_no_key_and_no_mask_of_the_first() -> None:
    keys, masks, words = [], [], []
    for _ in range(2):
        with noting_masks() as used:
            rehearsal, _ = play(Setup(k=3, coordinator=True))
        keys.append({key for one in used for key in one.keys.values()})
        masks.append({one.mask for one in used})
        words.append(
            {
                m.q.numpy().tobytes()
                for name in ("party0", "party1")
                for _, m in contributions(rehearsal, name)
            }
        )
    for one, other in (keys, masks, words):
        assert one
        assert not one & other


def test_even_one_nonce_twice_gives_other_keys() -> None:
    keys: list[set[bytes]] = []
    setup = Setup(k=2, identities=False)
    for _ in range(2):
        company = cast(setup)
        company.sessions = {name: replace(s, nonce=bytes(16)) for name, s in company.sessions.items()}
        with noting_masks() as used:
            play(setup, company=company)
        keys.append({key for one in used for key in one.keys.values()})
    assert not keys[0] & keys[1]
