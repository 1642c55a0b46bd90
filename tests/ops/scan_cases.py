"""Random scans, and the recurrence solved in closed form."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotssm.ops import selective_scan

NAMES = ("x", "dt", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def random_scan(
    length: int, channels: int = 5, states: int = 3, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Arguments of `selective_scan`, all of the optional ones included; each requires a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    arguments = {
        "x": normal(batch, length, channels),
        "dt": normal(batch, length, channels) - 1,
        "A": -torch.exp(normal(channels, states)),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels),
        "initial_state": normal(batch, channels, states),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in arguments.items()}


def solved(arguments: dict[str, Tensor], softplus: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """y and the last state from the solution of the recurrence, without stepping through it.

    h_t = exp(A S_t) h_0 + sum over s <= t of exp(A (S_t - S_s)) Δ_s B_s x_s, where S_t = Δ_1 + ... + Δ_t.
    """
    a = {name: value.detach().double().numpy() for name, value in arguments.items()}
    delta = a["dt"] + a.get("delta_bias", 0)
    delta = np.logaddexp(0, delta) if softplus else delta
    batch, length, channels = a["x"].shape
    start = a.get("initial_state", np.zeros((batch, channels, a["A"].shape[1])))
    elapsed = np.cumsum(delta, axis=1)
    drive = np.einsum("ble,bln->blen", delta * a["x"], a["B"])
    history = [start]
    for t in range(length):
        since = elapsed[:, t, None] - elapsed[:, : t + 1]
        kept = np.exp(since[..., None] * a["A"]) * drive[:, : t + 1]
        history.append(np.exp(elapsed[:, t, :, None] * a["A"]) * start + kept.sum(1))
    states = np.stack(history[1:], 1)
    y = np.einsum("blen,bln->ble", states, a["C"])
    if "D" in a:
        y = y + a["D"] * a["x"]
    if "z" in a:
        y = y * a["z"] / (1 + np.exp(-a["z"]))
    return y, history[-1]


def random_convolution(length: int, channels: int = 17) -> list[Tensor]:
    """x, past, weight and bias of `causal_convolve`, in float64; each requires a gradient."""
    shapes = ((2, length, channels), (2, channels, 4), (channels, 4), (channels,))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def run(arguments: Mapping[str, Tensor], backend: str = "fused") -> tuple[Tensor, Tensor]:
    """y and the last state, with softplus."""
    return selective_scan(**arguments, delta_softplus=True, return_final_state=True, backend=backend)


def loss(outputs: Iterable[Tensor]) -> Tensor:
    """A function of all outputs whose gradient depends on each number of them."""
    return sum(output.square().sum() for output in outputs)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    scale = expected.abs().max().clamp(min=1e-30)
    return float(((found.double() - expected.double()).abs().max() / scale).item())


# --- cases and ways to lie in memory ----------------------------------------------------------------------


def covering(axes: Mapping[str, Sequence[Any]], fits: Callable[..., bool]) -> list[dict[str, Any]]:
    """Few cases in which every two values of two axes meet, except where no case with both fits."""
    rng, cases = random.Random(0), []
    missing = {
        (one, i, other, j)
        for one, other in combinations(axes, 2)
        for i in range(len(axes[one]))
        for j in range(len(axes[other]))
    }
    while missing:
        one, i, other, j = min(missing)
        found, best = set(), None
        for _ in range(30):
            indices = {name: rng.randrange(len(values)) for name, values in axes.items()} | {one: i, other: j}
            covered = {(a, indices[a], b, indices[b]) for a, b in combinations(axes, 2)} & missing
            case = {name: axes[name][index] for name, index in indices.items()}
            if len(covered) > len(found) and fits(**case):
                found, best = covered, case
        missing -= found or {(one, i, other, j)}
        cases += [best] if best else []
    return cases


def _from_a_sheet(tensor: Tensor) -> Tensor:
    """The second half of something whose other half must not be read."""
    return torch.cat([torch.full_like(tensor, torch.nan), tensor], -1).chunk(2, -1)[1]


def _from_a_longer_one(tensor: Tensor) -> Tensor:
    return torch.stack([torch.full_like(tensor, torch.nan), tensor], 1)[:, 1]


def _every_second(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)[..., 0]


def _reversed_axes(tensor: Tensor) -> Tensor:
    backwards = tuple(range(tensor.ndim)[::-1])
    return tensor.permute(backwards).contiguous().permute(backwards)


# what surrounds the numbers in memory is NaN, so that reading it shows
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "second half": _from_a_sheet,
    "slice": _from_a_longer_one,
    "every second": _every_second,
    "axes reversed": _reversed_axes,
    "first axis expanded": lambda tensor: tensor[:1].expand_as(tensor),
    "last axis expanded": lambda tensor: tensor[..., :1].expand_as(tensor),
}
