"""Episodes on disk and in batches.

`episodes` owns the HDF5 format and `reader` reads it from many threads; `loader` turns a file into reproducible torch
batches for training here, `dataset` into items for training code elsewhere, `clips` says which frames they take;
`exporters` write other formats.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slotssm.data.dataset import EpisodeDataset

__all__ = ["EpisodeDataset"]


def __getattr__(name: str) -> Any:
    # looked up late: whoever writes episodes needs no torch
    if name in __all__:
        from slotssm.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
