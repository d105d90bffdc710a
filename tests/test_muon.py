"""Muon: what a step does to matrices and to the rest, alone and in two processes."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cwic_lab import muon, processes  # noqa: E402
from cwic_lab.muon import Muon, orthogonal, stacks  # noqa: E402
from cwic_lab.networks import build  # noqa: E402
from cwic_lab.recipe import parse_recipe  # noqa: E402
from cwic_lab.step import new_optimizer  # noqa: E402
from cwic_lab.task import task_of  # noqa: E402

SHAPES = [(24, 40), (40, 24), (32, 32), (24, 40), (1, 8)]


def optimizer_of(shapes, rate=0.01, seed=3, precision=torch.bfloat16):
    """Matrices and a vector with gradients, and Muon for them."""
    random = torch.Generator().manual_seed(seed)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    vector = torch.nn.Parameter(torch.randn(7, generator=random))
    for parameter in (*matrices, vector):
        parameter.grad = torch.randn(parameter.shape, generator=random)
    groups = [{"params": matrices, "matrix": True}, {"params": [vector], "matrix": False}]
    return Muon(groups, precision, lr=rate, fused=True), matrices, vector


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_orthogonal_keeps_directions_and_makes_singular_values_alike(shape, precision):
    rows, columns = shape
    random = np.random.default_rng(1)
    u, _ = np.linalg.qr(random.normal(size=(rows, min(shape))))
    v, _ = np.linalg.qr(random.normal(size=(columns, min(shape))))
    matrix = torch.tensor(u * np.linspace(0.1, 5, min(shape)) @ v.T, dtype=torch.float32)
    found = orthogonal(matrix[None].to(precision))[0].float().numpy()
    values = np.diag(u.T @ found @ v)
    assert 0.6 < values.min() and values.max() < 1.3
    assert np.abs(u.T @ found @ v - np.diag(values)).max() < 0.05


def test_a_gradient_of_zeros_moves_nothing():
    assert torch.equal(orthogonal(torch.zeros(2, 8, 4)), torch.zeros(2, 8, 4))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_is_as_large_as_adams_for_every_shape(precision):
    optimizer, matrices, _ = optimizer_of(SHAPES, precision=precision)
    before = [matrix.detach().clone() for matrix in matrices]
    optimizer.step()
    for matrix, old in zip(matrices, before, strict=True):
        size = (matrix.detach() - old).square().mean().sqrt().item()
        assert 0.6 < size / (0.01 * muon.ADAM_RMS) < 1.2  # small singular values do not reach 1
        assert ((matrix.detach() - old) * matrix.grad).sum() < 0  # downhill


def test_the_rest_is_adams():
    optimizer, _, vector = optimizer_of(SHAPES)
    twin = torch.nn.Parameter(vector.detach().clone())
    twin.grad = vector.grad.clone()
    adam = torch.optim.Adam([twin], lr=0.01, fused=True)
    for _ in range(3):
        optimizer.step()
        adam.step()
    assert torch.equal(vector, twin)


def test_a_recipe_in_float32_has_nothing_in_bfloat16(monkeypatch):
    seen = []
    monkeypatch.setattr(muon, "orthogonal", lambda matrices: seen.append(matrices.dtype) or orthogonal(matrices))
    for precision in ("float32", "bfloat16"):
        recipe = parse_recipe(
            f'name = "m"\nprecision = "{precision}"\n[network]\nkind = "cwic"\n[data]\npaths = ["x.zip"]\n'
            '[[stage]]\nname = "joint"\nsteps = 1\nlr = 1e-3\noptimizer = "muon"\n'
        )
        network = torch.nn.Linear(4, 4)
        network.weight.grad = torch.ones(4, 4)
        task = SimpleNamespace(groups=lambda network: [{"params": [network.weight], "matrix": True}])
        new_optimizer(task, network, recipe, recipe.stages[0]).step()
    assert seen == [torch.float32, torch.bfloat16]


def test_momentum_goes_on_after_loading():
    (first, moved, _), (second, matrices, vector) = optimizer_of(SHAPES), optimizer_of(SHAPES)
    first.step()
    second.step()
    third, others, other = optimizer_of(SHAPES, seed=9)
    third.load_state_dict(second.state_dict())
    for to, source in zip((*others, other), (*matrices, vector), strict=True):
        to.data.copy_(source.data)
        to.grad.copy_(source.grad)
    first.step()
    third.step()
    assert all(torch.equal(a, b) for a, b in zip(moved, others, strict=True))


def test_an_overflow_leaves_weights_as_they_are_and_momentum_finite():
    optimizer, matrices, _ = optimizer_of(SHAPES)
    before = [matrix.detach().clone() for matrix in matrices]
    matrices[0].grad[0, 0] = torch.nan
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(matrix, old) for matrix, old in zip(matrices, before, strict=True))
    assert all(state["momentum"].isfinite().all() for state in optimizer.state.values() if "momentum" in state)


class OneOfTwo:
    """torch.distributed as one of two processes sees it; what it gives to the sum is kept."""

    def __init__(self, rank):
        self.rank = rank

    def is_initialized(self):
        return True

    def get_rank(self):
        return self.rank

    def get_world_size(self):
        return 2

    def all_reduce(self, flat):
        self.given = flat.clone()


def test_two_processes_share_the_matrices_and_do_what_one_does(monkeypatch):
    given = []
    for rank in (0, 1):
        one = OneOfTwo(rank)
        for module in (muon, processes):
            monkeypatch.setattr(module, "dist", one)
        optimizer_of(SHAPES)[0].step()
        given.append(one.given)
    monkeypatch.undo()
    assert not ((given[0] != 0) & (given[1] != 0)).any()
    assert all((part != 0).sum() >= 0.25 * len(part) for part in given)
    optimizer, matrices, _ = optimizer_of(SHAPES)
    before = [matrix.detach().clone() for matrix in matrices]
    optimizer.step()
    moved = torch.cat([(old - matrix.detach()).flatten() for old, matrix in zip(before, matrices, strict=True)])
    torch.testing.assert_close(0.01 * (given[0] + given[1]), moved, atol=1e-5, rtol=1e-2)


def test_rare_shapes_share_a_stack_where_asked():
    shapes = [torch.Size(shape) for shape in [(24, 40)] * muon.RARE + [(8, 64), (30, 30), (8, 64)]]
    common = list(range(muon.RARE))
    alone = stacks(shapes, one_of_the_rare=False)
    assert alone == [((24, 40), common), ((8, 64), [8, 10]), ((30, 30), [9])]
    assert stacks(shapes, one_of_the_rare=True) == [((24, 40), common), ((30, 64), [8, 9, 10])]


def test_a_shared_stack_moves_matrices_as_their_own_does(monkeypatch):
    (alone, moved, _), (together, others, _) = optimizer_of(SHAPES), optimizer_of(SHAPES)
    alone.step()
    monkeypatch.setattr(muon, "stacks", lambda shapes, **_: stacks(shapes, one_of_the_rare=True))
    together.step()
    for one, other in zip(moved, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)  # of steps of 0.01


def test_matrices_of_the_flagship_are_its_products():
    network = build(kind="cwic")
    groups = task_of("cwic").groups(network)
    chosen = {id(p) for group in groups if group["matrix"] for p in group["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in chosen}
    assert {"decoder_in.weight", "encoder8.1.gated.gate.0.weight", "means.0.0.weight"} <= names
    assert not {"start.basis", "start.inverse", "log_gain", "encoder8.1.mix.2.weight", "decoder_in.bias"} & names


def test_muon_is_for_the_flagship_alone():
    stage = '[[stage]]\nname = "joint"\nsteps = 1\nlr = 1e-3\noptimizer = "muon"\n'
    head = 'name = "a"\n[network]\nkind = "{}"\n[data]\npaths = ["photos"]\n'
    assert parse_recipe(head.format("cwic") + stage).stages[0].optimizer == "muon"
    with pytest.raises(ValueError, match="'muon' is for networks of kind 'cwic' alone"):
        parse_recipe(head.format("li2018") + stage)
    with pytest.raises(ValueError, match="optimizer = 'moon'; allowed: adam, muon"):
        parse_recipe(head.format("cwic") + stage.replace("muon", "moon"))
