"""Pictures, masks and depth maps of single files; every changed byte of a PNG is noticed."""

import io

import numpy as np
import pytest
from PIL import Image

from slotssm.data.importers.readers import images
from slotssm.errors import InputError


def saved(array, form, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 14, 3)).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_are_exact(pixels, form):
    content = saved(pixels, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(images.frame(content, "f"), pixels)


def test_a_byte_of_a_png_that_changed_is_noticed(pixels):
    content = saved(pixels, "PNG")
    for place in range(8, len(content) - 4):
        changed = bytearray(content)
        changed[place] ^= 0x10
        with pytest.raises(InputError, match="f is damaged"):
            images.frame(bytes(changed), "f")
    for end in range(8, len(content)):
        with pytest.raises(InputError, match="f is damaged"):
            images.frame(content[:end], "f")
    np.testing.assert_array_equal(images.frame(content + b"more", "f"), pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
def test_arrays_of_integers_are_masks(kind):
    values = np.random.default_rng(0).integers(0, 200, (9, 14)).astype(kind)
    stream = io.BytesIO()
    np.save(stream, values)
    np.testing.assert_array_equal(images.label_values(stream.getvalue(), "m"), values)
    if kind in (np.uint8, np.uint16):
        for form in ("PNG", "TIFF"):
            np.testing.assert_array_equal(images.label_values(saved(values, form), "m"), values)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3)), np.zeros((2, 3, 3), int), np.array("text"), np.array([{}], object)]
)
def test_other_arrays_are_no_masks(values):
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    with pytest.raises(InputError, match=r"^m "):
        images.label_values(stream.getvalue(), "m")


def test_depth_is_what_is_stored():
    values = np.random.default_rng(0).uniform(0, 9, (9, 14)).astype(np.float32)
    np.testing.assert_array_equal(images.depth_map(saved(values, "TIFF"), "d"), values)
    whole = (values * 1000).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(images.depth_map(saved(whole, form), "d"), whole)
    with pytest.raises(InputError, match="not a depth map"):
        images.depth_map(saved(np.zeros((4, 4, 3), np.uint8), "PNG"), "d")


def test_frames_of_16_bits_are_refused():
    with pytest.raises(InputError, match="more than 8 bits a channel"):
        images.frame(saved(np.zeros((4, 4), np.uint16), "PNG"), "f")
