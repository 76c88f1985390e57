"""Who may take part, with which options, and what a step costs, is known before anything is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from casting import LABEL
from paillier_cast import FEATURE, Setup, cast, play
from pydantic import ValidationError

from protocols import paillier
from protocols.paillier import cost
from protocols.paillier.cost import count, step_bytes, step_seconds
from protocols.paillier.notes import draws_of
from protocols.paillier.scales import scales_of
from vfl.errors import ConfigError
from vfl.paillier.cost import Costs
from vfl.paillier.pool import Pool
from vfl.paillier.share import Share

CONFIG = paillier.Config(width=3)
COSTS = Costs(512, 1e-3, 2e-3, 5e-6, 5e-3, 1e-7, 1e-7, 1e-7)


def refused(config: paillier.Config = CONFIG, **parties: tuple[str, int | None]) -> str:
    roles, widths = ({name: party[place] for name, party in parties.items()} for place in (0, 1))
    with pytest.raises(ConfigError) as caught:
        paillier.check_roster(config, roles, widths)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_parties_are_taken_in_either_order() -> None:
    for own in (None, 3, 8):
        roles, widths = {"bank": "label", "shop": "feature"}, {"bank": own, "shop": 4}
        paillier.check_roster(CONFIG, roles, widths)
    paillier.check_roster(replace_cut("sum"), roles, {"bank": 3, "shop": 4})


def replace_cut(cut: str) -> paillier.Config:
    return CONFIG.model_copy(update={"cut": cut})


def test_others_than_two_are_refused_with_what_to_do() -> None:
    one, other, label = ("feature", 4), ("feature", 2), ("label", None)
    assert '0 have role = "feature"'.replace('"', "'") in refused(bank=label)
    assert 'set protocol = "sfa" or "splitnn"' in refused(shop=one, club=other, bank=label)
    assert "exactly one holds the label" in refused(shop=one)
    assert "exactly one holds the label" in refused(shop=one, bank=label, post=label)
    assert "parties.shop.width: is missing" in refused(shop=("feature", None), bank=label)


def test_a_cut_of_one_width_needs_that_of_the_cut_layer() -> None:
    said = refused(replace_cut("sum"), shop=("feature", 4), bank=("label", 4))
    assert 'parties.bank.width: is 4 and protocols.paillier.width is 3; cut = "sum" needs one width' in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Field required"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"width": 3, "lr": 0.0}, "greater than 0"),
        ({"width": 3, "lr": float("inf")}, "finite"),
        ({"width": 3, "cut": "sun"}, "is no cut"),
        ({"width": 3, "key_bits": 1024}, "unsafe_small_key = true"),
        ({"width": 3, "key_bits": 4096}, "set 2048 or 3072"),
        ({"width": 3, "key_bits": 128, "unsafe_small_key": True}, "set 2048 or 3072"),
        ({"width": 3, "key_bits": 1000, "unsafe_small_key": True}, "set 2048 or 3072"),
        ({"width": 3, "clip": 200.0, "value_bits": 8}, "does not fit value_bits = 8; lower it"),
        ({"width": 3, "value_bits": 64}, "less than or equal to 24"),
        ({"width": 3, "noise_bits": 8}, "greater than or equal to 40"),
        ({"width": 3, "encryption": "aes"}, "'paillier' or 'none'"),
        ({"width": 3, "momentum": 0.9}, "Extra inputs"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_remedy(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        paillier.Config.model_validate(options)


def test_the_joint_is_given_the_cut_layers_width() -> None:
    assert paillier.joint_widths(CONFIG, {"shop": 40, "bank": 5}) == {"shop": 3, "bank": 5}
    assert paillier.joint_widths(CONFIG, {"shop": 40}) == {"shop": 3}


@pytest.mark.parametrize("role", ["feature", "label"])
def test_each_party_has_a_share_of_the_cut_layer(role: str) -> None:
    made = paillier.layers(CONFIG, role, {"shop": 40, "bank": 5})
    assert made.keys() == {"share"}
    assert isinstance(made["share"], Share)
    assert made["share"].shape == (40, 3)


def test_two_parties_never_draw_alike() -> None:
    setup = Setup()
    mine, theirs, again = (draws_of(setup.session(name)).below(2**128) for name in (FEATURE, LABEL, FEATURE))
    assert mine == again != theirs
    fresh = replace(setup, noise=None)
    assert draws_of(fresh.session(LABEL)).below(2**128) != draws_of(fresh.session(LABEL)).below(2**128)


@pytest.mark.parametrize("encryption", ["paillier", "none"])
@pytest.mark.parametrize("own", [False, True])
def test_a_step_stays_within_its_bytes_and_comes_near_them(own: bool, encryption: str) -> None:
    setup = Setup(own=own, encryption=encryption, options={"key_bits": 1024}, epochs=1)
    rehearsal, _ = play(setup)
    session, sizes = setup.session(FEATURE), cast(setup).rows[FEATURE].sizes("train")
    bounds = [step_bytes(session, rows) for rows in sizes]
    bounds_of_test = step_bytes(session, setup.n["test"], learning=False)
    for place, name in enumerate(("sender", "to")):
        for phase, bound in (("train", sum(b[place] for b in bounds)), ("test", bounds_of_test[place])):
            said = [s for s in rehearsal.transcript if s.phase == phase and getattr(s, name) == FEATURE]
            counted = sum(s.n_bytes for s in said if "Clipped" not in type(s.message).__name__)
            assert 0.25 * bound < counted <= bound


def test_the_operations_of_a_step_are_counted_as_they_are_made() -> None:
    setup = Setup(n={"train": 8, "valid": 0, "test": 0}, epochs=1)
    drawn: dict[str, int] = {}
    scales = scales_of(setup.session(FEATURE), 8, 1)
    feature, label = count(scales, 8, learning=True)
    rehearsal, _ = play(setup)
    width = 2 * 512 // 8
    for said in rehearsal.transcript:
        if type(said.message).__name__ in ("PublicKey", "InitialShare"):
            continue  # said once
        for field in ("columns", "rows", "share", "product", "weights", "embedding"):
            value = getattr(said.message, field, None)
            if isinstance(value, torch.Tensor) and not type(said.message).__name__.startswith("Noised"):
                drawn[said.sender] = drawn.get(said.sender, 0) + len(value) // width
    assert drawn == {FEATURE: feature.obfuscators, LABEL: label.obfuscators}
    assert feature.decryptions == label.obfuscators


def test_a_step_with_more_work_is_expected_to_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "measure", lambda key, seconds: COSTS)
    setup = Setup(width=16, outputs=16)
    on_one, on_two, later = (
        step_seconds(setup.session(FEATURE), cores=cores, steps=steps, seconds=0.01)
        for cores, steps in ((1, 100), (2, 100), (1, 10**6))
    )
    assert on_one(64, True) > on_one(64, False) > 0
    assert on_one(256, True) > on_one(64, True)
    assert later(256, True) > on_one(256, True)
    assert on_two(256, True) == on_one(256, True)  # a small key is not worth a process
    full = Setup(width=16, outputs=16, batch_size=256, options={"key_bits": 2048, "unsafe_small_key": False})
    monkeypatch.setattr(cost, "make_keys", lambda bits, unsafe_small_key: None)
    one, two = (step_seconds(full.session(FEATURE), cores=cores, steps=100) for cores in (1, 2))
    assert one(256, True) / 2 < two(256, True) < one(256, True)
    assert 1.5 < one(256, True) < 3.5  # 256 decryptions of 5 ms, and products, of b = 256 and d = k = 16
    clear = step_seconds(replace(full, encryption="none").session(FEATURE), cores=1, steps=100)
    assert 0 < clear(256, True) < one(256, True) / 10


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("bits", [(20, 20, 78), (24, 24, 72), (24, 20, 75)])
def test_what_a_step_costs_is_known_of_all_options_that_a_training_runs_with(
    rows: int, bits: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "measure", lambda key, seconds: COSTS)
    options = dict(zip(("value_bits", "gradient_bits", "noise_bits"), bits, strict=True))
    setup = Setup(
        n={"train": rows, "valid": 9, "test": 9}, batch_size=rows, width=16, outputs=8, epochs=1,
        encryption="none", options={"key_bits": 1024, "lr": 0.05, "gradient_clip": 1.0} | options,
    )  # fmt: skip
    rehearsal, _ = play(setup)
    bound = step_bytes(setup.session(FEATURE), rows)
    for place, name in enumerate(("sender", "to")):
        said = [s for s in rehearsal.transcript if s.phase == "train" and getattr(s, name) == FEATURE]
        assert 0.25 * bound[place] < sum(s.n_bytes for s in said) <= bound[place]
    assert step_bytes(setup.session(FEATURE), 1025) > bound  # as large as an evaluation's
    seconds = step_seconds(setup.session(FEATURE), cores=1, steps=2**20)
    assert seconds(rows, True) > seconds(rows, False) > 0


def test_a_last_batch_of_few_rows_costs_less_and_is_no_error() -> None:
    n, options = (
        {"train": 48, "valid": 0, "test": 9},
        {"weight_fraction_bits": 34, "lr": 0.05, "gradient_clip": 1},
    )
    setup = Setup(n=n, batch_size=46, epochs=1, encryption="none", options=options)
    assert cast(setup).rows[FEATURE].sizes("train") == [46, 2]
    play(setup)
    bounds = [step_bytes(setup.session(FEATURE), rows) for rows in (46, 2)]
    assert bounds[1] < bounds[0]


def test_obfuscators_are_made_ahead_for_the_largest_batch_of_any_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    begun = Pool.__init__

    def noting(self: Pool, source: Any, capacity: int, batch: Any = None) -> None:  # noqa: ANN401
        sizes.append(capacity)
        begun(self, source, capacity, batch)

    monkeypatch.setattr(Pool, "__init__", noting)
    setup = Setup(n={"train": 8, "valid": 90, "test": 200}, epochs=1)
    play(setup)
    scales = scales_of(setup.session(FEATURE), 8, 1)
    works = [count(scales, rows, learning=learning) for rows, learning in ((8, True), (200, False))]
    assert sizes == [works[1][0].obfuscators, works[1][1].obfuscators]
    assert works[1][0].obfuscators > works[0][0].obfuscators


def test_more_cores_share_products_and_not_what_each_makes_of_the_bases() -> None:
    work = cost.Work(6, ((16, 3, 100), (20, 8, 16)), 0, 0, 0, 0, 0)
    for cores in (1, 2, 3):
        products = sum(COSTS.products_s(n, -(-many // cores), bits) for n, many, bits in work.products)
        assert work.seconds(COSTS, cores) == pytest.approx(6 * COSTS.decryption_s / cores + products)


def test_a_training_too_long_for_its_slots_is_an_error_before_anything_is_said() -> None:
    setup = Setup(options={"value_bits": 24, "gradient_bits": 24, "noise_bits": 80}, batch_size=16)
    long = replace(setup, epochs=10**9)
    with pytest.raises(ConfigError, match=r"protocols\.paillier: slots of"):
        play(long)


def test_running_ahead_is_an_error_that_says_why() -> None:
    with pytest.raises(ConfigError, match=r"job: ahead = 1: .* set ahead = 0"):
        play(Setup(ahead=1))
