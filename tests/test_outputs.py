"""Outputs of the commands: never overwritten unasked, whole or not there, even if the disk is full or a run killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic import cli

BUNDLES = Path(__file__).parent / "data" / "bundles"
SOURCE = Path(__file__).parent.parent / "src"
MODELS = ["--models", str(BUNDLES)]
COMMANDS = {
    "encode": ["encode", "photo.png", "-o", "out.cwic", "--model", "tiny-li2018", *MODELS],
    "decode": ["decode", "coded.cwic", "-o", "out.png", *MODELS],
    "map": ["map", "coded.cwic", "-o", "out.png", *MODELS],
}
KILLS = 12  # spread over a run
FULL = Path("/dev/full")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photo.png and coded.cwic."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (150, 200, 3), np.uint8)).save("photo.png")
    assert cli.main(["encode", "photo.png", "-o", "coded.cwic", "--model", "tiny-li2018", *MODELS]) == 0
    return tmp_path


def output(command: str) -> Path:
    return Path(COMMANDS[command][3])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def started(arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
    """A Python process in the working directory."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, *arguments], env=environment, **pipes)  # type: ignore[call-overload]


def check_one_line(said: str, start: str) -> None:
    (line,) = said.splitlines()
    assert line.startswith(f"cwic: {start}"), line


@pytest.mark.parametrize("command", COMMANDS)
def test_an_existing_output_is_overwritten_with_force_alone(command: str, folder: Path, capsys) -> None:
    output(command).write_bytes(b"precious")
    before = names(folder)
    assert cli.main(COMMANDS[command]) == 1
    said = "FileExistsError: exists already; --force overwrites it"
    check_one_line(capsys.readouterr().err, f"{output(command)}: {said}")
    assert output(command).read_bytes() == b"precious" and names(folder) == before
    assert cli.main([*COMMANDS[command], "--force"]) == 0
    assert len(output(command).read_bytes()) > 100 and names(folder) == before


def test_the_default_name_is_not_overwritten_either(folder: Path, capsys) -> None:
    Path("photo.cwic").write_bytes(b"precious")
    assert cli.main(["encode", "photo.png", "--model", "tiny-li2018", *MODELS]) == 1
    assert "photo.cwic: FileExistsError" in capsys.readouterr().err
    assert Path("photo.cwic").read_bytes() == b"precious"


def test_force_does_not_overwrite_the_input(folder: Path) -> None:
    before = Path("photo.png").read_bytes()
    assert cli.main(["encode", "photo.png", "-o", "photo.png", "--force"]) == 2
    assert Path("photo.png").read_bytes() == before


def test_a_link_to_nothing_is_an_existing_output(folder: Path, capsys) -> None:
    output("encode").symlink_to("nothing")
    assert cli.main(COMMANDS["encode"]) == 1
    assert "FileExistsError" in capsys.readouterr().err and output("encode").is_symlink()


