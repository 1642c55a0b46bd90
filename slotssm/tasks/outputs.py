"""Named outputs: what a task makes of videos, and what scores and pictures ask for by name."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from slotssm.models import ModelState

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "slots": "[B, T, K, D] slots of every step",
        "masks": "[B, T, K, H, W] share of each slot in a pixel, sum 1 over K",
        "attention": "[B, T, K, h, w] attention of the slots to the tokens on their grid, sum 1 over K",
        "frames": "[B, T', 3, H, W] pixels in [0, 1]; they belong to the last T' frames of the episode",
        "slot_frames": "[B, T, K, 3, H, W] what each slot paints",
        "classes": "[B, T', H, W] pixel classes of `frames`, indices into the palette of the data",
        "depth": "[B, T, H, W] depth in the unit of the data",
        "logits": "[B, C] of a label of the episode, or [B, T, C] after every frame",
    }
)
"""Names that metrics and pictures know, with shape and meaning; a task may give others for its own use."""


class Outputs(Mapping[str, Tensor]):
    """Named tensors, and the state to continue a stream with.

    Args:
        state: of the model after the last frame that was read.
        values: outputs by name; None stands for one that this model does not give.
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
