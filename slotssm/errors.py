"""The errors that a user may see, each with the exit code that the command line returns for it.

A message refers to an argument of the caller by its Python name in backticks ("`force` overwrites it"), which the
command line replaces by its own option. Nothing else in a message is in backticks.
"""


class SlotSSMError(Exception):
    """Something failed at run time; the message is one line that a person can act on."""

    exit_code = 1
    is_told = False
    """Whether another process tells it."""


class InputError(SlotSSMError):
    """A file, option or configuration is wrong: the message names it, the problem and the remedy."""

    exit_code = 2


class BusyError(InputError):
    """Another process is working on the same file; try again when it has finished."""


class Interrupted(SlotSSMError):
    """The work was stopped by a signal and can be resumed without loss."""

    exit_code = 3
