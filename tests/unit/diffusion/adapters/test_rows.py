"""Changes of adapters applied to the rows of one call, against each row's own weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service.diffusion.adapters import rows as module
from service.diffusion.adapters.deltas import Delta, Dense, LowRank
from service.diffusion.adapters.modules import Modules
from service.diffusion.adapters.reading import Loaded
from service.diffusion.adapters.rows import RowAdapters, Use
from service.models.adapters.catalog import Stamp
from service.models.adapters.names import Part

LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "linear": lambda: torch.nn.Linear(6, 5),
    "conv": lambda: torch.nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "point": lambda: torch.nn.Conv2d(6, 5, 1),
}
INPUTS = {"linear": (6,), "conv": (6, 8, 8), "point": (6, 4, 4)}


class Net(torch.nn.Module):
    """One layer, which is called as often as its input has rows."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = LAYERS[kind]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def adapter(net: Net, seed: int, *, dense: bool = False, rank: int = 3) -> Loaded:
    """Return an adapter of the one layer."""
    draw = torch.Generator().manual_seed(seed)
    shape = net.layer.weight.shape
    assert isinstance(shape, torch.Size)
    change: Delta
    if dense:
        change = Dense(weight=torch.randn(shape, generator=draw))
    else:
        down = torch.randn(rank, *shape[1:], generator=draw)
        up = torch.randn(shape[0], rank, generator=draw)
        change = LowRank(down=down, up=up, scale=0.5)
    stamp = Stamp(Path(f"{seed}"), 0, 0)
    return Loaded(name=f"{seed}", stamp=stamp, deltas={Part.UNET: {"layer": change}})


def expected(net: Net, x: torch.Tensor, use: Use) -> torch.Tensor:
    """Return what the layer makes of one row with the changes in its weight."""
    weight = net.layer.weight
    assert isinstance(weight, torch.nn.Parameter)
    before = weight.data.clone()
    for loaded, strength in use:
        change = loaded.deltas[Part.UNET]["layer"]
        if isinstance(change, Dense):
            weight.data += strength * change.weight
        else:
            product = (change.up @ change.down.flatten(1)).view(weight.shape)
            weight.data += strength * change.scale * product
    out: torch.Tensor = net(x)
    weight.data = before
    return out


def checked(net: Net, uses: list[Use], x: torch.Tensor) -> None:
    """Compare a call with these rows with calls of each row alone."""
    with torch.inference_mode():
        wanted = torch.cat(
            [expected(net, one, use) for one, use in zip(x.split(1), uses, strict=True)]
        )
        plain = net(x)
        with RowAdapters(Modules({"unet": net}), Part.UNET).applied(uses):
            found = net(x)
        assert torch.allclose(found, wanted, atol=1e-5)
        for row, use in enumerate(uses):
            if not any(strength for _, strength in use):
                assert torch.equal(found[row], plain[row])
        assert torch.equal(net(x), plain)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dense", [False, True])
def test_every_row_has_its_own_changes(kind: str, *, dense: bool) -> None:
    """Other adapters, other weights, several, and none; what has none keeps every bit."""
    net = Net(kind)
    a, b = adapter(net, 1, dense=dense), adapter(net, 2, rank=2)
    uses: list[Use] = [((a, 1.0),), (), ((b, -0.5), (a, 0.3)), ((b, 0.0),), ((b, 2.0),)]
    torch.manual_seed(2)
    checked(net, uses, torch.randn(len(uses), *INPUTS[kind]))


@pytest.mark.parametrize("tokens", [(), (7,), (2, 3)])
def test_inputs_of_any_number_of_axes(tokens: tuple[int, ...]) -> None:
    """Time embeddings have two, tokens three, and others may have more."""
    net = Net("linear")
    a = adapter(net, 1)
    torch.manual_seed(2)
    checked(net, [((a, 1.0),), (), ((a, 0.5),)], torch.randn(3, *tokens, 6))


@pytest.mark.parametrize("wide", [2, 1000])
@pytest.mark.parametrize("kind", LAYERS)
def test_many_adapters(monkeypatch: pytest.MonkeyPatch, kind: str, wide: int) -> None:
    """With many, each row takes its own matrices; the result is that of all side by side."""
    monkeypatch.setattr(module, "WIDE", wide)
    net = Net(kind)
    uses: list[Use] = [((adapter(net, seed, rank=1 + seed % 3), 1.0),) for seed in range(7)]
    uses += [(), (*uses[1], *uses[2])]
    torch.manual_seed(2)
    checked(net, uses, torch.randn(len(uses), *INPUTS[kind]))


def test_one_use_stands_for_any_number_of_rows() -> None:
    """Texts that are encoded together share their adapters."""
    net = Net("linear")
    a = adapter(net, 1)
    torch.manual_seed(2)
    x = torch.randn(4, 7, 6)
    with (
        torch.inference_mode(),
        RowAdapters(Modules({"unet": net}), Part.UNET).applied([((a, 1.0),)]),
    ):
        found = net(x)
    with torch.inference_mode():
        assert torch.allclose(found, expected(net, x, ((a, 1.0),)), atol=1e-5)
