"""Originals: where they are found, what is refused, and what a broken download leaves behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_originals import CONTENT, Answer, sending, serving, tiny_original

from vfl.datasets.originals import Original, read_originals, where
from vfl.errors import ConfigError, DataError, StorageError

ELSEWHERE = "http://127.0.0.1:9/tiny.csv"  # the discard port: nobody listens
WRONG = hashlib.sha256(b"wrong").hexdigest()
RIGHT = hashlib.sha256(CONTENT).hexdigest()


def zipped(members: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return held.getvalue()


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def read_one(original: Original) -> bytes:
    return read_originals("tiny", [original])[original.name]


PACKED = {
    "tiny.csv": CONTENT,
    "tiny.csv.gz": gzip.compress(CONTENT),
    "other name.csv": CONTENT,
    "other name.csv.gz": gzip.compress(CONTENT),
    "served+by hand.zip": zipped({"a folder/tiny.csv": CONTENT, "__MACOSX/._tiny.csv": b"no"}),
    "inner.zip": zipped({"tiny.csv": CONTENT}),
}


@pytest.mark.parametrize("name", PACKED)
def test_an_original_is_found_under_vfl_data_however_it_is_packed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / name).write_bytes(PACKED[name])
    monkeypatch.setenv("VFL_DATA", str(tmp_path / "data"))
    url = "http://127.0.0.1:9/path/served+by%20hand.zip"
    original = tiny_original(url, aliases=("other name.csv",), inside=("inner.zip",))
    assert where("tiny", [original]) == str(tmp_path / "data")
    assert read_one(original) == CONTENT


def test_a_file_of_the_same_name_that_holds_something_else_is_passed_over(originals: Path) -> None:
    (originals / "aaa").mkdir()
    (originals / "aaa" / "tiny.csv").write_bytes(b"wrong")
    assert read_one(tiny_original(ELSEWHERE)) == CONTENT


def test_a_wrong_original_under_vfl_data_is_an_error_that_names_both_hashes(originals: Path) -> None:
    (originals / "some" / "where" / "tiny.csv.gz").write_bytes(gzip.compress(b"wrong"))
    with pytest.raises(DataError, match=f"tiny.csv.gz: it holds another .*{WRONG}, not {RIGHT}"):
        read_one(tiny_original(ELSEWHERE))


def test_a_truncated_gzip_under_vfl_data_is_one_line_that_names_it(originals: Path) -> None:
    path = originals / "some" / "where" / "tiny.csv.gz"
    path.write_bytes(gzip.compress(CONTENT)[:-9])
    with pytest.raises(DataError, match=r"tiny.csv.gz: it cannot be unpacked .* download it again"):
        read_one(tiny_original(ELSEWHERE))


def test_a_vfl_data_that_is_no_folder_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VFL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        read_one(tiny_original(ELSEWHERE))


@pytest.mark.parametrize(
    ("served", "body", "inside"),
    [
        ("tiny.csv", CONTENT, ()),
        ("tiny.csv.gz", gzip.compress(CONTENT), ()),
        ("tiny.zip", zipped({"in/tiny.csv": CONTENT}), ()),
        ("outer.zip", zipped({"tiny.zip": zipped({"tiny.csv": CONTENT})}), ("tiny.zip",)),
    ],
)
def test_a_download_is_unpacked_checked_and_kept(
    served: str, body: bytes, inside: tuple[str, ...], cache: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    with serving(sending(body)) as address:
        original = tiny_original(f"{address}/{served}", inside=inside)
        assert where("tiny", [original]) is None
        read = read_originals("tiny", [original], lambda url, done, total: seen.append((done, total)))
    assert read == {"tiny.csv": CONTENT}
    assert (seen[0], seen[-1]) == ((0, len(body)), (len(body), len(body)))
    assert left_in(cache) == ["tiny.csv"]
    assert where("tiny", [original]) == str(cache / "tiny")
    assert read_one(original) == CONTENT, "the server is gone: it is read from the cache"


def test_one_zip_with_two_originals_is_downloaded_once(cache: Path) -> None:
    asked = []
    send = sending(zipped({"tiny.csv": CONTENT, "more.csv": b"more"}))

    def answer(handler: object) -> None:
        asked.append(handler)
        send(handler)  # type: ignore[arg-type]

    with serving(answer) as address:
        one = tiny_original(f"{address}/both.zip")
        more = Original("more.csv", one.url, (hashlib.sha256(b"more").hexdigest(),))
        read = read_originals("tiny", [one, more])
    assert read == {"tiny.csv": CONTENT, "more.csv": b"more"}
    assert len(asked) == 1
    assert left_in(cache) == ["more.csv", "tiny.csv"]


def drop(handler: object) -> None:
    """Hangs up without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]


