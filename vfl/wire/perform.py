"""The network driver: one party's role over its link."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar

from vfl.errors import Interrupted, VflError
from vfl.wire.line import Line, Receive, Role, Send
from vfl.wire.link import Link

T = TypeVar("T")

#: How long a hub that gives up before all have joined stays to tell those who are about to.
_FAREWELL_S: Final = 2.0


def perform(role: Role[T], link: Link, *, stream: AbstractContextManager[object] | None = None) -> T:
    """Joins the peers, runs the role to its end and takes leave; returns the role's result.

    Whatever ends the role early, each peer is told the reason in a word before the error is raised
    here, so that nobody waits for a party that has gone.

    Args:
        role: a function of a `Line`, as for `rehearse`.
        link: this party's link, not yet open; closed when this returns.
        stream: the random state to run the role in.

    Raises:
        VflError: as the role, the peers or the network give cause.
        Interrupted: on Ctrl-C.
    """
    with link:
        try:
            with stream or nullcontext():
                link.open()
                result = _run(role, link)
                link.finish()
        except KeyboardInterrupt as error:
            link.abort("interrupted", link.me)
            raise Interrupted("interrupted; the peers have been told") from error
        except VflError as error:
            about = error.about or link.me
            if link.is_open or link.me != link.hub:
                link.abort(error.reason, about)
            else:
                link.decline(error.reason, about, _FAREWELL_S)
            raise
        except BaseException:
            link.abort("failed", link.me)
            raise
    return result


def _run(role: Role[T], link: Link) -> T:
    coroutine = role(Line(link.me))
    answer: Any = None
    fault: VflError | None = None
    try:
        while True:
            request = coroutine.throw(fault) if fault else coroutine.send(answer)
            answer = fault = None
            try:
                if isinstance(request, Send):
                    link.say(request.to, request.message, request.phase)
                elif isinstance(request, Receive):
                    answer = link.hear(request.senders, request.phase)
                else:
                    link.dismiss(request.name)
            except VflError as error:
                fault = error  # raised inside the role, which may know how to go on without that peer
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        coroutine.close()
