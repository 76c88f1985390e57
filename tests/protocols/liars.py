"""Makes liars: a malicious party is an honest role whose words are changed on their way out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from types import coroutine
from typing import Any

from vfl.wire.line import Line, Role, Send

Change = Callable[[Send], Send | Sequence[Send]]
Wrap = Callable[[Role[Any]], Role[Any]]


def lying(change: Change) -> Wrap:
    """Makes a role a liar: `change` may alter, drop or multiply whatever it would say."""

    def wrap(role: Role[Any]) -> Role[Any]:
        async def liar(line: Line) -> object:
            return await _driven(role, line, change)

        return liar

    return wrap


@coroutine
def _driven(role: Role[Any], line: Line, change: Change) -> Generator[Any, Any, Any]:
    inner = role(line)
    answer = None
    try:
        while True:
            request = inner.send(answer)
            if not isinstance(request, Send):
                answer = yield request
                continue
            said = change(request)
            yield from [said] if isinstance(said, Send) else said
            answer = None
    except StopIteration as stop:
        return stop.value
    finally:
        inner.close()
