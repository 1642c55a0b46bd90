"""Commands that a page names; whoever prints them knows how they are spelled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """A command that repeats something that a page shows.

    Attributes:
        name: name of the command, such as `train`.
        arguments: positional arguments.
        options: further arguments, by their Python names; several values repeat the argument.
        purpose: what the command does, for a comment.
    """

    name: str
    arguments: tuple[str, ...] = ()
    options: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    purpose: str = ""


Speller = Callable[[Command], str]
"""Writes a command as one line to type."""
