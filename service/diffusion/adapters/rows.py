"""The changes of adapters applied to the rows of one call, each row with its own weights.

Every changed layer gets a forward hook for the time of the call. All rows pass through the small
matrices of all adapters of the call, laid side by side, and the weights in the middle, 0 for what
a row does not use, decide what is left of it: two products a layer, however many adapters there
are. Where that is much more than what any row uses, each row takes its own matrices out of them.
Nothing of the model itself changes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from service.diffusion.adapters.deltas import Dense, LowRank
from service.diffusion.adapters.modules import Layer, Modules
from service.diffusion.adapters.reading import Loaded
from service.models.adapters.names import Part

Use = tuple[tuple[Loaded, float], ...]
"""The adapters of one row, and their weights."""


WIDE: Final = 2
"""Times the ranks of the widest row; where all adapters have more, each row takes its own."""

Ranks = tuple[tuple[int, int, float], ...]
"""For each adapter in a stack: its place in the call, its rank, its scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Low:
    """The small matrices of the adapters of a call for one layer."""

    down: torch.Tensor
    """``[ranks, in, ...]``, of all adapters."""
    up: torch.Tensor
    """``[out, ranks]``."""
    ranks: Ranks


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stack:
    """The changes that the adapters of a call make to one layer."""

    low: _Low | None
    dense: tuple[tuple[int, torch.Tensor], ...]
    """Changes of the weight's own shape, each with the place of its adapter in the call."""


class RowAdapters:
    """Applies adapters to one part of a model; the last stacked set of adapters is kept."""

    def __init__(self, modules: Modules, part: Part) -> None:
        self._modules = modules
        self._part = part
        self._set: tuple[Loaded, ...] = ()
        self._stacks: dict[str, _Stack] = {}

    def forget(self) -> None:
        """Let go of the tensors of the last set."""
        self._set, self._stacks = (), {}

    @contextmanager
    def applied(self, rows: Sequence[Use]) -> Iterator[None]:
        """Change the part for calls with these rows; a single one stands for any number."""
        used = [[(each, w) for each, w in row if w and each.changes(self._part)] for row in rows]
        adapters = tuple({id(each): each for row in used for each, _ in row}.values())
        if not adapters:
            yield
            return
        if {*map(id, adapters)} != {*map(id, self._set)}:
            self._set, self._stacks = adapters, _stacked(adapters, self._part)
        places = {id(each): number for number, each in enumerate(self._set)}
        weights = [[0.0] * len(self._set) for _ in used]
        for row, found in zip(weights, used, strict=True):
            for each, weight in found:
                row[places[id(each)]] += weight
        if all(row == weights[0] for row in weights):
            del weights[1:]
        layers = self._modules.layers(self._part)
        call = _Call(weights)
        with ExitStack() as hooks:
            for name, stack in self._stacks.items():
                handle = layers[name].register_forward_hook(call.hook(stack))
                hooks.callback(handle.remove)
            yield


def _stacked(adapters: Sequence[Loaded], part: Part) -> dict[str, _Stack]:
    names = dict.fromkeys(name for each in adapters for name in each.deltas.get(part, {}))
    return {name: _stack(adapters, part, name) for name in names}


def _stack(adapters: Sequence[Loaded], part: Part, name: str) -> _Stack:
    low: list[tuple[int, LowRank]] = []
    dense: list[tuple[int, torch.Tensor]] = []
    for place, each in enumerate(adapters):
        match each.deltas.get(part, {}).get(name):
            case LowRank() as change:
                low.append((place, change))
            case Dense(weight=weight):
                dense.append((place, weight))
    stacked = (
        _Low(
            down=_joined([change.down for _, change in low], 0),
            up=_joined([change.up for _, change in low], 1),
            ranks=tuple((place, change.rank, change.scale) for place, change in low),
        )
        if low
        else None
    )
    return _Stack(low=stacked, dense=tuple(dense))


def _joined(tensors: list[torch.Tensor], axis: int) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, axis)


