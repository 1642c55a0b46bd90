"""Named conventions of scoring segmentations: what public code bases and papers do differently."""

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
        "slotformer": {"empty": "one", "per_frame": True},
    }
)
"""Names to the options that differ from the defaults; what each is, and whose, says docs/evaluation.md."""
ALL = "all"


def check_conventions(names: Sequence[str], options: ScoringOptions) -> None:
    """Refuse unknown names, and options beside them that they state themselves."""
    for name in names:
        if name != ALL and name not in CONVENTIONS:
            raise InputError(f"`conventions` {name} is unknown; {nearest(name, [*CONVENTIONS, ALL])}")
    if names:
        stated = ("per_frame", "include_background", "empty", "skip_frames", "clip_len", "matching", "average")
        mine, usual = options.chosen(*stated), ScoringOptions().chosen(*stated)
        for name in stated:
            if mine[name] != usual[name]:
                raise InputError(f"`conventions` state their own options; leave out `{name}`, or `conventions`")


def spread(options: ScoringOptions, changes: Sequence[str]) -> dict[str, ScoringOptions]:
    """The conventions in which the options `changes` differ, by name; of two that agree in them the first.

    Args:
        options: names conventions, or `all`; what they leave open.
        changes: options that a metric has.
    """
    chosen = list(CONVENTIONS) if ALL in options.conventions else list(dict.fromkeys(options.conventions))
    found: dict[str, ScoringOptions] = {}
    seen: list[dict[str, Any]] = []
    for name in chosen:
        each = replace(options, conventions=(), **CONVENTIONS[name])
        stated = each.chosen(*changes)
        if stated not in seen:
            seen.append(stated)
            found[name] = each
    return found
