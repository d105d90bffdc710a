"""The commands: what they leave, what they print, and their exit codes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic import cli, progressbar

BUNDLES = Path(__file__).parent / "data" / "bundles"
MODEL = ["--model", "tiny-li2018", "--models", str(BUNDLES)]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    rows, columns = np.mgrid[0:33, 0:50]
    Image.fromarray(np.stack([rows * 7, columns * 5, rows + columns], axis=-1).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def coded(photo):
    assert cli.main(["encode", str(photo), *MODEL]) == 0
    return photo.with_suffix(".cwic")


def one_line(capsys):
    """The single line that a failed command leaves on stderr; it leaves nothing on stdout."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_encode_and_decode_do_what_the_library_does(photo, tmp_path, capsys):
    image = np.asarray(Image.open(photo))
    assert cli.main(["encode", str(photo), *MODEL]) == 0
    coded = photo.with_suffix(".cwic")
    data = coded.read_bytes()
    assert data == cwic.encode(image, model="tiny-li2018", models_dir=BUNDLES)
    assert f"{len(data)} bytes" in capsys.readouterr().out
    out = tmp_path / "back.png"
    assert cli.main(["decode", str(coded), "-o", str(out), "--models", str(BUNDLES)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), cwic.decode(data, models_dir=BUNDLES))


def test_grey_stays_grey(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((9, 7), 90, np.uint8)).save(path)
    coded, out = tmp_path / "grey.cwic", tmp_path / "out.png"
    assert cli.main(["encode", str(path), "-o", str(coded), *MODEL]) == 0
    assert cli.main(["decode", str(coded), "-o", str(out), "--models", str(BUNDLES)]) == 0
    with Image.open(out) as picture:
        assert (picture.mode, picture.size) == ("L", (7, 9))


