"""A made-up data set, its one original, and a server on loopback for it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from vfl.datasets.catalogue import Dataset, Party
from vfl.datasets.originals import Original
from vfl.datasets.parsing import Columns, Contents

ROWS = 40
CONTENT = (
    b"name,height,town,ill\n"
    + "".join(
        f"{row},{150 + row},{('Lübeck', 'Oslo', '')[row % 3]},{row % 2}\n" for row in range(ROWS)
    ).encode()
)
Answer = Callable[[BaseHTTPRequestHandler], None]


def parse_tiny(contents: Contents) -> Columns:
    rows = [line.split(",") for line in contents["tiny.csv"].decode().splitlines()[1:]]
    return {
        "id": np.array([f"tiny-{row[0]}" for row in rows], dtype=object),
        "height": np.array([int(row[1]) for row in rows]),
        "town": np.array([row[2] for row in rows], dtype=object),
        "ill": np.array([int(row[3]) for row in rows]),
    }


def tiny_original(url: str, **changes: object) -> Original:
    given = {"name": "tiny.csv", "url": url, "sha256": (hashlib.sha256(CONTENT).hexdigest(),), **changes}
    return Original(**given)  # type: ignore[arg-type]


def tiny_dataset(original: Original) -> Dataset:
    return Dataset(
        name="tiny",
        rows=ROWS,
        what="nobody",
        licence="none needed",
        citation="Nobody (2000).",
        origin="here",
        ids="made",
        parties=(
            Party("clinic", ("height", "ill"), label="ill"),
            Party("town", ("town",), categorical=("town",)),
        ),
        parse=parse_tiny,
        originals=(original,),
    )


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serves on a loopback port; `answer` writes to `handler.wfile` what goes over the wire."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sending(body: bytes, *, claimed: int | None = None, status: int = 200) -> Answer:
    """Answers with this body, and claims that it has another length if so told."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        handler.end_headers()
        handler.wfile.write(body)

    return answer
