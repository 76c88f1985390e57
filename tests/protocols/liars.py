"""Makes liars: a malicious party is an honest role whose words are changed on their way out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from types import coroutine
from typing import Any

from vfl.wire.line import Line, Request, Role, Send

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
    answer: Any = None
    fault: Exception | None = None
    try:
        while True:
            request = inner.throw(fault) if fault else inner.send(answer)
            answer = fault = None
            changed = change(request) if isinstance(request, Send) else request
            for one in [changed] if isinstance(changed, Request) else changed:
                try:
                    answer = yield one
                except Exception as error:  # what the driver throws is for the role to catch
                    fault = error
    except StopIteration as stop:
        return stop.value
    finally:
        inner.close()
