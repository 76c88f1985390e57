"""Originals of public data sets: found on this machine or downloaded, and used only if their hash is known.

They are looked for in this order:

    $VFL_DATA   a folder of any layout that holds them as downloaded, unpacked or gzipped
    the cache   vfl-framework/ in $XDG_CACHE_HOME or ~/.cache, which downloads fill
    the source  over https

What a file *holds* is hashed, after it is unpacked, so that it does not matter who packed it. Nothing is
written anywhere before the hash is right, and a file gets its name only when it is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import lzma
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from vfl import __version__
from vfl.errors import ConfigError, DataError, StorageError, VflError

#: Is told of a download: its address, the bytes that are here, and how many there will be if that is known.
Progress = Callable[[str, int, int | None], None]

DATA_VARIABLE: Final = "VFL_DATA"
_CACHE_NAME: Final = "vfl-framework"
_CHUNK_BYTES: Final = 64 * 1024
_SILENCE_S: Final = 30.0  # a server that says nothing for so long is taken for gone


@dataclass(frozen=True)
class Original:
    """Is one file as its publisher made it.

    Attributes:
        name: what it is called once unpacked.
        url: where it is published, by itself, gzipped or within a zip.
        sha256: of what it holds, unpacked; the first is of what `url` serves, the others of the same
            rows written otherwise.
        inside: the zips within the one at `url` that hold it, outermost first.
        aliases: other names that it goes by.
        max_bytes: how large it may be, packed or not.
    """

    name: str
    url: str
    sha256: tuple[str, ...]
    inside: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    max_bytes: int = 16 * 2**20

    def names(self) -> tuple[str, ...]:
        """Names the files that may hold it: itself, or what is downloaded by hand."""
        plain = (self.name, *self.aliases)
        served = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(self.url).path)).name
        return (*plain, *(f"{name}.gz" for name in plain), served, *self.inside)


def where(dataset: str, originals: Sequence[Original]) -> str | None:
    """Says where all the originals of a data set seem to be, going by their names; None: to be downloaded.

    Raises:
        ConfigError: VFL_DATA names no folder.
    """
    candidates = _candidates(originals)
    folders: dict[str, None] = {}
    for original in originals:
        if candidates[original.name]:
            folders[os.environ[DATA_VARIABLE]] = None
        elif (cache_folder() / dataset / original.name).is_file():
            folders[str(cache_folder() / dataset)] = None
        else:
            return None
    return " and ".join(folders)


def read_originals(
    dataset: str, originals: Sequence[Original], progress: Progress = lambda url, done, total: None
) -> dict[str, bytes]:
    """Reads what the originals hold, by name; those that are not on this machine are downloaded and kept.

    Raises:
        ConfigError: VFL_DATA names no folder.
        DataError: an original cannot be had, or holds something else than it is known to.
        StorageError: the cache cannot be written to.
    """
    served: dict[str, bytes] = {}  # one zip may hold several originals
    candidates = _candidates(originals)
    read: dict[str, bytes] = {}
    for original in originals:
        content = _from_folder(dataset, original, candidates[original.name])
        if content is None:
            content = _from_cache(dataset, original)
        if content is None:
            content = _from_source(dataset, original, served, progress)
            _keep(cache_folder() / dataset / original.name, content)
        read[original.name] = content
    return read


def cache_folder() -> Path:
    """Returns the folder that downloads are kept in; it need not exist.

    Raises:
        StorageError: this user has no home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the XDG specification has relative ones ignored
        return Path(named, _CACHE_NAME)
    try:
        return Path.home() / ".cache" / _CACHE_NAME
    except RuntimeError as error:
        raise StorageError(
            "downloads cannot be kept, since this user has no home: set XDG_CACHE_HOME"
        ) from error


def _candidates(originals: Sequence[Original]) -> dict[str, list[Path]]:
    """Finds for each original the files under VFL_DATA that may hold it, the likeliest first."""
    found: dict[str, list[Path]] = {original.name: [] for original in originals}
    named = os.environ.get(DATA_VARIABLE, "")
    if not named:
        return found
    if not Path(named).is_dir():
        what = "this is no folder" if Path(named).exists() else "there is no such folder"
        raise ConfigError(f"{DATA_VARIABLE}={named}: {what}: name one that holds originals, or unset it")
    wanted = {name for original in originals for name in original.names()}
    files = [path for path in _walk(named) if path.name in wanted]
    for original in originals:
        for name in dict.fromkeys(original.names()):
            found[original.name] += [path for path in files if path.name == name]
    return found


