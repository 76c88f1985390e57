"""A run folder has its final name only when it is whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from parties.folder import Staging
from parties.trained import BEST
from vfl.errors import StorageError
from vfl.learn.checkpoint import save_checkpoint


def test_a_run_is_beside_until_it_is_published(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "new" / "runs", "x")
    (staging.party("bank") / "weights").write_text("1")
    assert [path.name[:11] for path in (tmp_path / "new" / "runs").iterdir()] == [".x.partial-"]
    assert staging.publish() == tmp_path / "new" / "runs" / "x"
    assert [path.name for path in (tmp_path / "new" / "runs").iterdir()] == ["x"]
    assert (tmp_path / "new" / "runs" / "x" / "bank" / "weights").read_text() == "1"


def test_a_taken_name_is_left_alone_and_the_next_number_used(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()  # empty: a rename would silently replace it
    (tmp_path / "x-2").write_text("a file")
    (tmp_path / "x-3").symlink_to(tmp_path / "nowhere")
    assert Staging(tmp_path, "x").publish().name == "x-4"
    assert list((tmp_path / "x").iterdir()) == []


def test_runs_at_once_never_share_a_folder(tmp_path: Path) -> None:
    stagings = [Staging(tmp_path, "x") for _ in range(8)]
    for number, staging in enumerate(stagings):
        (staging.party("bank") / "mine").write_text(str(number))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda s=staging: found.append(s.publish())) for staging in stagings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8
    assert sorted((path / "bank" / "mine").read_text() for path in found) == [str(n) for n in range(8)]
    assert len(list(tmp_path.iterdir())) == 8


def test_only_parties_of_one_training_share_a_folder(tmp_path: Path) -> None:
    published = []
    for party, session in (("bank", 1), ("bank", 2), ("club", 2), ("bank", 3), ("club", 1)):
        staging = Staging(tmp_path, "x")
        save_checkpoint(staging.party(party), {}, {"session": str(session)}, BEST)
        published.append((session, staging.publish_party(party).name))
    assert published == [(1, "x"), (2, "x-2"), (2, "x-2"), (3, "x-3"), (1, "x")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x-2", "x-3"]
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["bank", "club"]


def test_giving_up_keeps_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    staging = Staging(tmp_path, "x")
    staging.party("bank")
    assert staging.give_up() is None
    assert list(tmp_path.iterdir()) == []
    for name in ("x.stopped", "x.stopped-2"):
        staging = Staging(tmp_path, "x")
        (staging.party("bank") / "last.safetensors").write_text("1")
        assert staging.give_up() == tmp_path / name


def test_giving_up_hides_no_error_where_the_folder_has_gone(tmp_path: Path) -> None:
    staging = Staging(tmp_path, "x")
    os.rename(staging.path, tmp_path / "gone")
    assert staging.give_up() is None
    with pytest.raises(StorageError, match="choose another folder with --out"):
        staging.publish()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/runs: Not a directory; choose another folder with --out"):
        Staging(tmp_path / "file" / "runs", "x")
