"""The job and the site as documents: what they accept, and what of them all parties compare."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vfl.config.job import Job, flatten, is_party_name
from vfl.config.site import Site
from vfl.wire.channel import WINDOW_MESSAGES

JOB: dict[str, Any] = {
    "name": "j",
    "protocol": "splitnn",
    "task": "binary",
    "epochs": 1,
    "batch_size": 8,
    "parties": {
        "bank": {"role": "feature", "width": 4},
        "club": {"role": "label", "address": "tcp://club.example:5555"},
    },
}
KEY = "a" * 40


def job(**changes: object) -> Job:
    return Job.model_validate(JOB | changes)


def test_a_job_compares_everything_but_each_hosts_own_view_of_the_network() -> None:
    facts = job(timing={"hear_s": 5}).facts()
    assert facts["batch_size"] == 8
    assert facts["parties.bank.width"] == 4
    assert facts["optimizer.name"] == "Adam"
    assert facts["split.valid"] == 0.2
    assert not [key for key in facts if "address" in key or "timing" in key]


def test_a_partys_or_an_options_name_keeps_nothing_from_being_compared() -> None:
    parties = {"address": {"role": "feature", "width": 4, "address": "tcp://h:1"}, "club": {"role": "label"}}
    facts = job(parties=parties, protocols={"mine": {"timing": 3, "address": "x"}}).facts()
    assert (facts["parties.address.role"], facts["parties.address.width"]) == ("feature", 4)
    assert (facts["protocols.mine.timing"], facts["protocols.mine.address"]) == (3, "x")
    assert "parties.address.address" not in facts


def test_a_role_that_runs_ahead_never_waits_for_room_on_the_way() -> None:
    assert job(ahead=32).ahead < WINDOW_MESSAGES
    with pytest.raises(ValidationError, match="less than or equal to 32"):
        job(ahead=33)


def test_defaults_are_compared_as_if_they_were_written() -> None:
    assert job().facts() == job(seed=0, split={"valid": 0.2, "test": 0.2}).facts()
    assert job().facts() != job(seed=1).facts()


def test_the_order_of_the_parties_is_the_jobs() -> None:
    assert job().with_role("feature") == ["bank"]
    assert list(job().parties) == ["bank", "club"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parties": {}}, "at least 1"),
        ({"parties": {"Bank": {"role": "feature"}}}, "is no party name"),
        ({"parties": {"split": {"role": "feature"}}}, "is a word of the job file itself"),
        ({"parties": {n: {"role": "feature", "public_key": KEY} for n in "ab"}}, "share one public_key"),
        ({"parties": {"a": {"role": "feature", "width": 0}}}, "greater than or equal to 1"),
        ({"parties": {"a": {"role": "feature", "address": "tcp://host"}}}, "write it as tcp://HOST:PORT"),
        ({"parties": {"a": {"role": "feature", "address": "http://host:1"}}}, "write it as tcp://HOST:PORT"),
        ({"epochs": 1.5}, "valid integer"),
        ({"epochs": "3"}, "valid integer"),
        ({"epochs": True}, "valid integer"),
        ({"clip_norm": float("nan")}, "finite"),
        ({"seed": 2**63}, "less than"),
        ({"split": {"valid": 0.6, "test": 0.4}}, "must be below 1"),
        ({"task": "multiclass"}, "says how many there are"),
        ({"classes": 2}, "is for a multiclass task"),
        ({"timing": {"hear_s": 0}}, "greater than 0"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        job(**changes)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:1", "tcp://[::1]:5555", "tcp://a-b.example:65535", "tcp://*:5555"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    found = job(parties={"club": {"role": "label", "address": address}})
    assert found.parties["club"].address == address


def test_whole_numbers_do_where_others_are_wanted() -> None:
    assert job(clip_norm=1).clip_norm == 1.0


def test_documents_do_not_change() -> None:
    with pytest.raises(ValidationError):
        job().epochs = 3  # type: ignore[misc]


def test_a_site_needs_a_party() -> None:
    with pytest.raises(ValidationError) as caught:
        Site.model_validate({})
    assert {fault["loc"] for fault in caught.value.errors()} == {("party",)}


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("bank", True), ("b-2_x", True), ("a" * 32, True), ("a" * 33, False), ("", False), ("2b", False),
     ("a.b", False), ("a/b", False), ("é", False), ("a\n", False)],
)  # fmt: skip
def test_a_party_name_is_safe_as_a_file_name_and_a_key(name: str, is_one: bool) -> None:
    assert is_party_name(name) == is_one


@given(
    st.recursive(
        st.integers() | st.text() | st.booleans(),
        lambda inner: (
            st.lists(inner, min_size=1) | st.dictionaries(st.text("abc", min_size=1), inner, min_size=1)
        ),
    )
)
def test_flattening_keeps_every_value(value: object) -> None:
    def leaves(inner: object) -> list[object]:
        if isinstance(inner, dict):
            return [leaf for item in inner.values() for leaf in leaves(item)]
        if isinstance(inner, list):
            return [leaf for item in inner for leaf in leaves(item)]
        return [inner]

    assert sorted(map(repr, flatten({"k": value}).values())) == sorted(map(repr, leaves(value)))


RATED: dict[str, Any] = {
    "name": "films",
    "protocol": "fedmmf",
    "task": "recommendation",
    "scale": [0.5, 5.0],
    "epochs": 3,
    "parties": {"north": {"role": "participant"}, "carol": {"role": "coordinator"}},
}


def test_a_recommendation_needs_no_batch_size_and_compares_scale_and_split() -> None:
    facts = Job.model_validate(RATED).facts()
    assert (facts["scale.0"], facts["scale.1"], facts["split.kind"]) == (0.5, 5.0, "fraction")
    assert Job.model_validate(RATED | {"split": {"kind": "time"}}).facts() != facts


def test_a_recommendation_written_out_with_all_defaults_reads_back() -> None:
    one = Job.model_validate(RATED)
    assert Job.model_validate(one.model_dump(mode="json")) == one
    columns = job()
    assert Job.model_validate(columns.model_dump(mode="json")) == columns


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 8), ("ahead", 1), ("optimizer", {"name": "SGD"}), ("clip_norm", 2.0)],
)
def test_what_networks_are_trained_by_is_refused_for_ratings(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=rf"{key} = .* is of no use in a recommendation; leave it out"):
        Job.model_validate(RATED | {key: value})


def test_networks_need_a_batch_size_and_have_no_scale() -> None:
    unbatched = {key: value for key, value in JOB.items() if key != "batch_size"}
    with pytest.raises(ValidationError, match="batch_size: is missing; add it"):
        Job.model_validate(unbatched)
    with pytest.raises(ValidationError, match="scale is for a recommendation"):
        job(scale=[1.0, 2.0])
    with pytest.raises(ValidationError, match=r"split\.kind = 'time' is for a recommendation"):
        job(split={"kind": "time"})


@given(low=st.floats(-10, 10), high=st.floats(-10, 10))
def test_a_scale_goes_up(low: float, high: float) -> None:
    document = RATED | {"scale": [low, high]}
    if low < high:
        assert Job.model_validate(document).scale == [low, high]
    else:
        with pytest.raises(ValidationError, match="the lowest rating, then the highest"):
            Job.model_validate(document)
