"""Conventions of scoring, each stated with every result that it touches."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from slotssm.errors import InputError


@dataclass(frozen=True)
class ScoringOptions:
    """Where public code bases differ; the defaults are argued in docs/evaluation.md.

    Attributes:
        per_frame: segmentation units are frames instead of videos.
        include_background: FG-ARI counts the background too, which turns it into ARI; mIoU takes it as an object.
        empty: what FG-ARI gives units without foreground: skip them, or score 1.
        skip_frames: leave out the first frames of each video from segmentation scores.
        clip_len: segmentation units are clips of so many frames; 0 is off.
        matching: `hungarian` (one to one), or `overlap`, which turns mIoU into mBO.
        average: mIoU over units, or over all objects.
        mask_source: predicted masks from the decoder's alphas or from the encoder's attention.
        probe: `linear` probes of properties, or networks with one hidden layer.
        properties: names of the properties to probe; empty takes all.
        probe_split: the split that probes are fitted on; None is the scored one, in folds of whole videos.
        conventions: names from `slotssm.evaluation.conventions`, or `all`, under which segmentations are scored in one
            pass; empty scores under the options above.
        seed: of the bootstrap.
    """

    per_frame: bool = False
    include_background: bool = False
    empty: Literal["skip", "one"] = "skip"
    skip_frames: int = 0
    clip_len: int = 0
    matching: Literal["hungarian", "overlap"] = "hungarian"
    average: Literal["unit", "object"] = "unit"
    mask_source: Literal["decoder", "attention"] = "decoder"
    probe: Literal["linear", "mlp"] = "linear"
    properties: tuple[str, ...] = ()
    probe_split: str | None = None
    conventions: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_frame and self.clip_len:
            raise InputError("`per_frame` and `clip_len` exclude each other")
        if self.skip_frames < 0 or self.clip_len < 0:
            raise InputError("`skip_frames` and `clip_len` must not be negative")
        for name, allowed in (
            ("empty", ("skip", "one")),
            ("matching", ("hungarian", "overlap")),
            ("average", ("unit", "object")),
            ("mask_source", ("decoder", "attention")),
            ("probe", ("linear", "mlp")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"`{name}` {getattr(self, name)} must be one of {', '.join(allowed)}")

    def chosen(self, *names: str) -> dict[str, Any]:
        """The named options as keyword arguments."""
        values = asdict(self)
        return {name: values[name] for name in names}