class _Call:
    """The weights of the rows of one call, as the layers need them."""

    def __init__(self, weights: Sequence[Sequence[float]]) -> None:
        self._weights = weights
        self._known: dict[Any, torch.Tensor] = {}

    def hook(self, stack: _Stack) -> Callable[[Any, Any, Any], Any]:
        """Return the hook of a layer."""
        dense = [
            (weight, column)
            for place, weight in stack.dense
            if any(column := [row[place] for row in self._weights])
        ]

        def changed(layer: Layer, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            (x,) = inputs
            if stack.low is not None:
                self._add_low(layer, stack.low, x, output)
            for weight, column in dense:
                change = _through(layer, x, weight)
                output.add_(change * self._per_row(tuple(column), change))
            return output

        return changed

    def _add_low(self, layer: Layer, low: _Low, x: torch.Tensor, output: torch.Tensor) -> None:
        if isinstance(layer, torch.nn.Linear) and self._is_wide(low.ranks):
            self._add_own(low, x, output)
            return
        middle = _through(layer, x, low.down)
        weights = self._middle(low.ranks, middle)
        if isinstance(layer, torch.nn.Conv2d):
            up = low.up[:, :, None, None]
            output.add_(functional.conv2d(middle * weights[:, :, None, None], up))
            return
        middle = middle * weights.reshape(len(weights), *(1,) * (x.dim() - 2), -1)
        flat = output.view(-1, output.shape[-1])
        flat.addmm_(middle.view(-1, middle.shape[-1]), low.up.t())

    def _add_own(self, low: _Low, x: torch.Tensor, output: torch.Tensor) -> None:
        """Add to each row what its own matrices make of it, in two batched products."""
        rows = len(self._weights)
        index, weights = self._own(low.ranks, x)
        down, up = low.down[index], low.up.t()[index]
        middle = torch.bmm(x.reshape(rows, -1, x.shape[-1]), down.transpose(1, 2))
        flat = output.view(rows, -1, output.shape[-1])
        flat.baddbmm_(middle * weights[:, None, :], up)

    def _is_wide(self, ranks: Ranks) -> bool:
        everything = sum(rank for _, rank, _ in ranks)
        return len(self._weights) > 1 and everything > WIDE * self._widest(ranks)

    def _widest(self, ranks: Ranks) -> int:
        return max(sum(rank for p, rank, _ in ranks if row[p]) for row in self._weights)

    def _own(self, ranks: Ranks, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the places of each row's ranks, ``[rows, widest]``, and their weights."""
        key = ("own", ranks)
        if key not in self._known:
            width = self._widest(ranks)
            table = [
                [(place, row[p] * scale) for place, p, scale in _places(ranks) if row[p]]
                for row in self._weights
            ]
            for row in table:  # What is left over is any place, with the weight 0.
                row.extend([(0, 0.0)] * (width - len(row)))
            index = torch.tensor([[place for place, _ in row] for row in table])
            weights = torch.tensor([[w for _, w in row] for row in table], dtype=like.dtype)
            self._known[key] = index.to(like.device)
            self._known["weights", ranks] = weights.to(like.device)
        return self._known[key], self._known["weights", ranks]

    def _middle(self, ranks: Ranks, like: torch.Tensor) -> torch.Tensor:
        """Return the weights in the middle, ``[rows, ranks]``."""
        if ranks not in self._known:
            table = [
                [row[place] * scale for place, rank, scale in ranks for _ in range(rank)]
                for row in self._weights
            ]
            self._known[ranks] = torch.tensor(table, dtype=like.dtype).to(like.device)
        return self._known[ranks]

    def _per_row(self, column: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
        if column not in self._known:
            self._known[column] = torch.tensor(column, dtype=like.dtype).to(like.device)
        return self._known[column].view(-1, *(1,) * (like.dim() - 1))


def _places(ranks: Ranks) -> Iterator[tuple[int, int, float]]:
    """Yield each rank's place in the stack, the place of its adapter, and the scale."""
    owners = [(p, scale) for p, rank, scale in ranks for _ in range(rank)]
    return ((place, p, scale) for place, (p, scale) in enumerate(owners))


def _through(layer: Layer, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what comes of an input with another weight in the place of the layer's."""
    if isinstance(layer, torch.nn.Conv2d):
        return functional.conv2d(
            x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
        )
    return functional.linear(x, weight)