def test_what_was_written_in_the_meantime_is_not_overwritten(folder: Path, monkeypatch, capsys) -> None:
    encode = cli.codec.encode

    def slow(*arguments: object, **options: object) -> bytes:
        output("encode").write_bytes(b"precious")
        return encode(*arguments, **options)

    monkeypatch.setattr(cli.codec, "encode", slow)
    assert cli.main(COMMANDS["encode"]) == 1
    assert "FileExistsError" in capsys.readouterr().err and output("encode").read_bytes() == b"precious"


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_is_no_output_and_no_input(command: str, force: list[str], folder: Path, capsys) -> None:
    output(command).mkdir()
    before = names(folder)
    assert cli.main([*COMMANDS[command], *force]) == 1
    check_one_line(capsys.readouterr().err, f"{output(command)}: IsADirectoryError: ")
    assert cli.main([command, str(output(command)), "-o", "other.png", *MODELS, *force]) == 1
    check_one_line(capsys.readouterr().err, f"{output(command)}: IsADirectoryError: ")
    assert names(folder) == before and list(output(command).iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_is_no_folder(command: str, folder: Path, capsys) -> None:
    before = names(folder)
    arguments = [f"photo.png/{word}" if word.startswith("out.") else word for word in COMMANDS[command]]
    assert cli.main(arguments) == 1
    check_one_line(capsys.readouterr().err, f"photo.png/{output(command)}: NotADirectoryError: ")
    assert names(folder) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_an_input_that_may_not_be_read(command: str, folder: Path, capsys) -> None:
    source = Path(COMMANDS[command][1])
    source.chmod(0)
    if os.access(source, os.R_OK):
        pytest.skip("this user may read everything")
    assert cli.main(COMMANDS[command]) == 1
    check_one_line(capsys.readouterr().err, f"{source}: PermissionError: ")
    assert not output(command).exists()


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_leaves_what_was_there(command: str, existing: bool, folder: Path) -> None:
    """Full after 100 bytes of a file."""
    if existing:
        output(command).write_bytes(b"precious")
    before = names(folder)
    arguments = ["-B", "-m", "cwic", *COMMANDS[command], "--force"]
    limit = (100, resource.RLIM_INFINITY)
    process = started(arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    out, said = process.communicate()
    assert (process.returncode, out) == (1, b"")
    check_one_line(said.decode(), f"{output(command)}: OSError: File too large")
    assert names(folder) == before
    assert not existing or output(command).read_bytes() == b"precious"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["encode", "decode", "map", "info"])
def test_a_standard_output_that_is_full(command: str, folder: Path) -> None:
    before = names(folder)
    arguments = ["info", "coded.cwic"] if command == "info" else [*COMMANDS[command], "-o", "-"]
    with FULL.open("wb") as full:
        process = started(["-m", "cwic", *arguments], stdout=full)
        _, said = process.communicate()
    assert process.returncode == 1
    check_one_line(said.decode(), "standard output: OSError: No space left on device")
    assert names(folder) == before


def test_a_standard_output_that_is_closed(folder: Path) -> None:
    process = started(["-m", "cwic", *COMMANDS["encode"]], stdout=None, preexec_fn=lambda: os.close(1))
    assert process.communicate()[1] == b"" and process.returncode == 0 and output("encode").exists()
    process = started(["-m", "cwic", *COMMANDS["decode"], "-o", "-"], stdout=None, preexec_fn=lambda: os.close(1))
    check_one_line(process.communicate()[1].decode(), "standard output: OSError: Bad file descriptor")
    assert process.returncode == 1


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_device_is_written_to_and_stays_one(folder: Path, capsys) -> None:
    assert cli.main([*COMMANDS["encode"], "-o", os.devnull]) == 0 and Path(os.devnull).is_char_device()
    assert cli.main([*COMMANDS["encode"], "-o", str(FULL)]) == 1 and FULL.is_char_device()
    check_one_line(capsys.readouterr().err, "/dev/full: OSError: No space left on device")


def test_a_pipe_with_a_name_is_written_to_and_stays_one(folder: Path) -> None:
    os.mkfifo("pipe.cwic")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe.cwic").read_bytes()), daemon=True)
    reader.start()
    assert cli.main([*COMMANDS["encode"], "-o", "pipe.cwic"]) == 0
    reader.join(timeout=60)
    assert got == [Path("coded.cwic").read_bytes()] and Path("pipe.cwic").is_fifo()


def check_after_a_kill(command: str, whole: bytes, before: list[str], folder: Path) -> None:
    """The output is whole or not there; beside it at most hidden parts, which are in nobody's way."""
    found = output(command)
    left = set(names(folder)) - {*before, found.name}
    assert not found.exists() or found.read_bytes() == whole
    assert all(name.startswith(".") and name.endswith(".part") for name in left), left


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_run_that_is_killed_leaves_no_half_output(command: str, folder: Path) -> None:
    before = names(folder)
    start = time.monotonic()
    assert started(["-m", "cwic", *COMMANDS[command]]).communicate() and output(command).exists()
    seconds = time.monotonic() - start
    whole = output(command).read_bytes()
    moments = (np.arange(KILLS) + np.random.default_rng().random(KILLS)) / KILLS * seconds
    for moment in moments:
        output(command).unlink(missing_ok=True)
        process = started(["-m", "cwic", *COMMANDS[command]])
        time.sleep(moment)
        process.kill()
        process.communicate()
        check_after_a_kill(command, whole, before, folder)


# Kills itself where chance would hardly ever strike: within the file, before the renaming, after it.
KILLED = """
import io, os, pathlib, signal, sys
from cwic import cli, imagefile

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Half(io.FileIO):
    def write(self, data):
        super().write(data[: len(data) // 2])
        kill()

rename, opened = os.replace, pathlib.Path.open
if sys.argv[1] == "within":
    pathlib.Path.open = lambda path, *a, **k: Half(path, "xb") if a == ("xb",) else opened(path, *a, **k)
elif sys.argv[1] == "before":
    imagefile.os.replace = kill
else:
    imagefile.os.replace = lambda *names: (rename(*names), kill())
cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize(("where", "parts", "done"), [("within", 1, False), ("before", 1, False), ("after", 0, True)])
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_run_that_is_killed_while_it_writes(command: str, where: str, parts: int, done: bool, folder: Path) -> None:
    before = names(folder)
    process = started(["-c", KILLED, where, *COMMANDS[command]])
    process.communicate()
    assert process.returncode == -signal.SIGKILL and output(command).exists() == done
    left = list(folder.glob(".*.part"))
    assert len(left) == parts
    # The next run is not disturbed, and takes nothing of what was left.
    assert cli.main([*COMMANDS[command], *(["--force"] if done else [])]) == 0
    whole = output(command).read_bytes()
    assert list(folder.glob(".*.part")) == left
    check_after_a_kill(command, whole, before, folder)
    if done:
        output(command).unlink()
        assert cli.main(COMMANDS[command]) == 0 and output(command).read_bytes() == whole
