"""Trained checkpoints that come with the package; its README.md lists how each was made and how it scores."""

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the checkpoints."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model.safetensors"))


def checkpoint(name: str) -> Path:
    """Folder of a checkpoint, for `slotssm.load`.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in names():
        raise KeyError(f"there is no checkpoint {name!r}; there are {', '.join(names()) or 'none'}")
    return FOLDER / name