def _walk(folder: str) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(files))


def _from_folder(dataset: str, original: Original, candidates: Sequence[Path]) -> bytes | None:
    """Reads the first candidate that holds the original; "ratings.csv" may be another data set's."""
    problem: VflError | None = None
    for path in candidates:
        try:
            content = _unpacked(_read_file(path, original), original, str(path))
            _check(
                content, original, f"{path}: it holds another {original.name} than {dataset}'s: its content"
            )
        except DataError as error:
            problem = problem or error
        else:
            return content
    if problem is not None:
        raise problem
    return None


def _from_cache(dataset: str, original: Original) -> bytes | None:
    path = cache_folder() / dataset / original.name
    if not path.is_file():
        return None
    content = _read_file(path, original)
    # What went bad in the cache is downloaded again: the cache is ours.
    return content if _digest(content) in original.sha256 else None


def _from_source(dataset: str, original: Original, served: dict[str, bytes], progress: Progress) -> bytes:
    if original.url not in served:
        served[original.url] = _download(dataset, original, progress)
    content = _unpacked(served[original.url], original, original.url)
    _check(content, original, f"{dataset}: {original.url} does not serve what it did: {original.name}")
    return content


def _read_file(path: Path, original: Original) -> bytes:
    try:
        with path.open("rb") as stream:
            return _bounded(stream, original, str(path))
    except OSError as error:
        raise DataError(
            f"{path}: it cannot be read ({error.strerror}): give this user the right to"
        ) from error


def _unpacked(data: bytes, original: Original, source: str) -> bytes:
    """Unpacks by what the bytes are, not by what the file is called."""
    try:
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                return _bounded(stream, original, source)
        while data.startswith(b"PK\x03\x04"):
            data = _member(data, original, source)
    except (
        OSError,
        EOFError,
        ValueError,  # of garbled offsets and names
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{source}: it cannot be unpacked ({error}): download it again") from error
    return data


def _member(data: bytes, original: Original, source: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {PurePosixPath(info.filename).name: info for info in archive.infolist()}
        for name in (original.name, *original.inside):
            if name in members:
                with archive.open(members[name]) as stream:
                    return _bounded(stream, original, source)
    raise DataError(f"{source}: there is no {original.name} in it: download {original.url} again")


def _bounded(stream: IO[bytes] | gzip.GzipFile, original: Original, source: str) -> bytes:
    data = stream.read(original.max_bytes + 1)
    if len(data) > original.max_bytes:
        raise DataError(f"{source}: {_too_large(original)}")
    return data


def _too_large(original: Original) -> str:
    return f"it is larger than {original.max_bytes:,} bytes, so it is not {original.name}: get the original"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check(content: bytes, original: Original, what: str) -> None:
    found = _digest(content)
    if found not in original.sha256:
        known = " or ".join(original.sha256)
        raise DataError(f"{what} has SHA-256 {found}, not {known}: get the original from {original.url}")


def _download(dataset: str, original: Original, progress: Progress) -> bytes:
    """Downloads into memory, so that whatever ends it leaves nothing behind."""
    url = original.url
    request = urllib.request.Request(url, headers={"User-Agent": f"vfl-framework/{__version__}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_SILENCE_S) as answer:  # noqa: S310 - the catalogue's
            length = answer.headers.get("Content-Length", "")
            return _received(answer, original, int(length) if length.isdigit() else None, progress)
    except urllib.error.HTTPError as error:
        error.close()
        why = f"the server says {error.code} {error.reason}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)  # urllib wraps what the socket said
        why = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(error).__name__
    remedy = f"download it by other means into a folder and set {DATA_VARIABLE} to that folder"
    raise DataError(f"{dataset}: {url} cannot be downloaded ({why}): {remedy}")


def _received(answer: IO[bytes], original: Original, total: int | None, progress: Progress) -> bytes:
    received = bytearray()
    progress(original.url, 0, total)
    while chunk := answer.read(_CHUNK_BYTES):
        received += chunk
        if len(received) > original.max_bytes:
            raise DataError(f"{original.url}: {_too_large(original)}")
        progress(original.url, len(received), total)
    if total is not None and len(received) < total:
        raise ConnectionError(f"cut off after {len(received):,} of {total:,} bytes")
    return bytes(received)


def _keep(path: Path, content: bytes) -> None:
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: the parties of one run may fetch the same file at once.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
        partial = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path}: the download cannot be kept ({error.strerror}): free the space or set XDG_CACHE_HOME"
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
