"""What is laid out as its format documents, or else said to be not."""

from collections.abc import Iterator
from contextlib import contextmanager

from slotssm.errors import InputError


@contextmanager
def layout_errors(place: str) -> Iterator[None]:
    """Turn what a document that lacks something raises into `InputError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{place} is not laid out as documented ({reason}); download it again") from None
