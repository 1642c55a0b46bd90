"""The order of cells: which of them wait for others."""

from collections.abc import Sequence

from slotssm.experiments.reproductions.cells import Cell, TrainingCell


def predecessors(cells: Sequence[Cell]) -> dict[str, str | None]:
    """For every cell the cell that must have ended before it begins; None if it need not wait.

    A cell that starts from the weights of another one waits for it. If that one is not among the cells, the first of
    those that start from it trains it, and the others wait for the first.
    """
    names = {cell.name for cell in cells}
    trained_by: dict[str, str] = {}
    found: dict[str, str | None] = {}
    for cell in cells:
        start = cell.start if isinstance(cell, TrainingCell) else None
        if start is None:
            found[cell.name] = None
        elif start.name in names:
            found[cell.name] = start.name
        else:
            found[cell.name] = trained_by.get(start.name)
            trained_by.setdefault(start.name, cell.name)
    return found
