"""Output streams that outlive their readers: closed, unread, full, or in another encoding than UTF-8."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from slotssm.errors import SlotSSMError

# writing to a pipe that nobody reads gives EINVAL on Windows
_READER_IS_GONE = {errno.EPIPE, errno.ESHUTDOWN} | ({errno.EINVAL} if os.name == "nt" else set())


class TolerantStream:
    """A text stream that drops what nobody reads, and otherwise behaves as the stream inside.

    Args:
        stream: where to write.
        required: whether it is an error if text cannot be written although its reader is there, as on a full disk.
    """

    def __init__(self, stream: Any, required: bool) -> None:
        self._stream, self._required, self._dropped = stream, required, False

    def write(self, text: str) -> int:
        """Write `text`, if anybody reads it."""
        if not self._dropped:
            with self._lenient():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if not self._dropped:
            with self._lenient():
                self._stream.flush()

    @contextlib.contextmanager
    def _lenient(self) -> Iterator[None]:
        try:
            yield
        except ValueError:  # the stream was closed
            self._dropped = True
        except OSError as error:
            self._dropped = True
            # what the stream still holds would fail again when the interpreter ends
            with contextlib.suppress(OSError, ValueError):
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, self._stream.fileno())
                os.close(devnull)
            if self._required and error.errno not in _READER_IS_GONE:
                raise SlotSSMError(f"cannot write the result: {error.strerror or error}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant_streams() -> Iterator[None]:
    """Put an `TolerantStream` in place of stdout and of stderr; what they cannot encode is replaced by a question mark."""
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    streams = []
    for stream in before:
        stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        streams.append(stream)
    sys.stdout, sys.stderr = TolerantStream(streams[0], required=True), TolerantStream(streams[1], required=False)
    try:
        yield
    finally:
        # a failure to write the last of the result is told by whoever flushed it; here it is too late
        for outlet in (sys.stdout, sys.stderr):
            with contextlib.suppress(SlotSSMError):
                outlet.flush()
        for stream, original in zip(streams, before, strict=True):
            if original is None:
                stream.close()
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Open what was closed at the start: a data file must not become descriptor 1 or 2, where libraries write."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, mode)
                if opened == descriptor:
                    os.set_inheritable(descriptor, True)
                else:
                    os.dup2(opened, descriptor)
                    os.close(opened)
