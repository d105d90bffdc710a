"""What the README says is so: its commands exist, its Python runs, its links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

import cwic
from cwic import bundle, cli, imagefile

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_two_commands_are_there_and_ci_runs_the_second():
    assert "\n    pip install . && cwic demo\n" in README
    second = 'pip install -c constraints.txt -e ".[test]" && pytest'
    assert f"\n    {second}\n" in README
    ci = ROOT / ".ci" / "run"
    if ci.exists():  # the runtime's tests also run outside the checkout
        assert second.replace("pip install", "pip install -q") in ci.read_text(encoding="utf-8")


def test_every_command_of_the_table_and_of_the_examples_is_understood():
    lines = [line.split("#")[0] for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`(cwic [a-z]+ [^`]*[A-Z][^`]*)`", README)
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(re.sub(r"[\[\]]|\.\.\.", " ", line))
        assert words[0] == "cwic"
        cli.parser().parse_args(words[1:])  # exits if not


def test_every_command_is_in_the_readme():
    names = next(action.choices for action in cli.parser()._actions if action.dest == "command")
    for name in names:
        assert f"`cwic {name}" in README, f"cwic {name} is not in the README"


def test_the_python_lines_run(tmp_path, monkeypatch):
    if not any(found.id == bundle.DEFAULT_MODEL for found in bundle.available()):
        pytest.fail(f"the default model {bundle.DEFAULT_MODEL} is not in the package")
    image = np.full((16, 24, 3), 128, np.uint8)
    monkeypatch.chdir(tmp_path)
    imagefile.write_image(Path("photo.png"), image)
    with_arrays, with_pillow = blocks("python")
    names = {"image": image}
    exec(with_arrays, names)
    assert isinstance(names["data"], bytes) and names["image"].shape == (16, 24, 3)
    exec(with_pillow, {})
    assert cwic.inspect(Path("photo.cwic").read_bytes()).height == 16 and Path("grey.png").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_versions_agree():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text or f"## [{cwic.__version__}]" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dynamic"] == ["version"]
