"""Kinds of sources; each module is imported on first use, since some need numba, h5py or ffmpeg."""

from importlib import import_module
from pathlib import Path

from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.sources.source import Source
from slotssm.errors import InputError

_SOURCES = {
    "movi": ("movi", "MoviSource"),
    "cater": ("cater", "CaterSource"),
    "clevrer": ("clevrer", "ClevrerSource"),
    "rnem": ("rnem", "RnemSource"),
    "kubric": ("kubric", "KubricSource"),
    "multi-object": ("multi_object", "MultiObjectSource"),
    "rgbd": ("rgbd", "RgbdSource"),
    "images": ("image_sets", "ImageSource"),
    "folder": ("folder", "FolderSource"),
}
"""Module and class of each kind."""


def open_source(path: Path, options: ImportOptions) -> Source:
    """Open a source and find its episodes.

    Raises:
        InputError: it does not exist, or does not have the layout of its kind.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; name the file or folder that was downloaded")
    module, name = _SOURCES[options.kind]
    source: Source = getattr(import_module(f"slotssm.data.importers.layouts.{module}"), name)(path, options)
    return source
