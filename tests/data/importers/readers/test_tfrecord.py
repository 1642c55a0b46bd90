"""TFRecord and Example against Google's own CRC32C and Protocol Buffers."""

import struct

import numpy as np
import pytest
from foreign_files import example, example_class, write_tfrecord
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.data.importers.readers.tfrecord import RecordFile, masked_crc32c, values
from slotssm.errors import InputError


def bitwise_crc(content: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, section 12.1: polynomial 0x1EDC6F41, here with its bits reversed)."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_checksums_are_those_of_the_definition(content):
    crc = bitwise_crc(content)
    rotated = crc >> 15 | (crc & 0x7FFF) << 17
    assert masked_crc32c(content) == masked_crc32c(memoryview(content)) == (rotated + 0xA282EAD8) % 2**32


def test_the_definition_gives_the_usual_check_value():
    assert bitwise_crc(b"123456789") == 0xE3069283


numbers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)
floats = st.lists(st.floats(width=32, allow_nan=False), max_size=20)
pieces = st.lists(st.binary(max_size=20), max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.one_of(numbers, floats, pieces), max_size=6))
def test_examples_are_read_as_protobuf_wrote_them(tmp_path_factory, features):
    made = example_class()()
    for name, content in features.items():
        feature = made.features.feature[name]
        if content and isinstance(content[0], bytes):
            feature.bytes_list.value.extend(content)
        elif content and isinstance(content[0], float):
            feature.float_list.value.extend(content)
        else:
            feature.int64_list.value.extend(content)
    path = write_tfrecord(tmp_path_factory.mktemp("r") / "r", [b"", made.SerializeToString()])
    file = RecordFile(path)
    assert len(file.records) == 2
    assert file.example(0) == {}
    found = file.example(1)
    assert found.keys() == features.keys()
    for name, content in features.items():
        assert list(values(found[name])) == content


def test_lists_that_are_not_packed(tmp_path):
    """Old writers put every number into a field of its own; readers take both."""

    def field(number, wire, content):
        return bytes([number << 3 | wire]) + content

    def block(number, content):
        return field(number, 2, bytes([len(content)]) + content)

    integers = field(1, 0, b"\x96\x01") + field(1, 0, b"\xff" * 9 + b"\x01") + block(1, b"\x05\x07")
    reals = field(1, 5, struct.pack("<f", 1.5)) + block(1, struct.pack("<ff", -2, 3))
    entries = {b"i": block(3, integers), b"r": block(2, reals)}
    features = b"".join(block(1, block(1, name) + block(2, content)) for name, content in entries.items())
    message = block(1, features)
    checked = example_class().FromString(message)
    assert list(checked.features.feature["i"].int64_list.value) == [150, -1, 5, 7]
    found = RecordFile(write_tfrecord(tmp_path / "r", [message])).example(0)
    assert list(values(found["i"])) == [150, -1, 5, 7]
    assert list(values(found["r"])) == [1.5, -2, 3]


@pytest.fixture
def shard(tmp_path):
    messages = [example({"a": np.arange(300 + i), "b": [bytes(50)]}) for i in range(3)]
    return write_tfrecord(tmp_path / "shard", messages)


def read_all(path):
    file = RecordFile(path)
    for index in range(len(file.records)):
        for feature in file.example(index).values():
            values(feature)


def test_every_flipped_byte_is_noticed(shard):
    whole = shard.read_bytes()
    for position in range(0, len(whole), 7):
        spoiled = bytearray(whole)
        spoiled[position] ^= 0x10
        shard.write_bytes(spoiled)
        with pytest.raises(InputError, match=r"shard .*(damaged|not a TFRecord|cut short)"):
            read_all(shard)


def test_every_cut_is_noticed_but_between_records(shard):
    whole = shard.read_bytes()
    ends = {record.offset + record.length + 4 for record in RecordFile(shard).records}
    assert len(whole) in ends
    for length in range(1, len(whole), 11):
        if length in ends:
            continue
        shard.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut short"):
            RecordFile(shard)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08" + bytes(40), b"plain text, and no records at all"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other is (empty|not a TFRecord file|cut short)"):
        RecordFile(path)


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05\x0a", b"\x0b", b"\x0a\x04\x0a\x7f\x01\x02", b"\xff" * 12])
def test_messages_that_are_no_examples_are_refused(tmp_path, message):
    path = write_tfrecord(tmp_path / "r", [message])
    with pytest.raises(InputError, match=r"not a tf.train.Example"):
        RecordFile(path).example(0)
