"""Import public data sets as episode files (docs/importing.md).

`transfer` writes the file, `catalog` opens a source by its kind, and each kind has a module that knows its layout.
"""

from slotssm.data.importers.readers.options import KINDS, ImportOptions
from slotssm.data.importers.transfer import Imported, default_path, estimate, import_data

__all__ = ["KINDS", "ImportOptions", "Imported", "default_path", "estimate", "import_data"]
