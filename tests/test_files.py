"""Files and folders: whole or not there, and written by one process at a time."""

import os
import subprocess
import sys
import textwrap

import pytest
import yaml

from sim2real.cli.main import main
from sim2real.config import prepare_run
from sim2real.errors import ConfigError
from sim2real.files import LOCK, lock_folder, lock_output, write_bytes
from sim2real.types import Model

HOLD = """
import sys
from pathlib import Path
from sim2real.files import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holding(folder):
    """Another process that keeps ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_one_processes_and_the_other_is_named(tmp_path):
    folder = tmp_path / "runs" / "run"
    other = holding(folder)
    with pytest.raises(ConfigError, match=rf"{folder} is being written by process {other.pid} on .* since 20"):
        lock_folder(folder)
    other.kill()  # without a chance to tidy up
    other.wait()
    assert (folder / LOCK).is_file(), "what it leaves behind locks nothing"
    with lock_folder(folder), pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        lock_folder(folder)
    assert not (folder / LOCK).exists() and folder.is_dir()
    lock_folder(folder).release()


def test_a_lock_leaves_nothing_behind(tmp_path):
    with lock_folder(tmp_path / "new"):
        pass
    with lock_output(tmp_path / "params.yaml") as lock:
        lock.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_name_that_was_taken_away_does_not_count(tmp_path):
    """Between opening and locking, the holder before may remove the file, and a third process make it anew."""
    lock = lock_folder(tmp_path)
    (tmp_path / LOCK).unlink()
    assert not lock._is_the_file()
    (tmp_path / LOCK).touch()
    assert not lock._is_the_file()


def test_a_full_disk_leaves_the_last_file_and_is_one_sentence(tmp_path, capsys, monkeypatch):
    torch_io = pytest.importorskip("sim2real.learn.torch_io")
    file = tmp_path / "checkpoint.pt"
    torch_io.save_state({"step": 1}, file)
    whole = file.read_bytes()
    for save in (lambda: torch_io.save_state({"step": 2}, file), lambda: write_bytes(file, b"new")):
        (tmp_path / "checkpoint.pt.tmp").symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left") as caught:
            save()
        assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]

    def fail(**_):
        raise caught.value

    monkeypatch.setattr("sim2real.cli.main.app", fail)
    with pytest.raises(SystemExit) as ended:
        main([])
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert said.startswith(f"error: the disk is full (while writing {file}); what was finished before is whole")


def test_identification_into_a_file_that_another_one_writes_is_refused(tmp_path, capsys):
    with lock_output(tmp_path / "params.yaml"), pytest.raises(SystemExit):
        main(["identify", "so101", str(tmp_path / "none.npz"), "--out", str(tmp_path / "params.yaml")])
    assert f"is being written by process {os.getpid()}" in " ".join(capsys.readouterr().err.split())


class Settings(Model):
    name: str = "run"
    steps: int = 1


def test_a_start_that_failed_does_not_block_the_corrected_command(tmp_path):
    run = tmp_path / "run"
    prepare_run(Settings(steps=0), run)
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1.host").write_text("began")
    prepare_run(Settings(), run)
    assert yaml.safe_load((run / "config.yaml").read_text()) == {"name": "run", "steps": 1}
    assert not (run / "tensorboard").exists()
    (run / "checkpoint.pt").write_text("hours of work")
    prepare_run(Settings(), run)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        prepare_run(Settings(steps=2), run)
    assert yaml.safe_load((run / "config.yaml").read_text())["steps"] == 1


def test_settings_that_a_person_wrote_are_not_taken_for_a_start_that_failed(tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        prepare_run(Settings(), tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "steps: 3\n"
