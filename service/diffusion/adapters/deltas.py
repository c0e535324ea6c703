"""The change that an adapter makes to one layer: two small matrices, or one of the layer's size.

Formulas: LoRA, Hu et al., arXiv:2106.09685; LoHa, Hyeon-Woo et al., arXiv:2108.06098; LoKr,
Yeh et al., arXiv:2309.14859; DoRA, Liu et al., arXiv:2402.09353.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from service.diffusion.adapters.modules import Layer

Tensors = Mapping[str, torch.Tensor]
"""The tensors of one module by their role (``models.adapters.names``)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """A change of rank ``r``: ``up @ down * scale``."""

    down: torch.Tensor
    """``[r, in]``, of a convolution ``[r, in, height, width]``."""
    up: torch.Tensor
    """``[out, r]``."""
    scale: float

    @property
    def rank(self) -> int:
        """Width of the middle."""
        return self.down.shape[0]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What takes memory."""
        return self.down, self.up

    def to(self, device: torch.device) -> "LowRank":
        """Return it on a device."""
        return LowRank(down=self.down.to(device), up=self.up.to(device), scale=self.scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A change of the shape of the layer's weight."""

    weight: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What takes memory."""
        return (self.weight,)

    def to(self, device: torch.device) -> "Dense":
        """Return it on a device."""
        return Dense(weight=self.weight.to(device))


Delta = LowRank | Dense


def delta(layer: Layer, tensors: Tensors, alpha: float) -> Delta:
    """Return the change that the tensors of a module describe, on the CPU in the layer's format.

    ``alpha`` counts where the tensors name none.

    Raises:
        ValueError: its shape is not that of the layer's weight.

    """
    if "alpha" in tensors:
        alpha = float(tensors["alpha"].float().flatten()[0])
    shape, dtype = layer.weight.shape, layer.weight.dtype
    sized = tensors.get("dora", tensors.get("magnitude"))
    if "down" in tensors and sized is None:
        down, up = _down(tensors), tensors["up"].float().flatten(1)
        rank = down.shape[0]
        return LowRank(
            down=_as_layer(down, torch.Size([rank, *shape[1:]])).to(dtype).contiguous(),
            up=_as_layer(up, torch.Size([shape[0], rank])).to(dtype).contiguous(),
            scale=alpha / rank,
        )
    full = _as_layer(_full(tensors, alpha), shape)
    if sized is not None:
        if layer.weight.is_meta:
            raise ValueError("DoRA needs the model's weights, which CPU_OFFLOAD=sequential hides")
        weight = layer.weight.detach().float().cpu()
        full = _decomposed(weight, full, sized.float(), by_row="magnitude" in tensors)
    return Dense(weight=full.to(dtype).contiguous())


def _as_layer(change: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a change in the shape of the weight: files write kernels and 1x1 ones flat, too."""
    same_inputs = change.shape[1] == shape[1] or change.dim() == len(("out", "in"))
    if change.shape[0] != shape[0] or not same_inputs or change.numel() != shape.numel():
        raise ValueError(
            f"{'x'.join(map(str, change.shape))} instead of {'x'.join(map(str, shape))}"
        )
    return change.reshape(shape)


def _down(tensors: Tensors) -> torch.Tensor:
    down = tensors["down"].float()
    if "mid" not in tensors:
        return down
    # Tucker decomposition, as LoCon writes it: 1x1, then the kernel, then 1x1.
    return torch.einsum("mrhw,ri->mihw", tensors["mid"].float(), down.flatten(1))


def _full(tensors: Tensors, alpha: float) -> torch.Tensor:
    """Return the change as one matrix, without what DoRA makes of it."""
    if "diff" in tensors:
        return tensors["diff"].float()
    if "down" in tensors:
        down, up = _down(tensors), tensors["up"].float().flatten(1)
        product = (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
        return product * (alpha / down.shape[0])
    if "w1_a" in tensors:
        rank = tensors["w1_b"].shape[0]
        one, two = (_hadamard(tensors, number) for number in ("1", "2"))
        return one * two * (alpha / rank)
    return _kronecker(tensors, alpha)


def _hadamard(tensors: Tensors, number: str) -> torch.Tensor:
    a, b = tensors[f"w{number}_a"].float(), tensors[f"w{number}_b"].float()
    if (core := tensors.get(f"t{number}")) is None:
        return a @ b
    return torch.einsum("rshw,ro,si->oihw", core.float(), a, b)


def _kronecker(tensors: Tensors, alpha: float) -> torch.Tensor:
    rank = 0
    factors = []
    for number in ("1", "2"):
        whole = tensors.get(f"k_w{number}")
        if whole is not None:
            factors.append(whole.float())
            continue
        a, b = tensors[f"k_w{number}_a"].float(), tensors[f"k_w{number}_b"].float()
        rank = b.shape[0]
        core = tensors.get("k_t2") if number == "2" else None
        if core is not None:
            factors.append(torch.einsum("rshw,ro,si->oihw", core.float(), a, b))
        else:
            factors.append((a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:]))
    one, two = factors
    one = one.reshape(*one.shape, *(1 for _ in range(two.dim() - one.dim())))
    # Two whole factors have no rank to divide by.
    return torch.kron(one, two) * (alpha / rank if rank else 1.0)


def _decomposed(
    weight: torch.Tensor, change: torch.Tensor, sizes: torch.Tensor, *, by_row: bool
) -> torch.Tensor:
    """Return the change of a weight whose direction changes so, and whose size is given.

    There is one size a row of the weight, as in the paper, or one a column: ``[1, in]``.
    """
    by_row = by_row or sizes.shape[0] == weight.shape[0]
    moved = weight + change
    kept = 0 if by_row else 1
    if sizes.numel() != weight.shape[kept]:
        raise ValueError(f"{sizes.numel()} sizes instead of {weight.shape[kept]}")
    others = [axis for axis in range(weight.dim()) if axis != kept]
    norms = torch.linalg.vector_norm(moved, dim=others, keepdim=True)
    norms = norms.clamp_min(torch.finfo(torch.float32).eps)
    sized: torch.Tensor = moved * (sizes.reshape(norms.shape) / norms)
    return sized - weight
