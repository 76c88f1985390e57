"""What stands around a command: other people's folders, pipes that end, streams that are closed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Vfl
from small_jobs import small_job

VFL = "from parties.cli import main; main()"


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", ["protocols", "vfl"])
def test_a_strangers_package_of_our_name_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    found = python("-c", "import parties", cwd=tmp_path)
    assert found.returncode == 1
    complaint = found.stderr.splitlines()[-1]
    assert complaint.startswith(f"ImportError: '{name}' is taken by {tmp_path.resolve() / name}, not by ")
    assert complaint.endswith("rename that folder, or start from another one")


def test_a_folder_without_code_of_our_name_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "protocols").mkdir()
    assert python("-c", "import parties", cwd=tmp_path).returncode == 0


def test_a_strangers_packages_in_the_working_folder_do_not_get_into_the_parties_processes(
    start: Callable[..., Vfl], tmp_path: Path
) -> None:
    for name in ("protocols", "parties", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(77)")
    running = start("run", small_job(tmp_path / "job", epochs=1, parties={"shop": None}))
    assert running.wait() == 0, running.err
    assert "report: runs/small/club/report.html" in running.out


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['vfl', '--help']; import parties.cli\n"
    code += "try:\n    parties.cli.main()\nfinally:\n"
    code += "    print(sorted({'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    found = python("-c", code, cwd=tmp_path)
    assert found.stdout.splitlines()[-1] == "[]"
    assert found.returncode == 0


def test_a_reader_that_has_had_enough_is_no_error(start: Callable[..., Vfl], tmp_path: Path) -> None:
    checks = start("check", small_job(tmp_path / "job"), unread=True)
    assert checks.wait() == 0
    assert checks.err == ""


def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    small_job(tmp_path / "job", epochs=1)
    command = f'"{sys.executable}" -c "{VFL}" run job --in-process <&- >&- 2>&-'
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}  # and no HOME
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, timeout=60).returncode == 0
    assert (tmp_path / "runs" / "small" / "club" / "report.html").is_file()


def test_a_wrong_option_is_one_json_object_too(start: Callable[..., Vfl], tmp_path: Path) -> None:
    wrong = start("run", "job", "--jsn", "--json")
    assert wrong.wait() == 2
    found = json.loads(wrong.out)
    assert (found["status"], found["exit_code"]) == ("failed", 2)
    assert "No such option" in found["error"]
    assert "--jsn" in found["error"]
    assert "Usage: vfl run" in wrong.err
    missing = start("run")
    assert missing.wait() == 2
    assert missing.out == ""


def test_a_real_terminal_shows_a_table_and_then_the_answer(tmp_path: Path) -> None:
    small_job(tmp_path / "job", epochs=1)
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", VFL, "run", "job", "--in-process"],
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "40"},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    text = b""
    try:
        while chunk := os.read(main, 65536):
            text += chunk
    except OSError:  # on Linux, how a terminal says that nobody writes any more
        pass
    os.close(main)
    assert process.wait(60) == 0
    assert b"party" in text
    assert b"\x1b[?25h" in text, "the cursor is shown again"
    assert text.rstrip().endswith(b"report: runs/small/club/report.html")
