"""Kinds of sources; each module is imported on first use, since some need numba, h5py or ffmpeg."""

from pathlib import Path

from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.sources.source import Source
from slotssm.errors import InputError


def open_source(path: Path, options: ImportOptions) -> Source:
    """Open a source and find its episodes.

    Raises:
        InputError: it does not exist, or does not have the layout of its kind.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; name the file or folder that was downloaded")
    if options.kind == "movi":
        from slotssm.data.importers.layouts.movi import MoviSource

        return MoviSource(path, options)
    if options.kind == "cater":
        from slotssm.data.importers.layouts.cater import CaterSource

        return CaterSource(path, options)
    if options.kind == "clevrer":
        from slotssm.data.importers.layouts.clevrer import ClevrerSource

        return ClevrerSource(path, options)
    if options.kind == "rnem":
        from slotssm.data.importers.layouts.rnem import RnemSource

        return RnemSource(path, options)
    if options.kind == "kubric":
        from slotssm.data.importers.layouts.kubric import KubricSource

        return KubricSource(path, options)
    if options.kind == "multi-object":
        from slotssm.data.importers.layouts.multi_object import MultiObjectSource

        return MultiObjectSource(path, options)
    if options.kind == "rgbd":
        from slotssm.data.importers.layouts.rgbd import RgbdSource

        return RgbdSource(path, options)
    if options.kind == "images":
        from slotssm.data.importers.layouts.image_sets import ImageSource

        return ImageSource(path, options)
    from slotssm.data.importers.layouts.folder import FolderSource

    return FolderSource(path, options)
