"""Embedded videos: pixels and labels survive exactly."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from slotssm.plotting.sheets import contact_sheet
from slotssm.report import Region, Track, Video, embed


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
@pytest.mark.parametrize("size", [(1, 5, 7), (7, 16, 4), (12, 3, 9)])
def test_a_contact_sheet_holds_every_frame(channels, size):
    frames = np.random.default_rng(0).integers(0, 256, (*size, *channels), np.uint8)
    content, columns = contact_sheet(frames)
    sheet = np.asarray(Image.open(io.BytesIO(content)))
    num_frames, height, width = size
    for index in range(num_frames):
        row, column = divmod(index, columns)
        part = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        np.testing.assert_array_equal(part, frames[index])


def test_an_embedded_video_says_what_it_shows():
    rng = np.random.default_rng(1)
    frames, labels = rng.integers(0, 256, (5, 4, 6, 3), np.uint8), rng.integers(0, 3, (5, 4, 6), np.uint8)
    colors = rng.integers(0, 256, (256, 3), np.uint8)
    regions = [Region(f"slot {k}", (k, k, k), k) for k in range(3)]
    found = embed(
        Video("t", "s", {"mse": 0.5}, range(5), [Track("i", frames), Track("m", labels, colors)], regions, labels)
    )
    content = json.loads(found.text)
    assert (content["width"], content["height"], content["numbers"]) == (6, 4, [0, 1, 2, 3, 4])
    shares = np.array([region["share"] for region in content["regions"]])
    np.testing.assert_allclose(shares, [(labels == k).mean((1, 2)) for k in range(3)], atol=1e-5)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)
    assert content["tracks"][1]["colors"] == {str(k): colors[k].tolist() for k in range(3)}
    assert base64.b64decode(content["labels"]["sheet"]).startswith(b"\x89PNG")
    assert found.num_bytes == len(found.text.encode())
