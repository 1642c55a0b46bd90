"""Run lengths against pycocotools, which defines them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from slotssm.data.importers.readers.run_lengths import decode
from slotssm.errors import InputError


@settings(deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
def test_text_and_numbers_are_decoded_as_coco_encoded_them(mask):
    code = coco.encode(np.asfortranarray(mask))
    text = {"size": list(code["size"]), "counts": code["counts"].decode()}
    np.testing.assert_array_equal(decode(text, "here"), mask.astype(bool))
    # the plain form: lengths of runs down the columns, beginning with zeros
    flat = mask.T.ravel()
    bounds = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *bounds, flat.size]).tolist()
    plain = {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}
    np.testing.assert_array_equal(decode(plain, "here"), mask.astype(bool))


def test_large_runs_take_several_characters():
    mask = np.zeros((320, 480), np.uint8)
    mask[100:200, 7:400] = 1
    mask[150, 300] = 0
    code = coco.encode(np.asfortranarray(mask))
    found = decode({"size": code["size"], "counts": code["counts"].decode()}, "here")
    np.testing.assert_array_equal(found, mask.astype(bool))


@pytest.mark.parametrize("counts", [[5, 6], [-1, 10], [], "o", "99999999"])
def test_runs_that_do_not_fit_are_refused(counts):
    with pytest.raises(InputError, match="here"):
        decode({"size": [3, 3], "counts": counts}, "here")