def test_info_for_people_and_for_machines(coded, capsys):
    capsys.readouterr()
    assert cli.main(["info", str(coded)]) == 0
    text = capsys.readouterr().out
    assert "50 x 33" in text and "tiny-li2018" in text and "IMAP" in text
    assert cli.main(["info", str(coded), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    n_bytes = coded.stat().st_size
    assert (info["width"], info["height"], info["n_bytes"], info["model_id"]) == (50, 33, n_bytes, "tiny-li2018")
    assert info["bits_per_pixel"] == pytest.approx(8 * n_bytes / (50 * 33))
    assert set(info["chunks"]) == {"IMAP", "CODE"}


def test_map_leaves_a_picture_larger_than_the_photo(coded, tmp_path):
    out = tmp_path / "map.png"
    assert cli.main(["map", str(coded), "-o", str(out), "--models", str(BUNDLES)]) == 0
    with Image.open(out) as picture:
        assert picture.mode == "RGB" and picture.width > 50 and picture.height > 33


def test_models_lists_the_bundles_of_a_folder(capsys):
    assert cli.main(["models", "--models", str(BUNDLES)]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"tiny-autoencoder", "tiny-li2018"} <= set(listed)


def test_a_damaged_file_is_one_line_with_the_errors_name(coded, tmp_path, capsys):
    capsys.readouterr()
    coded.write_bytes(coded.read_bytes()[:-1])
    out = tmp_path / "out.png"
    assert cli.main(["decode", str(coded), "-o", str(out), "--models", str(BUNDLES)]) == 1
    assert one_line(capsys).startswith(f"cwic: {coded}: Truncated: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["info", "photo.png"], "NotCwic"),
        (["encode", "photo.png", "--model", "no-such"], "ModelNotFound"),
        (["encode", "floats.tif", *MODEL], "UnsupportedImage"),
        (["encode", "words.txt", *MODEL], "UnsupportedImage"),
        (["info", "missing.cwic"], "FileNotFoundError"),
        (["encode", "missing.png", *MODEL], "FileNotFoundError"),
        (["encode", "photo.png", "-o", "no-folder/out.cwic", *MODEL], "FileNotFoundError"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(photo, command, name, monkeypatch, capsys):
    monkeypatch.chdir(photo.parent)
    Image.new("F", (4, 4)).save("floats.tif")
    Path("words.txt").write_text("no image")
    before = set(Path().iterdir())
    assert cli.main(command) == 1
    line = one_line(capsys)
    assert line.startswith("cwic: ") and f": {name}: " in line
    assert set(Path().iterdir()) == before  # no output, whole or in part


def test_a_bug_is_not_disguised_as_a_users_error(photo, monkeypatch):
    def broken(*_, **__):
        raise ValueError("our mistake")

    monkeypatch.setattr(cli.codec, "encode", broken)
    with pytest.raises(ValueError, match="our mistake"):
        cli.main(["encode", str(photo), *MODEL])


@pytest.mark.parametrize("output", ["photo.png", "../{}/photo.png"])
def test_the_input_is_never_overwritten(photo, output, monkeypatch, capsys):
    monkeypatch.chdir(photo.parent)
    before = photo.read_bytes()
    assert cli.main(["encode", "photo.png", "-o", output.format(photo.parent.name), *MODEL]) == 2
    assert "overwrite" in one_line(capsys)
    assert photo.read_bytes() == before


def test_the_input_is_not_overwritten_through_the_default_name(coded, monkeypatch, capsys):
    capsys.readouterr()
    renamed = coded.rename(coded.with_suffix(".png"))
    assert cli.main(["decode", str(renamed), "--models", str(BUNDLES)]) == 2
    assert "overwrite" in one_line(capsys)


def run_in_pipe(arguments, data, monkeypatch, capfdbinary):
    """Exit code, standard output and standard error of a command that is given bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code = cli.main(arguments)
    return code, *capfdbinary.readouterr()


@pytest.mark.parametrize("explicit", [[], ["-o", "-"]])
def test_commands_work_in_pipes(explicit, photo, monkeypatch, capfdbinary):
    code, data, said = run_in_pipe(["encode", "-", *explicit, *MODEL], photo.read_bytes(), monkeypatch, capfdbinary)
    assert code == 0 and data == cwic.encode(np.asarray(Image.open(photo)), model="tiny-li2018", models_dir=BUNDLES)
    assert said.startswith(f"-: {len(data)} bytes".encode())
    code, out, said = run_in_pipe(["decode", "-", *explicit, *MODEL[2:]], data, monkeypatch, capfdbinary)
    assert code == 0 and out.startswith(b"\x89PNG") and said == b""
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(out))), cwic.decode(data, models_dir=BUNDLES))
    assert b"50 x 33" in run_in_pipe(["info", "-"], data, monkeypatch, capfdbinary)[1]
    code, drawn, _ = run_in_pipe(["map", "-", "-o", "-", *MODEL[2:]], data, monkeypatch, capfdbinary)
    assert code == 0 and drawn.startswith(b"\x89PNG")
    assert sorted(path.name for path in photo.parent.iterdir()) == ["photo.png"]


def test_a_file_may_go_to_standard_output_and_come_from_standard_input(photo, tmp_path, monkeypatch, capfdbinary):
    code, data, _ = run_in_pipe(["encode", str(photo), "-o", "-", *MODEL], b"", monkeypatch, capfdbinary)
    assert code == 0
    out = tmp_path / "back.jpg"
    code, nothing, _ = run_in_pipe(["decode", "-", "-o", str(out), *MODEL[2:]], data, monkeypatch, capfdbinary)
    assert (code, nothing) == (0, b"") and Image.open(out).format == "JPEG"


@pytest.mark.parametrize(("command", "data"), [("encode", b"junk"), ("decode", b"junk"), ("decode", b"")])
def test_errors_in_a_pipe_leave_nothing_on_standard_output(command, data, monkeypatch, capfdbinary):
    code, out, said = run_in_pipe([command, "-"], data, monkeypatch, capfdbinary)
    assert (code, out) == (1, b"") and said.startswith(b"cwic: -: ") and said.count(b"\n") == 1


def test_what_is_lost_is_said_and_refused_with_strict(tmp_path, capsys):
    path, coded = tmp_path / "deep.png", tmp_path / "deep.cwic"
    Image.fromarray(np.full((9, 7), 40_000, np.uint16)).save(path)
    assert cli.main(["encode", str(path), "--strict", *MODEL]) == 1
    assert "of more than 8 bits a sample the upper 8 are kept; --strict allows no such loss" in one_line(capsys)
    assert not coded.exists()
    assert cli.main(["encode", str(path), *MODEL]) == 0
    said = capsys.readouterr().err
    assert said == f"cwic: {path}: note: of more than 8 bits a sample the upper 8 are kept\n" and coded.exists()


def test_effort_is_handed_on(photo, capsys):
    assert cli.main(["encode", str(photo), "--effort", "11", *MODEL]) == 1
    assert "effort is 11; 0 to 10 is allowed" in one_line(capsys)
    assert cli.main(["encode", str(photo), "--effort", "1", "--model", "cwic-psnr", "--quality", "20"]) == 0
    with_effort = photo.with_suffix(".cwic").read_bytes()
    assert cli.main(["encode", str(photo), "--force", "--model", "cwic-psnr", "--quality", "20"]) == 0
    assert photo.with_suffix(".cwic").read_bytes() != with_effort


def test_strict_lets_pass_what_is_kept(photo, capsys):
    assert cli.main(["encode", str(photo), "--strict", *MODEL]) == 0
    assert capsys.readouterr().err == ""


def test_alpha_comes_back_and_is_refused_by_jpeg(tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    path, coded = tmp_path / "a.png", tmp_path / "a.cwic"
    Image.fromarray(image).save(path)
    assert cli.main(["encode", str(path), *MODEL]) == 0
    assert cli.main(["info", str(coded)]) == 0 and "RGB with alpha" in capsys.readouterr().out
    assert cli.main(["map", str(coded), "-o", str(tmp_path / "map.png"), *MODEL[2:]]) == 0
    assert cli.main(["decode", str(coded), "-o", str(tmp_path / "b.jpg"), *MODEL[2:]]) == 1
    assert "has alpha, which JPEG does not hold; use .png" in one_line(capsys) and not (tmp_path / "b.jpg").exists()
    assert cli.main(["decode", str(coded), "-o", str(tmp_path / "b.webp"), *MODEL[2:]]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.webp"))[:, :, 3], image[:, :, 3])


@pytest.mark.parametrize(
    "arguments",
    [[], ["shrink"], ["encode"], ["map", "x.cwic"], ["evaluate", "x", "--crop", "wide"], ["export", "x.pt"]],
)
def test_usage_errors_are_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: cwic" in capsys.readouterr().err


def test_a_region_and_a_preview(coded, tmp_path, capsys):
    whole, part, small = (tmp_path / name for name in ("whole.png", "part.png", "small.png"))
    models = ["--models", str(BUNDLES)]
    assert cli.main(["decode", str(coded), "-o", str(whole), *models]) == 0
    assert cli.main(["decode", str(coded), "-o", str(part), "--region", "20,3,30,10", *models]) == 0
    assert cli.main(["decode", str(coded), "-o", str(small), "--preview", *models]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(part)), np.asarray(Image.open(whole))[3:13, 20:50])
    assert Image.open(small).size == (50, 33)  # it is small already
    assert cli.main(["decode", str(coded), "-o", str(tmp_path / "no.png"), "--region", "20,3,31,10", *models]) == 1
    assert "RegionOutside: the region has 31 x 10 pixels from (20, 3); the picture has 50 x 33" in one_line(capsys)
    assert not (tmp_path / "no.png").exists()
    for wrong in ("1,2,3", "a,b,c,d", ""):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["decode", str(coded), "--region", wrong])


def test_larger_pictures_are_refused_unless_they_are_allowed(photo, coded, capsys):
    few, many = ["--max-pixels", "1649", "--force"], ["--max-pixels", "1650", "--force"]
    capsys.readouterr()
    assert cli.main(["encode", str(photo), *MODEL, *few]) == 1
    assert "UnsupportedImage" in one_line(capsys)
    assert cli.main(["decode", str(coded), "--models", str(BUNDLES), *few]) == 1
    assert "LimitExceeded: the picture has 50 x 33 pixels; at most 65535 on a side and 1649 in all" in one_line(capsys)
    assert cli.main(["encode", str(photo), *MODEL, *many]) == 0
    assert cli.main(["decode", str(coded), "--models", str(BUNDLES), *many]) == 0


def test_the_progress_bar_is_for_terminals_and_for_what_takes_long(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = iter(range(100))  # a second between any two looks
    monkeypatch.setattr(progressbar.time, "monotonic", lambda: next(clock))
    for stream, shown in ((Terminal(), True), (io.StringIO(), False), (None, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progressbar.ProgressBar() as progress:
            progress("pixels", 1, 4)
            progress("pixels", 2, 4)
        if stream is not None:
            assert ("pixels [###############...............]  50 %" in stream.getvalue()) == shown
            assert stream.getvalue().endswith(" \r") == shown and "\n" not in stream.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [["evaluate", "x"], ["train", "x.toml"], ["export", "x.pt", "-o", "y"], ["download", "x"]],
    ids=lambda arguments: arguments[0],
)
def test_laboratory_commands_say_what_to_install(arguments, monkeypatch, capsys):
    for module in [name for name in sys.modules if name.split(".")[0] == "cwic_lab"]:
        monkeypatch.delitem(sys.modules, module)
    for package in ("torch", "onnx", "matplotlib", "tqdm"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert cli.main(arguments) == 2
    assert 'pip install "cwic[lab]"' in one_line(capsys)


def test_the_laboratory_is_given_what_the_command_line_says(tmp_path, monkeypatch, capsys):
    calls = []

    class Module:
        @staticmethod
        def train_in_turn(*args, **kwargs):
            calls.append((args, kwargs))
            return [Path("runs/x/last.pt"), Path("runs/y/last.pt")]

        @staticmethod
        def evaluate(*args, **kwargs):
            calls.append((args, kwargs))
            return "table"

    monkeypatch.setattr(cli, "_lab", lambda name: Module)
    assert cli.main(["train", "x.toml", "y.toml", "--no-resume", "--runs", "r"]) == 0
    assert capsys.readouterr().out.split() == [str(Path("runs/x/last.pt")), str(Path("runs/y/last.pt"))]
    assert cli.main(["evaluate", "f", "--codec", "jpeg", "--codec", "li2018-*", "--crop", "752x496"]) == 0
    assert calls[0] == (([Path("x.toml"), Path("y.toml")],), {"resume": False, "runs": Path("r")})
    assert calls[1] == (
        (Path("f"), ["jpeg", "li2018-*"], Path("report")),
        {"models_dir": None, "crop": (752, 496), "pictures": 4, "anchors": None, "curves": [], "against": None},
    )
    assert "table" in capsys.readouterr().out


def test_an_interruption_is_quiet(photo, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.codec, "encode", interrupted)
    assert cli.main(["encode", str(photo), *MODEL]) == 130
    assert capsys.readouterr() == ("", "")
    assert not photo.with_suffix(".cwic").exists()


def test_python_m_cwic():
    done = subprocess.run([sys.executable, "-m", "cwic", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"cwic {cwic.__version__}"
