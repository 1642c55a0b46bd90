"""One clear error for sources that do not have the documented layout."""

from collections.abc import Iterator
from contextlib import contextmanager

from slotssm.errors import InputError


@contextmanager
def layout_errors(place: str) -> Iterator[None]:
    """Turn the errors that an incomplete document causes into `InputError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{place} is not laid out as documented ({reason}); download it again") from None
