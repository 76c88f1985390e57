"""Roles of an agreement on keys, for its tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vfl.crypto.pairs import new_secret, public_of
from vfl.errors import VflError
from vfl.masking.agreeing import KINDS, Roster, agree_on_keys, relay_keys
from vfl.session import Member, Session
from vfl.wire.line import Line
from vfl.wire.rehearse import Rehearsal, rehearse

ABC = ("a", "b", "c")
STRANGE = public_of(bytes(range(32)))
OTHER_KEY = "hub: passed on another key than"


def sessions(
    names: Sequence[str], nonce: bytes = b"n" * 16, *, identities: bool = True
) -> dict[str, Session]:
    secrets = {name: new_secret() if identities else None for name in names}
    members = {"hub": Member("coordinator")}
    for name, secret in secrets.items():
        members[name] = Member("feature", 8, public_of(secret) if secret else None)
    return {
        name: Session(name, "hub", members, b"n" * 16, secret_key=secret) for name, secret in secrets.items()
    }


def contributor(session: Session, check: Callable[[Roster], None] = lambda roster: None) -> Any:  # noqa: ANN401
    async def role(line: Line) -> tuple[dict[str, bytes], Roster]:
        roster = await line.hear("hub", Roster)
        return await agree_on_keys(line, session, "hub", roster, check)

    return role


def honest(*rosters: Roster) -> Any:  # noqa: ANN401 - a role
    async def role(line: Line) -> None:
        for roster in rosters:
            await relay_keys(line, roster)

    return role


def play(hub: Any, names: Sequence[str] = ABC, **kinds: Any) -> Rehearsal:  # noqa: ANN401
    given = sessions(names, **kinds)
    return rehearse({"hub": hub} | {name: contributor(given[name]) for name in names}, KINDS)


def noting(session: Session) -> Any:  # noqa: ANN401 - a role
    """Plays a contributor that ends with what it found out, so that the others' ends are seen too."""

    async def role(line: Line) -> Any:  # noqa: ANN401
        try:
            return await contributor(session)(line)
        except VflError as error:
            return str(error)

    return role
