"""Padding of episodes with fewer objects than the file has columns for."""

import numpy as np

from slotssm.data.episodes import Episode, Layout


def padded(episode: Episode, layout: Layout) -> Episode:
    """The fields of the layout, with the object axis padded with zeros; `visible` = 0 marks padding."""
    return {name: _padded(episode[name], field.dims, field.shape) for name, field in layout.items()}


def _padded(array: np.ndarray, dims: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    if np.shape(array) == shape or "object" not in dims:
        return array
    # much faster than numpy.pad on arrays as small as these
    full = np.zeros(shape, array.dtype)
    full[(*(slice(None),) * dims.index("object"), slice(array.shape[dims.index("object")]))] = array
    return full