def half_of_chunks(handler: object) -> None:
    handler.protocol_version = "HTTP/1.1"  # type: ignore[attr-defined]
    handler.send_response(200)  # type: ignore[attr-defined]
    handler.send_header("Transfer-Encoding", "chunked")  # type: ignore[attr-defined]
    handler.end_headers()  # type: ignore[attr-defined]
    handler.wfile.write(b"ff\r\nhalf of it")  # type: ignore[attr-defined]


BROKEN = {
    "a page that is gone": (
        sending(b"no", status=404),
        "cannot be downloaded .the server says 404 Not Found",
    ),
    "cut off half-way": (sending(CONTENT[:99], claimed=len(CONTENT)), "cut off after 99 of"),
    "cut off in a chunk": (half_of_chunks, "cannot be downloaded"),
    "hung up": (drop, "cannot be downloaded"),
    "something else": (sending(b"wrong"), f"does not serve what it did: .* {WRONG}, not {RIGHT}"),
    "too large": (sending(b"x" * 5000), "larger than 4,096 bytes"),
    "too large once unpacked": (sending(gzip.compress(b"x" * 1_000_000)), "larger than 4,096 bytes"),
    "no zip after all": (sending(b"PK\x03\x04 not really"), "cannot be unpacked"),
    "a zip without it": (sending(zipped({"else.csv": CONTENT})), "there is no tiny.csv in it"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_download_is_one_line_and_leaves_nothing(fault: str, cache: Path) -> None:
    answer, words = BROKEN[fault]
    with serving(answer) as address, pytest.raises(DataError, match=words) as caught:
        read_one(tiny_original(f"{address}/tiny.csv", max_bytes=4096))
    assert "\n" not in str(caught.value)
    assert left_in(cache) == []


def test_no_server_is_an_error_that_says_what_to_do(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tiny.csv"
    with pytest.raises(DataError, match=f"{url} cannot be downloaded .*set VFL_DATA to that folder"):
        read_one(tiny_original(url))
    assert left_in(cache) == []


def test_a_server_that_falls_silent_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfl.datasets.originals._SILENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/tiny.csv"
        with pytest.raises(DataError, match=r"cannot be downloaded \(.*timed out"):
            read_one(tiny_original(url))
    assert left_in(cache) == []


def test_ctrl_c_half_way_leaves_nothing(cache: Path) -> None:
    def interrupt(url: str, done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    answer: Answer = sending(CONTENT)
    with serving(answer) as address, pytest.raises(KeyboardInterrupt):
        read_originals("tiny", [tiny_original(f"{address}/tiny.csv")], interrupt)
    assert left_in(cache) == []


def test_ctrl_c_while_it_is_kept_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with serving(sending(CONTENT)) as address, pytest.raises(KeyboardInterrupt):
        read_one(tiny_original(f"{address}/tiny.csv"))
    assert left_in(cache) == []


def test_what_went_bad_in_the_cache_is_downloaded_again(cache: Path) -> None:
    (cache / "tiny").mkdir(parents=True)
    (cache / "tiny" / "tiny.csv").write_bytes(b"wrong")
    with serving(sending(CONTENT)) as address:
        assert read_one(tiny_original(f"{address}/tiny.csv")) == CONTENT
    assert (cache / "tiny" / "tiny.csv").read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_variable(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with serving(sending(CONTENT)) as address, pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        read_one(tiny_original(f"{address}/tiny.csv"))
