"""Episode files and data loading.

`episodes` defines the HDF5 format and `reader` reads it from several threads; `loader` provides the reproducible torch
batches of the trainer, `dataset` a torch data set for other training code, and `clips` selects their frames;
`importers` and `exporters` convert other formats.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slotssm.data.dataset import EpisodeDataset

__all__ = ["EpisodeDataset"]


def __getattr__(name: str) -> Any:
    # imported lazily, since writing episodes does not need torch
    if name in __all__:
        from slotssm.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
