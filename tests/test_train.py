"""The training loop: recipe errors, exact resume, two processes against one, logs and plot."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photographs import write_photographs
from PIL import Image

torch = pytest.importorskip("torch")

from cwic.cli import main, parser  # noqa: E402
from cwic_lab import run as run_of_a_recipe  # noqa: E402
from cwic_lab import train as trainer  # noqa: E402
from cwic_lab.checkpoint import read_checkpoint, start_weights, write_checkpoint  # noqa: E402
from cwic_lab.recipe import parse_recipe, read_recipe  # noqa: E402

ROOT = Path(__file__).parent.parent

RECIPE = """
name = "tiny"
seed = 5
validate_every = 4
validation_images = 1
checkpoint_every = 4
log_every = 2
{more}
[network]
kind = "{kind}"
n = 64
{levels}
width = 0.125

[data]
paths = ["photos"]
crop = 32
batch = {batch}
workers = 0
validation_fraction = 0.3

[[stage]]
name = "without map"
steps = 4
lr = 1e-3
{prefix}

[[stage]]
name = "joint"
{map}
steps = {steps}
lr = 1e-3
ssim_weight = 0.05
"""


def recipe_text(kind="li2018", batch=2, steps=4, more='start = "random"'):
    words = {
        "kind": kind,
        "batch": batch,
        "steps": steps,
        "more": more,
        "levels": "",
        "prefix": "",
        "map": "",
    }
    if kind == "li2018":
        words |= {
            "levels": "levels = 16",
            "prefix": "prefix = 8",
            "map": "map = true\nthreshold_bpp = 0.3\ngamma = 0.3",
        }
    return RECIPE.format(**words)


@pytest.fixture
def folder(tmp_path):
    write_photographs(tmp_path, 64, 48)
    return tmp_path


def run(folder, text, name="a", **options):
    recipe = folder / "recipe.toml"
    recipe.write_text(text)
    return trainer.train(recipe, runs=folder / name, device="cpu", **options)


def same_weights(first, second):
    one, two = read_checkpoint(first), read_checkpoint(second)
    return all(torch.equal(one[part][key], two[part][key]) for part in ("model", "ema") for key in one[part])


@pytest.mark.parametrize("kind", ["li2018", "autoencoder"])
def test_interrupted_training_ends_with_the_same_bits(folder, kind, monkeypatch):
    text = recipe_text(kind).replace("workers = 0", "workers = 0\nhostile = 0.25")
    whole = run(folder, text, "whole")

    class Interrupted(Exception):
        pass

    original = run_of_a_recipe.generator_of

    def stop_at_six(seed, step, *rest):
        if step == 6:
            raise Interrupted
        return original(seed, step, *rest)

    monkeypatch.setattr(run_of_a_recipe, "generator_of", stop_at_six)
    with pytest.raises(Interrupted):
        run(folder, text, "broken")
    monkeypatch.undo()
    assert read_checkpoint(folder / "broken" / "tiny" / "last.pt")["step"] == 4
    resumed = run(folder, text, "broken")
    assert read_checkpoint(resumed)["step"] == 8
    assert same_weights(whole, resumed)


def test_recipes_are_trained_in_turn(folder):
    """Each may start from the one before, and a mistake in the last is told before the first is trained."""
    first, second = folder / "first.toml", folder / "second.toml"
    first.write_text(recipe_text())
    second.write_text(recipe_text(more='init = "tiny"').replace('name = "tiny"', 'name = "second"'))
    assert main(["train", str(first), str(second), "--runs", str(folder / "runs")]) == 0
    one, two = (read_checkpoint(folder / "runs" / name / "last.pt") for name in ("tiny", "second"))
    assert one["step"] == two["step"] == 8
    wrong = folder / "wrong.toml"
    wrong.write_text("name = 1")
    with pytest.raises(ValueError, match=r"wrong\.toml: data: .*'paths'"):
        trainer.train_in_turn([first, wrong], runs=folder / "others", device="cpu")
    wrong.write_text(second.read_text().replace('init = "tiny"', 'init = "tidy"'))
    with pytest.raises(FileNotFoundError, match="'tidy' is no run"):
        trainer.train_in_turn([first, wrong], runs=folder / "others", device="cpu")
    with pytest.raises(FileNotFoundError, match="'tiny' is no run"):
        trainer.train_in_turn([second, first], runs=folder / "others", device="cpu")
    assert not (folder / "others").exists()


def test_a_run_that_goes_on_needs_no_weights_to_start_with(folder):
    first = run(folder, recipe_text(), "first")
    text = recipe_text(more=f'init = "{first.as_posix()}"').replace("seed = 5", "seed = 6")
    last = run(folder, text, "second")
    state = read_checkpoint(last)
    assert state["step"] == 8 and not same_weights(first, last)
    first.unlink()
    (folder / "second" / "tiny" / "log.jsonl").unlink()
    assert run(folder, text, "second") == last and read_checkpoint(last)["seconds"] == state["seconds"]
    assert not (folder / "second" / "tiny" / "log.jsonl").exists()  # the run had ended: nothing is done again
    write_checkpoint(last, {**state, "step": 6})
    assert read_checkpoint(run(folder, text, "second"))["step"] == 8
    with pytest.raises(FileNotFoundError, match="init"):
        run(folder, text, "third")


def test_log_and_plot(folder):
    out = run(folder, recipe_text()).parent
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8]
    checks = [row["validation"] for row in rows if "validation" in row]
    assert len(checks[0]) == 3 and len(checks[1]) == 1  # three prefixes without the map, one point with it
    assert all(0 < point["raw_bpp"] <= 1.1 and point["psnr"] > 3 for check in checks for point in check)
    with Image.open(out / "progress.png") as picture:
        assert picture.size[0] > 800


def test_a_run_without_validation_photographs_has_its_losses_alone(folder):
    out = run(folder, recipe_text().replace("validation_fraction = 0.3", "validation_fraction = 0.0")).parent
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert (out / "progress.png").exists()


def test_a_training_that_diverges_goes_back_and_slows_down(folder, caplog):
    text = recipe_text("autoencoder").replace("lr = 1e-3", "lr = 1e9").replace("log_every = 2", "log_every = 1")
    out = run(folder, text)
    rows = [json.loads(line) for line in (out.parent / "log.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows if "lr" in row]
    state = read_checkpoint(out)
    assert "diverged" in caplog.text and rates[-1] < rates[0] / 2 and state["slower"] < 1
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("has", [False, True])
def test_a_processor_without_bfloat16_is_told(folder, caplog, monkeypatch, precision, has):
    monkeypatch.setattr(trainer, "has_bfloat16", lambda: has)
    run(folder, recipe_text("autoencoder", steps=1, more=f'start = "random"\nprecision = "{precision}"'))
    told = [record.getMessage() for record in caplog.records if "in software" in record.getMessage()]
    assert len(told) == (precision == "bfloat16" and not has)
    assert all("recipe.toml" in message and "'float32' is faster" in message for message in told)


def test_another_recipe_does_not_resume(folder):
    run(folder, recipe_text())
    with pytest.raises(ValueError, match="another recipe"):
        run(folder, recipe_text(steps=5))


def test_init_takes_the_leading_part(folder):
    wide = run(folder, recipe_text(), "runs")
    narrow = recipe_text(steps=0, more=f'start = "random"\ninit = "{wide.as_posix()}"').replace(
        'name = "tiny"', 'name = "narrow"'
    )
    narrow = narrow.replace("n = 64", "n = 32").replace("steps = 4", "steps = 1").replace("lr = 1e-3", "lr = 0.0")
    narrow = narrow.replace("lr = 0.0", "lr = 0.0\nlr_end = 0.0")
    first = read_checkpoint(run(folder, narrow, "other"))["model"]["code_head.0.weight"]
    source = read_checkpoint(wide)["ema"]["code_head.0.weight"]
    assert torch.equal(first, source[:32])


def test_init_goes_on_along_the_way_from_the_run_before(folder):
    first = run(folder, recipe_text(), "first")
    last = run(folder, recipe_text().replace("seed = 5", "seed = 6"), "last")
    reach = f'init = "{last.as_posix()}"\ninit_before = "{first.as_posix()}"\ninit_reach = 1.5'
    found = start_weights(parse_recipe(recipe_text(more=reach)), folder / "recipe.toml", folder)
    one, two = read_checkpoint(first)["ema"], read_checkpoint(last)["ema"]
    assert found.keys() == two.keys() and not same_weights(first, last)
    for key, value in found.items():
        assert torch.allclose(value, two[key] + 0.5 * (two[key] - one[key]), atol=1e-6)


def test_init_before_must_be_of_the_same_shapes(folder):
    wide = run(folder, recipe_text(), "wide")
    narrow = run(folder, recipe_text("autoencoder"), "narrow")
    both = f'init = "{wide.as_posix()}"\ninit_before = "{narrow.as_posix()}"'
    with pytest.raises(ValueError, match="init_before: .* has other weights"):
        run(folder, recipe_text(more=both), "more")
    for more in ('init_before = "a"', 'init = "a"\ninit_reach = 1.5'):
        with pytest.raises(ValueError, match="init_before needs init, and init_reach needs init_before"):
            parse_recipe(recipe_text(more=more))


def test_a_part_with_share_0_stays_as_it_is(folder):
    first, second = recipe_text().split('[[stage]]\nname = "joint"')
    shares = "shares = { encoder = 0, code_head = 0.5 }"
    before = read_checkpoint(run(folder, first, name="before"))["model"]
    after = read_checkpoint(run(folder, f'{first}[[stage]]\nname = "joint"\n{shares}{second}', name="after"))
    still = {name for name in before if torch.equal(before[name], after["model"][name])}
    assert still == {name for name in before if name.startswith("encoder.")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 5", "sed = 5", "'sed'"),
        ("prefix = 8", "prefixes = 8", "'prefixes'"),
        ('start = "random"', 'start = "zero"', "'zero'"),
        ("crop = 32", "corp = 32", "'corp'"),
    ],
)
def test_recipe_errors_name_what_was_found(old, new, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(recipe_text().replace(old, new))


def test_shares_of_a_part_that_the_network_lacks_are_refused(folder):
    text = recipe_text("autoencoder").replace("ssim_weight = 0.05", "shares = { importance_net = 0.5 }")
    with pytest.raises(ValueError, match="'importance_net'; allowed: code_head, decoder, encoder"):
        run(folder, text)


def test_a_map_is_for_li2018_alone():
    with pytest.raises(ValueError, match="li2018"):
        parse_recipe(recipe_text("autoencoder").replace('name = "joint"', 'name = "joint"\nmap = true'))


def flagship_text():
    return recipe_text("cwic").replace("n = 64\n", "").replace("width = 0.125\n", "")


def test_the_map_of_the_flagship_is_trained_alone():
    text = flagship_text()
    auto = parse_recipe(text.replace("ssim_weight = 0.05", "auto = true")).stages[1]
    assert [auto.share(part) for part in ("importance_net", "encoder8", "means")] == [1, 0, 0]
    with pytest.raises(ValueError, match="importance_net alone"):
        parse_recipe(text.replace("ssim_weight = 0.05", "auto = true\nshares = { means = 1.0 }"))
    with pytest.raises(ValueError, match="'cwic' alone"):
        parse_recipe(recipe_text("autoencoder").replace("ssim_weight = 0.05", "auto = true"))


def test_the_share_of_ms_ssim_falls_no_further_than_to_0():
    text = flagship_text()
    share = parse_recipe(text.replace("ssim_weight = 0.05", "ms_ssim = 0.9\nms_ssim_fall = 0.4")).stages[1]
    assert (share.ms_ssim, share.ms_ssim_fall) == (0.9, 0.4)
    with pytest.raises(ValueError, match="0 <= ms_ssim_fall <= ms_ssim <= 1"):
        parse_recipe(text.replace("ssim_weight = 0.05", "ms_ssim = 0.9\nms_ssim_fall = 1.0"))


def test_shipped_recipes_parse():
    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    assert len(recipes) >= 6
    for path in recipes:
        assert parse_recipe(path.read_text()).name == path.stem


def test_the_docs_have_recipes_and_commands_for_every_bundle_of_the_package():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \| (`[^|]*`) \| [^|]* \|$", page, re.MULTILINE)
    bundles = {path.parent.name: path for path in (ROOT / "src" / "cwic" / "models").glob("*/model.json")}
    assert [name for name, _ in rows] == [*dict(rows)] and set(dict(rows)) == set(bundles)
    for name, listed in rows:
        recipes = re.findall(r"`([^`]+)`", listed)
        assert all(read_recipe(ROOT / "recipes" / f"{recipe}.toml").name == recipe for recipe in recipes)
        last = json.loads(bundles[name].read_text(encoding="utf-8"))["training"]["recipe"]
        assert parse_recipe(last).name == recipes[-1]
        found = [read_recipe(ROOT / "recipes" / f"{recipe}.toml") for recipe in recipes]
        assert [recipe.init for recipe in found] == ["", *recipes[:-1]], f"{name}: not each from the one before"
        assert all(recipe.init_before in ["", *recipes] for recipe in found)
    example = re.search(r"cwic train recipes/cwic-psnr\{(.*)\}\.toml\n +cwic export runs/(.*)/last\.pt", page)
    of_psnr = re.findall(r"`([^`]+)`", dict(rows)["cwic-psnr"])
    assert [f"cwic-psnr{end}" for end in example[1].split(",")] == of_psnr and example[2] == of_psnr[-1]
    commands = [line.split("#")[0].strip() for line in page.splitlines() if "RECIPE.toml" in line]
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(re.sub(r"^[A-Z_]+=\S* ", "", command))
        if words[0] == "cwic":
            assert parser().parse_args(words[1:]).recipes == [Path("recipes/RECIPE.toml")]
        else:
            assert words[:2] == ["torchrun", "--nproc_per_node"] and words[3:5] == ["-m", "cwic_lab.train"]
            assert trainer.parser().parse_args(words[5:]).recipes == [Path("recipes/RECIPE.toml")]


def test_two_processes_do_what_one_does(folder):
    """Same samples, same loss and same weights to rounding (gloo on the CPU); and they train in turn."""
    text = recipe_text("autoencoder", batch=4).replace("steps = 4", "steps = 2")
    one = run(folder, text, "one")
    (folder / "next.toml").write_text(text.replace('name = "tiny"', 'name = "next"'))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}",
        "-m", "cwic_lab.train", str(folder / "recipe.toml"), str(folder / "next.toml"),
        "--runs", str(folder / "two"), "--device", "cpu",
    ]  # fmt: skip
    source = str(Path(trainer.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=240)
    assert read_checkpoint(folder / "two" / "next" / "last.pt")["step"] == 4
    losses = []
    for name in ("one", "two"):
        lines = (folder / name / "tiny" / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if '"loss"' in line])
    # The noise that stands in for 8-bit rounding is drawn for each process, hence not exactly equal.
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    first, second = (read_checkpoint(folder / name / "tiny" / "last.pt")["model"] for name in ("one", "two"))
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=2e-4, rtol=1e-3)
    assert one.exists()
