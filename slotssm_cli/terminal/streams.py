"""Output streams that tolerate closed descriptors, readers that exit early, full disks and non-UTF-8 encodings."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from slotssm.errors import SlotSSMError

# writing to a pipe without a reader gives EINVAL on Windows
_READER_IS_GONE = {errno.EPIPE, errno.ESHUTDOWN} | ({errno.EINVAL} if os.name == "nt" else set())


class TolerantStream:
    """A text stream that discards output once its reader has gone, and otherwise behaves like the wrapped stream.

    Args:
        stream: stream to wrap.
        required: whether a failure to write for any other reason, such as a full disk, is an error.
    """

    def __init__(self, stream: Any, required: bool) -> None:
        self._stream, self._required, self._dropped = stream, required, False

    def write(self, text: str) -> int:
        """Write `text`, unless the reader has gone."""
        if not self._dropped:
            with self._lenient():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the wrapped stream, unless the reader has gone."""
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
            # the text still in the buffer would fail again at interpreter exit
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
    """Replace stdout and stderr by `TolerantStream`s; characters that they cannot encode become question marks."""
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
        # failures to write the result were raised by earlier flushes; here it is too late to report them
        for outlet in (sys.stdout, sys.stderr):
            with contextlib.suppress(SlotSSMError):
                outlet.flush()
        for stream, original in zip(streams, before, strict=True):
            if original is None:
                stream.close()
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Open descriptors 0 to 2 if closed, so that no data file becomes descriptor 1 or 2, where libraries write."""
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
