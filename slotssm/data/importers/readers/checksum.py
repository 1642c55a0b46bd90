"""CRC-32C (Castagnoli), eight bytes at a time (Kounavis and Berry 2008, "slicing by 8"), and TFRecord's mask of it."""

import numpy as np

from slotssm.compilation import cached_njit

POLYNOMIAL = np.uint32(0x82F63B78)
"""0x1EDC6F41 with its bits reversed (RFC 3720, section 12.1)."""
MASK_DELTA = 0xA282EAD8
"""TensorFlow's `crc32c.h`."""


def _tables() -> np.ndarray:
    """Remainders of every byte followed by 0 to 7 zero bytes, uint32 [8, 256]."""
    tables = np.zeros((8, 256), np.uint32)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = np.where(tables[0] & 1, (tables[0] >> 1) ^ POLYNOMIAL, tables[0] >> 1)
    for zeros in range(1, 8):
        tables[zeros] = (tables[zeros - 1] >> 8) ^ tables[0][tables[zeros - 1] & 0xFF]
    return tables


TABLES = _tables()


@cached_njit()
def _remainder(content: np.ndarray, tables: np.ndarray) -> np.uint32:
    crc = np.uint32(0xFFFFFFFF)
    whole = len(content) // 8 * 8
    for i in range(0, whole, 8):
        crc = (
            tables[7, content[i] ^ (crc & 0xFF)]
            ^ tables[6, content[i + 1] ^ ((crc >> 8) & 0xFF)]
            ^ tables[5, content[i + 2] ^ ((crc >> 16) & 0xFF)]
            ^ tables[4, content[i + 3] ^ (crc >> 24)]
            ^ tables[3, content[i + 4]]
            ^ tables[2, content[i + 5]]
            ^ tables[1, content[i + 6]]
            ^ tables[0, content[i + 7]]
        )
    for i in range(whole, len(content)):
        crc = (crc >> np.uint32(8)) ^ tables[0, (crc ^ content[i]) & 0xFF]
    return crc ^ np.uint32(0xFFFFFFFF)


def crc32c(content: bytes | memoryview) -> int:
    """CRC-32C of some bytes."""
    return int(_remainder(np.frombuffer(content, np.uint8), TABLES)) & 0xFFFFFFFF


def masked_crc32c(content: bytes | memoryview) -> int:
    """What TFRecord files store: the CRC rotated right by 15 bits plus a constant, so that CRCs of CRCs stay good."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF
