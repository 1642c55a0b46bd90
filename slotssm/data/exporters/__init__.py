"""Export episode files to formats that other projects read: tar shards, images, arrays, Zarr.

`export` writes one of `FORMS`; docs/using-the-data.md shows what each looks like and how it is read.
"""

from slotssm.data.exporters.export import FORMS, Estimate, Exported, default_folder, estimate, export

__all__ = ["FORMS", "Estimate", "Exported", "default_folder", "estimate", "export"]
