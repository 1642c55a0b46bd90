"""Messages of the library in terms of the command line: argument names become options of the running command."""

import logging
import re
from typing import Any

from slotssm_cli.terminal.console import note

_NAME = re.compile(r"`([A-Za-z_]\w*)`")

_ALIASES: dict[str, tuple[str, ...]] = {
    "num_train": ("train",),
    "num_val": ("val",),
    "num_test": ("test",),
    "num_frames": ("frames",),
    "stride": ("frames",),
    "clip_len": ("clip_length",),
    "clip_stride": ("stride",),
    "sequence_length": ("length",),
    "patches_per_side": ("patches",),
    "num_balls": ("balls",),
    "min_balls": ("balls",),
    "num_colors": ("colors",),
    "num_objects": ("objects",),
    "min_objects": ("objects",),
    "max_objects": ("objects",),
    "size_px": ("size",),
    "radius_px": ("radius",),
    "radii_px": ("radius",),
    "speed_px_per_frame": ("speed",),
    "min_speed_px_per_frame": ("speed",),
    "max_speed_px_per_frame": ("speed",),
    "outside_px": ("outside",),
    "camera_px": ("camera",),
    "camera_speed_px_per_frame": ("camera_speed",),
    "form": ("to",),
    "splits": ("split",),
    "numbers": ("episodes",),
    "indices": ("episodes",),
    "shard_bytes": ("shard_mb",),
    "names": ("metric", "cell"),
    "metrics": ("metric",),
    "fit_split": ("probe_split",),
    "cells": ("cell",),
    "seed": ("seeds",),
    "model": ("models",),
    "length": ("lengths",),
    "file": ("config",),
    "folder": ("out",),
    "source": ("src",),
    "run": ("path", "out"),
    "data": ("path",),
}
"""Command parameters that correspond to library arguments with other names, for commands without the same name."""


def spell(message: str, command: Any) -> str:
    """Replace names in backticks by the options of a command.

    `skip_frames` becomes --skip-frames, and positional arguments are written in capitals. Names that the command does
    not have only lose their backticks.

    Args:
        message: message of the library.
        command: the running command, or None.
    """
    parameters = {parameter.name: parameter for parameter in command.params} if command is not None else {}

    def spelled(name: str) -> str:
        for candidate in (name, *_ALIASES.get(name, ())):
            if candidate in parameters:
                return _flag(parameters[candidate], name)
        return name

    return _NAME.sub(lambda found: spelled(found[1]), message)


def _flag(parameter: Any, name: str) -> str:
    """`--skip-frames`, or `SRC`; for an argument with alternatives, such as `[RUN | DATA]`, the one that is named."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    words: list[str] = re.findall(r"[A-Z]\w*", parameter.metavar or parameter.name.upper())
    return name.upper() if name.upper() in words else words[0]


class Notes(logging.Handler):
    """Logging handler that prints each distinct message of the library once, on stderr.

    Args:
        is_verbose: whether to print messages of every level, not only warnings.

    Attributes:
        command: the running command, whose options appear in the messages.
    """

    def __init__(self, is_verbose: bool = False) -> None:
        super().__init__()
        self._wanted = logging.DEBUG if is_verbose else logging.NOTSET
        self.command: Any = None
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of `record`, unless it was printed already."""
        message = spell(record.getMessage(), self.command)
        if message not in self._told:
            self._told.add(message)
            note(f"note: {message}")

    def __enter__(self) -> "Notes":
        log = logging.getLogger("slotssm")
        log.addHandler(self)
        self._before = log.level
        log.setLevel(self._wanted)
        return self

    def __exit__(self, *error: object) -> None:
        log = logging.getLogger("slotssm")
        log.removeHandler(self)
        log.setLevel(self._before)
