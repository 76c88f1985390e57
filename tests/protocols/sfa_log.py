"""Notes what each party contributes, of which rows and with which weights, to tell what sums can show."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from casting import LABEL
from liars import Wrap, lying
from sfa_cast import Company, Setup, cast, play

from vfl.errors import PeerAborted, PeerLost
from vfl.masking.contributing import Contribution
from vfl.wire.line import Send
from vfl.wire.rehearse import Rehearsal


@dataclass(frozen=True)
class Spoken:
    """Is one contribution as its own party knows it: which rows, with which weights, in which roster."""

    party: str
    split: str
    epoch: int
    step: int
    roster: int
    rows: tuple[bytes, ...]
    weights: bytes


def spying(company: Company, name: str, log: list[Spoken]) -> Wrap:
    """Notes of everything that a party contributes the rows and the weights that it is made of."""
    learner = company.learners["own" if name == LABEL else name]

    def change(send: Send) -> Send:
        said = send.message
        if isinstance(said, Contribution):
            epoch = said.epoch if send.phase == "train" else None
            batches = company.rows["party0"].batches(send.phase, epoch)
            batch = next(itertools.islice(batches, said.step, None))
            assert batch.mark == said.mark
            rows = tuple(row.tobytes() for row in batch.inputs[0].numpy())
            state = b"".join(weight.numpy().tobytes() for weight in learner.weights().values())
            digest = hashlib.sha256(state).digest()
            log.append(Spoken(name, send.phase, said.epoch, said.step, said.roster, rows, digest))
        return send

    return lying(change)


def play_with(
    setup: Setup, order: Sequence[str] = (), **mortals: Wrap
) -> tuple[Rehearsal | Exception, Company, list[Spoken]]:
    """Plays and notes what was contributed; an error is what came of it."""
    company, log = cast(setup), []  # type: ignore[var-annotated]
    company_roles = {name: spying(company, name, log) for name in setup.masked}

    def both(spy: Wrap, mortal: Wrap) -> Wrap:
        return lambda role: spy(mortal(role))

    wraps = company_roles | {name: both(company_roles[name], wrap) for name, wrap in mortals.items()}
    try:
        return play(setup, company=company, order=order, **wraps)[0], company, log
    except (PeerLost, PeerAborted) as error:
        return error, company, log


def assert_no_sum_shows_anybody(log: list[Spoken]) -> None:
    """Checks all that whoever sums could add up, from every word that was said to it, in time or not.

    No batch is said under two rosters; and where one row can be summed under two rosters with other names,
    somebody who is in both has learned in between.
    """
    rosters: dict[tuple[str, str, int, int], set[int]] = defaultdict(set)
    for one in log:
        rosters[one.party, one.split, one.epoch, one.step].add(one.roster)
    assert all(len(numbers) == 1 for numbers in rosters.values())
    for found in _sums_by_row(log).values():
        for mine, other in itertools.combinations(found, 2):
            if mine.keys() != other.keys():
                assert any(mine[name] != other[name] for name in mine.keys() & other.keys())


def _sums_by_row(log: list[Spoken]) -> dict[bytes, list[dict[str, bytes]]]:
    """Lists for each row the sums that can be made of it: of whom, with which weights."""
    said: dict[tuple[str, int, int, int], dict[str, Spoken]] = defaultdict(dict)
    members = defaultdict(set)
    for one in log:
        said[one.split, one.epoch, one.step, one.roster][one.party] = one
        members[one.roster].add(one.party)
    sums: dict[bytes, list[dict[str, bytes]]] = defaultdict(list)
    for (*_, roster), words in said.items():
        if words.keys() == members[roster]:
            for row in next(iter(words.values())).rows:
                sums[row].append({name: one.weights for name, one in words.items()})
    return sums
