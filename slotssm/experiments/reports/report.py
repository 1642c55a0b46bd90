"""Write the page of runs, of a reproduction or of a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slotssm import __version__
from slotssm.errors import InputError
from slotssm.experiments.reports.command import Speller
from slotssm.experiments.reports.data_sets import data_episodes, data_page
from slotssm.experiments.reports.reproductions import is_reproduction, pictures_of, reproduction_page
from slotssm.experiments.reports.runs import RunsRequest, ShownEpisodes, episodes_of, runs_page
from slotssm.files import make_folder, refuse_existing, write_text
from slotssm.report import Block, Note, Page, Section, render
from slotssm.training.run import RunDirectory

LARGEST_PAGE_BYTES = 14_000_000
"""Episodes and pictures are left out of larger pages."""


@dataclass(frozen=True)
class WrittenReport:
    """A page that was written.

    Attributes:
        path: the HTML file.
        num_bytes: its size.
        kind: `runs`, `reproduction` or `data`.
        included: what it shows, as JSON.
        notes: what was left out, and why.
    """

    path: Path
    num_bytes: int
    kind: str
    included: dict[str, Any]
    notes: list[str]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "report": str(self.path),
            "bytes": self.num_bytes,
            "kind": self.kind,
            **self.included,
            "notes": self.notes,
        }


def write_report(
    paths: Sequence[Path],
    out: Path,
    request: RunsRequest,
    spell: Speller,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    largest_bytes: int = LARGEST_PAGE_BYTES,
) -> WrittenReport:
    """Write one HTML file about runs, a reproduction or a data set.

    Args:
        paths: run directories, or one folder of a reproduction, or one episode file.
        out: file to write.
        request: what to show.
        spell: writes commands as they are typed.
        force: overwrite an existing file.
        on_progress: called with the numbers of episodes scored and in total, for each run.
        largest_bytes: episodes are left out of larger pages.

    Raises:
        InputError: a path is none of these, several are not all runs, or the request does not fit them.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`out` {out} must end in .html")
    if out.is_dir():
        raise InputError(f"`out` {out} is a folder; name an .html file in it")
    kind = kind_of(paths)
    refuse_existing(out, force)
    made = {"runs": _of_runs, "reproduction": _of_reproduction, "data": _of_data}[kind]
    page, included, notes = made(paths, request, spell, on_progress, largest_bytes)
    text = render(page)
    if len(text.encode()) > largest_bytes:
        raise InputError(f"the report of {len(paths)} paths is larger than {largest_bytes:,} bytes; name fewer")
    make_folder(out.parent)
    write_text(out, text)
    return WrittenReport(out, len(text.encode()), kind, included, notes)


def kind_of(paths: Sequence[Path]) -> str:
    """What paths are: `runs`, `reproduction` or `data`.

    Raises:
        InputError: they are something else, or not all runs.
    """
    kinds = [_kind(path) for path in paths]
    if len(set(kinds)) > 1 or (len(kinds) > 1 and kinds[0] != "runs"):
        raise InputError("a report shows any number of runs, or one reproduction, or one episode file")
    return kinds[0]


def _kind(path: Path) -> str:
    if path.is_file():
        return "data"
    if not path.exists():
        raise InputError(f"{path} does not exist; name run directories, a reproduction or an episode file")
    if (path / "run.json").exists():
        return "runs"
    if is_reproduction(path):
        return "reproduction"
    raise InputError(
        f"{path} is neither a run (it has no run.json) nor a reproduction (it has no result.json and no cells)"
    )


Content = tuple[Page, dict[str, Any], list[str]]


def _of_runs(
    paths: Sequence[Path],
    request: RunsRequest,
    spell: Speller,
    on_progress: Callable[[int, int], None],
    largest_bytes: int,
) -> Content:
    page, runs = runs_page([RunDirectory(path) for path in paths], spell)
    left = _space_left(page, largest_bytes)
    shown: list[ShownEpisodes] = []
    for place, run in enumerate(runs):
        before = sum(each.num_bytes for each in shown)
        shown.append(episodes_of(run, request, max(0, left - before) // (len(runs) - place), on_progress))
    sections = list(page.sections)
    after = next(index for index, section in enumerate(sections) if section.title == "Configuration")
    titles = ["Episodes"] if len(shown) == 1 else [each.section.title for each in shown]
    sections[after:after] = [replace(each.section, title=title) for each, title in zip(shown, titles, strict=True)]
    notes = [f"{run.name}: {text}" for run, each in zip(runs, shown, strict=True) for text in each.document["notes"]]
    return _signed(page, sections), {"runs": [each.document for each in shown]}, notes


def _of_reproduction(
    paths: Sequence[Path],
    request: RunsRequest,
    spell: Speller,
    on_progress: Callable[[int, int], None],
    largest_bytes: int,
) -> Content:
    page, document = reproduction_page(paths[0], spell)
    pictures, left_out = pictures_of(paths[0], _space_left(page, largest_bytes))
    notes = [f"{left_out} pictures are left out to keep the page below its size limit."] if left_out else []
    sections = list(page.sections)
    if pictures or notes:
        blocks: list[Block] = [*(Note(text, important=True) for text in notes), *pictures]
        after = next(index for index, section in enumerate(sections) if section.title == "Provenance")
        sections.insert(after, Section("Pictures", blocks))
    return _signed(page, sections), {"reproduction": str(paths[0]), **document}, notes


def _of_data(
    paths: Sequence[Path],
    request: RunsRequest,
    spell: Speller,
    on_progress: Callable[[int, int], None],
    largest_bytes: int,
) -> Content:
    page = data_page(paths[0], spell)
    shown = data_episodes(paths[0], request.split, request.num_episodes, _space_left(page, largest_bytes))
    return _signed(page, [shown.section, *page.sections]), shown.document, shown.document["notes"]


_MARGIN_BYTES = 20_000
"""Space for what surrounds episodes and pictures."""


def _space_left(page: Page, largest_bytes: int) -> int:
    """Bytes that episodes or pictures may take on a page."""
    return max(0, largest_bytes - len(render(page).encode()) - _MARGIN_BYTES)


def _signed(page: Page, sections: Sequence[Section]) -> Page:
    made = f"Made by slotssm {__version__}. This file is complete in itself and loads nothing from the network."
    return replace(page, sections=list(sections), made=made)
