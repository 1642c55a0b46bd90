"""Scoring options; every result states those that affect it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from slotssm.errors import InputError


@dataclass(frozen=True)
class ScoringOptions:
    """Choices in which public codebases differ; docs/evaluation.md explains the defaults.

    Attributes:
        per_frame: segmentation units are frames instead of videos.
        include_background: count the background as an object; this turns FG-ARI into ARI.
        empty: how FG-ARI treats units without foreground: `skip` them, or score them as `one`.
        skip_frames: number of first frames of each video that segmentation scores leave out.
        clip_len: segmentation units are clips of this many frames; 0 is off.
        matching: `hungarian` (one to one), or `overlap`, which turns mIoU into mBO.
        average: average mIoU over units (`unit`), or over all objects (`object`).
        absent: whether ids below the largest of a unit that do not occur in it count as 0 in mIoU and mBO (`zero`).
        mask_source: predicted masks are the alphas of the `decoder`, the `attention` of the slots to the tokens, or the
            `cross-attention` of a Transformer decoder to the slots.
        probe: property probes are `linear`, or networks with one hidden layer (`mlp`).
        properties: names of the properties to probe; empty probes all.
        probe_split: split that probes are fitted on; None cross-validates over whole videos of the scored split.
        conventions: names from `slotssm.evaluation.conventions`, or `all`, under which segmentations are scored in one
            pass; empty scores under the options above.
        seed: seed of the bootstrap and of the probes.
    """

    per_frame: bool = False
    include_background: bool = False
    empty: Literal["skip", "one"] = "skip"
    skip_frames: int = 0
    clip_len: int = 0
    matching: Literal["hungarian", "overlap"] = "hungarian"
    average: Literal["unit", "object"] = "unit"
    absent: Literal["skip", "zero"] = "skip"
    mask_source: Literal["decoder", "attention", "cross-attention"] = "decoder"
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
            ("absent", ("skip", "zero")),
            ("mask_source", ("decoder", "attention", "cross-attention")),
            ("probe", ("linear", "mlp")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"`{name}` {getattr(self, name)} must be one of {', '.join(allowed)}")

    def chosen(self, *names: str) -> dict[str, Any]:
        """The named options as keyword arguments."""
        values = asdict(self)
        return {name: values[name] for name in names}
