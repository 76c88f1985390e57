"""Obfuscators made ahead, while the party waits for its peer or for its own network."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from gmpy2 import mpz

from vfl.paillier.obfuscation import Obfuscators

#: Another process is asked for so many at a time: one at a time would pay for the asking.
_BATCH: Final = 32


class Pool:
    """Holds obfuscators that a thread in the background makes; each is drawn once.

    The thread shares the interpreter with the party, so it helps where the party waits; with a `batch` that
    asks another process (`Workers.obfuscators`), it helps in any case. An empty pool draws from the source
    there and then.

    Args:
        source: where obfuscators come from.
        capacity: how many are held at most.
        batch: makes several at once; None draws one after the other from the source.
    """

    def __init__(
        self, source: Obfuscators, capacity: int, batch: Callable[[int], list[mpz]] | None = None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a pool of {capacity}")
        self._source, self._capacity = source, capacity
        self._batch = batch
        self._ready: deque[mpz] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="obfuscators", daemon=True)
        self._thread.start()

    def draw(self) -> mpz:
        """Returns one that nobody was given before.

        Raises:
            Exception: what ended the work in the background.
        """
        with self._changed:
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error:
                raise self._error
        return self._source.draw()

    def wait_until_full(self) -> None:
        """Returns when the pool holds as many as it may, or has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._room() == 0 or self._error or self._is_closing)

    def close(self) -> None:
        """Ends the thread and forgets what is left."""
        with self._changed:
            self._is_closing = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _room(self) -> int:
        return self._capacity - len(self._ready)

    def _work(self) -> None:
        try:
            while (room := self._awaited_room()) > 0:
                made = self._batch(min(room, _BATCH)) if self._batch else [self._source.draw()]
                with self._changed:
                    if not self._is_closing:
                        self._ready.extend(made)
                    self._changed.notify_all()
        except Exception as error:  # handed to who draws next
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _awaited_room(self) -> int:
        """Returns how many may be made, once that is one at least; 0 when the pool is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._room() > 0 or self._is_closing)
            return 0 if self._is_closing else self._room()
