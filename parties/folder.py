"""Run folders: written beside, and given their final name only when they are whole."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parties.trained import LAST, session_of
from vfl.errors import StorageError
from vfl.learn.checkpoint import checkpoint_path


class Staging:
    """Is a run folder in the making; `path` holds one folder a party."""

    def __init__(self, out: Path, name: str) -> None:
        """Makes the folder.

        Raises:
            StorageError: if `out` cannot be written to.
        """
        self._out, self._name = out, name
        with _telling(out):
            out.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix=f".{name}.partial-", dir=out))
            self.path.chmod(0o755)

    def party(self, name: str) -> Path:
        """Returns one party's folder, made if need be."""
        folder = self.path / name
        with _telling(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def publish(self) -> Path:
        """Gives the whole run its name: `out/name`, or with a number where that is taken."""
        return self._rename(self.path, "")

    def publish_party(self, party: str) -> Path:
        """Gives one party's part its name, beside the others' of the same training; returns the run."""
        session = session_of(self.path / party)
        for number in itertools.count(1):
            run = self._out / _numbered(self._name, number)
            with _telling(run):
                run.mkdir(exist_ok=True)
            others = {session_of(part) for part in run.iterdir() if part.is_dir()}
            if others <= {session} and _moved(self.path / party, run / party):
                shutil.rmtree(self.path, ignore_errors=True)
                return run
        raise AssertionError  # pragma: no cover - the count does not end

    def give_up(self) -> Path | None:
        """Puts away what an unfinished run leaves: its checkpoints under `NAME.stopped`, else nothing."""
        if any(self.path.glob(f"*/{checkpoint_path(Path(), LAST)}")):
            with suppress(StorageError):  # there is an error under way that matters more
                return self._rename(self.path, ".stopped")
        shutil.rmtree(self.path, ignore_errors=True)
        return None

    def _rename(self, path: Path, suffix: str) -> Path:
        for number in itertools.count(1):
            final = self._out / _numbered(f"{self._name}{suffix}", number)
            if _moved(path, final):
                return final
        raise AssertionError  # pragma: no cover - the count does not end


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _moved(source: Path, target: Path) -> bool:
    if target.exists():
        return False
    with _telling(target):
        try:
            os.rename(source, target)  # two runs may try the same name: only one finds it free
        except (FileExistsError, NotADirectoryError):
            return False
        except OSError as error:
            if target.exists():
                return False
            raise error
    return True


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; choose another folder with --out") from error
