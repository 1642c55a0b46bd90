"""The errors a user may see, each with the exit code that the command line returns for it.

A message names an argument that the caller can pass by its Python name in backticks, "`force` overwrites it"; the
command line puts its own option there. Whatever else it says stands without backticks.
"""


class SlotSSMError(Exception):
    """Something failed while it ran; the message is one line that a person can act on."""

    exit_code = 1


class InputError(SlotSSMError):
    """A file, option or configuration is wrong: the message names it, the fault and the remedy."""

    exit_code = 2


class BusyError(InputError):
    """Another process is at work on the same file; try again when it is done."""


class Interrupted(SlotSSMError):
    """The work was stopped by a signal and can be resumed without loss."""

    exit_code = 3
