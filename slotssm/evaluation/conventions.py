"""Named scoring conventions for segmentation: where public codebases and papers differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.evaluation.options import ScoringOptions

DEFAULT = "default"
CONVENTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        DEFAULT: {},
        "per-frame": {"per_frame": True},
        "include-background": {"include_background": True},
        "empty-one": {"empty": "one"},
        "skip-first": {"skip_frames": 1},
        "clips-of-6": {"clip_len": 6},
        "per-object": {"average": "object"},
        # the SAVi paper leaves out the first frame
        "savi": {"empty": "one", "skip_frames": 1},
        "steve": {"empty": "one", "clip_len": 6},
        "slotformer": {"empty": "one", "per_frame": True, "absent": "zero"},
    }
)
"""Convention names to the options in which they differ from the defaults; docs/evaluation.md gives their sources."""
ALL = "all"


def check_conventions(names: Sequence[str], options: ScoringOptions) -> None:
    """Refuse unknown convention names, and options that the conventions already set."""
    for name in names:
        if name != ALL and name not in CONVENTIONS:
            raise InputError(f"`conventions` {name} is unknown; {nearest(name, [*CONVENTIONS, ALL])}")
    if names:
        stated = (
            "per_frame",
            "include_background",
            "empty",
            "skip_frames",
            "clip_len",
            "matching",
            "average",
            "absent",
        )
        given, defaults = options.chosen(*stated), ScoringOptions().chosen(*stated)
        for name in stated:
            if given[name] != defaults[name]:
                raise InputError(f"`conventions` set their own options; leave out `{name}`, or `conventions`")


def distinct_conventions(options: ScoringOptions, relevant: Sequence[str]) -> dict[str, ScoringOptions]:
    """Options of each requested convention, by name; conventions that agree in the relevant options appear once.

    Args:
        options: requested conventions (or `all`), and the options that conventions leave open.
        relevant: names of the options that affect the metric.
    """
    chosen = list(CONVENTIONS) if ALL in options.conventions else list(dict.fromkeys(options.conventions))
    found: dict[str, ScoringOptions] = {}
    seen: list[dict[str, Any]] = []
    for name in chosen:
        each = replace(options, conventions=(), **CONVENTIONS[name])
        stated = each.chosen(*relevant)
        if stated not in seen:
            seen.append(stated)
            found[name] = each
    return found
