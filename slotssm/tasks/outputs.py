"""Named outputs of tasks, which metrics and pictures look up by name."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from slotssm.models import ModelState

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "slots": "[B, T, K, D] slots of every step",
        "masks": "[B, T, C, H, W] weight of each slot in a pixel; sums to 1 over C, which is K, or K + 1 with a canvas "
        "(the last)",
        "attention": "[B, T, C, h, w] attention of the slots to the grid of tokens; sums to 1 over C, which is K, or "
        "K + 1 with a null slot (the last)",
        "slots_read": "[B, T', K, h, w] share of each slot in what the Transformer decoder reads for each piece of "
        "`frames`; sums to 1 over K; only on request",
        "frames": "[B, T', 3, H, W] pixels in [0, 1] of the last T' frames of the episode",
        "slot_frames": "[B, T, C, 3, H, W] image decoded from each slot, and the canvas",
        "classes": "[B, T', H, W] pixel classes of `frames`, indices into the palette of the data",
        "depth": "[B, T, H, W] depth in the unit of the data",
        "logits": "[B, C] for a label of the episode, or [B, T, C] after every frame",
    }
)
"""Output names that metrics and pictures use, with shape and meaning; a task may have further outputs of its own."""


class Outputs(Mapping[str, Tensor]):
    """Named tensors, and the state for continuing a stream.

    Args:
        state: state of the model after the last input frame.
        values: outputs by name; None for an output that this model does not provide.
    """

    def __init__(self, state: ModelState, **values: Tensor | None) -> None:
        self.state = state
        self._values = {name: value for name, value in values.items() if value is not None}

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
