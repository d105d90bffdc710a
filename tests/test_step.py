"""One step of training: where gradients lie, and what moves."""

import pytest

torch = pytest.importorskip("torch")

from cwic_lab.networks import build  # noqa: E402
from cwic_lab.recipe import Stage  # noqa: E402
from cwic_lab.step import fill_gradients, prepare_gradients, to_planes, trained_of  # noqa: E402
from cwic_lab.task import task_of  # noqa: E402


@pytest.mark.parametrize(
    ("kind", "arguments", "stage"),
    [
        ("cwic", {}, Stage("joint", 1, 1e-3)),
        ("cwic", {}, Stage("decoder", 1, 1e-3, shares={"encoder8": 0, "means": 0})),
        ("li2018", {"n": 64, "levels": 16, "width": 0.125}, Stage("joint", 1, 1e-3, map=True, gamma=0.1)),
    ],
)
def test_gradients_are_those_of_a_backward_pass(kind, arguments, stage):
    torch.manual_seed(0)
    network, task = build(kind, **arguments).to(memory_format=torch.channels_last), task_of(kind)
    trained = trained_of(network, stage)
    flat = prepare_gradients(trained).fill_(7.0)  # what was in it before is gone
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    draws = task.draw(network, stage, images.shape, torch.Generator().manual_seed(1))
    loss, _ = task.loss(network, to_planes(images), stage, draws)
    fill_gradients(flat, trained, loss)
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in found}.isdisjoint(part for part, share in stage.shares.items() if not share)
    flat.zero_()
    task.loss(network, to_planes(images), stage, draws)[0].backward()
    assert flat.any()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(found[name], parameter.grad)
