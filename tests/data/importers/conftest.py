"""Import into a temporary file, and refusals that leave nothing."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from slotssm.data.importers import ImportOptions, import_data
from slotssm.errors import InputError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where imports go: a folder that holds nothing else."""
    return tmp_path / "imported" / "out.h5"


@pytest.fixture
def imported(out):
    """Import and read all datasets with plain h5py: `imported("movi", src, size=(16, 16))`."""

    def run(kind: str, src: Path, **options) -> tuple[dict[str, np.ndarray], dict]:
        import_data(src, out, ImportOptions(kind=kind, **options))
        found: dict[str, np.ndarray] = {}
        with h5py.File(out) as file:
            attrs = dict(file.attrs)

            def take(name, node):
                if isinstance(node, h5py.Dataset):
                    found[name] = node[...]
                    attrs[name] = dict(node.attrs)

            file.visititems(take)
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        out.unlink()
        return found, attrs

    return run


@pytest.fixture
def refused(out):
    """An import must be refused with one line that holds all of the words, and leave nothing."""

    def run(kind: str, src: Path, *words: str, **options) -> str:
        with pytest.raises(InputError) as caught:
            import_data(src, out, ImportOptions(kind=kind, **options))
        line = str(caught.value)
        assert "\n" not in line
        for word in words:
            assert word in line, line
        assert not out.parent.exists() or not list(out.parent.iterdir()), line
        return line

    return run
