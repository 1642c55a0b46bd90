"""TFRecord files and the `tf.train.Example` messages in them, without TensorFlow.

A record is its length (uint64, little endian), the masked CRC-32C of that, the message, and the masked CRC-32C of
the message (TensorFlow, `record_writer.h`). An Example is a map of names to lists of bytes, floats or integers
(`example.proto`, `feature.proto`), in the wire format of Protocol Buffers.
"""

import gzip
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from slotssm.errors import InputError

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
MASK_DELTA = 0xA282EAD8
"""TensorFlow's `crc32c.h`."""
LARGEST_RECORD = 1 << 30
"""Largest record of a stream, which is read into memory."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Values = list[bytes] | np.ndarray
"""Bytes, or float32 [n], or int64 [n]."""


class Record(NamedTuple):
    """Position of a record's message in its file."""

    offset: int
    length: int


class RecordFile:
    """One TFRecord file, mapped into memory; its structure is checked at once, messages when they are read.

    Args:
        path: the file.

    Raises:
        InputError: it is not a TFRecord file, or is damaged or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise InputError(f"{path} is empty; download it again") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        self.records = list(self._frame())

    def _frame(self) -> Iterator[Record]:
        position, size, count = 0, len(self._map), 0
        while position < size:
            header = self._map[position : position + HEADER.size]
            if len(header) < HEADER.size:
                raise self._cut(count)
            length, crc = HEADER.unpack(header)
            if masked_crc32c(header[:8]) != crc:
                told = (
                    "not a TFRecord file (compressed ones are not read)" if count == 0 else f"damaged at record {count}"
                )
                raise InputError(f"{self.path} is {told}; download it again")
            start = position + HEADER.size
            position = start + length + FOOTER.size
            if position > size:
                raise self._cut(count)
            yield Record(start, length)
            count += 1

    def _cut(self, count: int) -> InputError:
        return InputError(f"{self.path} is cut short after {count} whole records; download it again")

    def example(self, index: int, check: bool = True) -> dict[str, memoryview]:
        """A record's features by name, still encoded; `values` decodes one.

        Args:
            index: number of the record.
            check: verify the message's CRC, which reads all of it.
        """
        offset, length = self.records[index]
        view = memoryview(self._map)[offset : offset + length]
        if check and masked_crc32c(view) != FOOTER.unpack_from(self._map, offset + length)[0]:
            raise InputError(f"{self.path} is damaged in record {index} (checksum); download it again")
        return _parsed(view, self.path, index)


def read_stream(path: Path) -> Iterator[dict[str, memoryview]]:
    """The features of all records of a file, compressed by gzip or not, one after the other.

    Raises:
        InputError: it is not a TFRecord file, or is damaged or truncated.
    """
    count = 0
    try:
        with path.open("rb") as plain:
            is_compressed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain) if is_compressed else plain as stream:
                while header := stream.read(HEADER.size):
                    if len(header) < HEADER.size:
                        raise EOFError
                    length, crc = HEADER.unpack(header)
                    if masked_crc32c(header[:8]) != crc or length > LARGEST_RECORD:
                        told = "is not a TFRecord file" if count == 0 else f"is damaged at record {count}"
                        raise InputError(f"{path} {told}; download it again")
                    content, footer = stream.read(length), stream.read(FOOTER.size)
                    if len(content) < length or len(footer) < FOOTER.size:
                        raise EOFError
                    if masked_crc32c(content) != FOOTER.unpack(footer)[0]:
                        raise InputError(f"{path} is damaged in record {count} (checksum); download it again")
                    yield _parsed(memoryview(content), path, count)
                    count += 1
    except EOFError:
        raise InputError(f"{path} is cut short after {count} whole records; download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged after {count} records ({error}); download it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _parsed(view: memoryview, path: Path, index: int) -> dict[str, memoryview]:
    try:
        return _features(view)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: record {index} is not a tf.train.Example ({error})") from None


def masked_crc32c(content: bytes | memoryview) -> int:
    """The checksum of TFRecords: the CRC rotated right by 15 bits plus a constant, so that CRCs of CRCs are safe."""
    crc = google_crc32c.value(bytes(content))
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number, and the position after it."""
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _fields(view: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and content of every field of a message."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            content, position = _varint(view, position)
            yield number, wire, content
            continue
        if wire == LENGTH:
            length, position = _varint(view, position)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(view):
            raise ValueError("a field that exceeds its message")
        yield number, wire, view[position : position + length]
        position += length


def _messages(view: memoryview, wanted: int) -> Iterator[memoryview]:
    """The messages in a field."""
    for number, wire, content in _fields(view):
        if number == wanted and wire == LENGTH:
            yield content


def _features(view: memoryview) -> dict[str, memoryview]:
    """Example.features.feature: name to encoded Feature."""
    found: dict[str, memoryview] = {}
    for features in _messages(view, 1):
        for entry in _messages(features, 1):
            name = b"".join(bytes(key) for key in _messages(entry, 1)).decode()
            found[name] = next(_messages(entry, 2), memoryview(b""))
    return found


def values(feature: memoryview) -> Values:
    """The list in a Feature: bytes_list (1), float_list (2) or int64_list (3), packed or not.

    Raises:
        ValueError: it is malformed.
    """
    for kind, wire, content in _fields(feature):
        if wire != LENGTH or kind not in (1, 2, 3):
            continue
        if kind == 1:
            return [bytes(item) for item in _messages(content, 1)]
        parts = [_numbers(item, inner, kind) for number, inner, item in _fields(content) if number == 1]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32 if kind == 2 else np.int64)
    return []


def byte_values(feature: memoryview) -> np.ndarray:
    """All bytes in the strings of a Feature, uint8 [n]; fast for strings of one byte each.

    Raises:
        ValueError: it is malformed, or holds no strings.
    """
    for kind, wire, content in _fields(feature):
        if kind == 1 and wire == LENGTH:
            # a string of one byte is encoded as its field and type, its length, and the byte
            encoded = np.frombuffer(content, np.uint8)
            if len(encoded) % 3 == 0 and (encoded[::3] == 0x0A).all() and (encoded[1::3] == 1).all():
                return encoded[2::3]
    found = values(feature)
    if not isinstance(found, list):
        raise ValueError("numbers where strings of bytes are expected")
    return np.frombuffer(b"".join(found), np.uint8)


def _numbers(item: Any, wire: int, kind: int) -> np.ndarray:
    if kind == 2:
        return np.frombuffer(item, "<f4").astype(np.float32)
    return np.array([item], np.uint64).view(np.int64) if wire == VARINT else _varints(item)


def _varints(view: memoryview) -> np.ndarray:
    """Packed numbers, int64 [n]."""
    content = np.frombuffer(view, np.uint8)
    ends = np.flatnonzero(content < 0x80)
    if len(content) and (not len(ends) or ends[-1] != len(content) - 1):
        raise ValueError("numbers that end too early")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if lengths.max(initial=0) > 10:
        raise ValueError("a number of more than ten bytes")
    numbers = np.zeros(len(ends), np.uint64)
    for place in range(lengths.max(initial=0)):
        there = lengths > place
        numbers[there] |= (content[starts[there] + place].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * place)
    return numbers.view(np.int64)
