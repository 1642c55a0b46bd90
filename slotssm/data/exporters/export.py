"""Write an export, completely or not at all, and estimate its cost."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slotssm.data.episodes import EpisodeFile
from slotssm.data.exporters.arrays import Arrays
from slotssm.data.exporters.folders import Folders
from slotssm.data.exporters.form import Form, FormOptions
from slotssm.data.exporters.selection import Selection, is_export, select
from slotssm.data.exporters.shards import Shards
from slotssm.data.exporters.zarr_store import ZarrStore
from slotssm.errors import InputError, Interrupted
from slotssm.files import atomic_folder, make_folder, refuse_existing, restore_moved_aside
from slotssm.interrupts import stop_requests

FORMS: dict[str, type[Form]] = {"webdataset": Shards, "folder": Folders, "numpy": Arrays, "zarr": ZarrStore}
SAMPLED_EPISODES = 4
"""Number of episodes of each split that an estimate exports."""

ProgressCallback = Callable[[int, int], None]
"""Called with the numbers of finished episodes and of all episodes."""


@dataclass(frozen=True)
class Estimate:
    """Estimated size and time of an export, measured on a few of its episodes."""

    num_episodes: dict[str, int]
    stored_bytes: int
    seconds: float


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    path: Path
    num_episodes: dict[str, int]
    num_files: int
    stored_bytes: int
    seconds: float


def export(
    data: Path,
    form: str,
    out: Path,
    splits: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    frames_as: str | None = None,
    shard_bytes: int | None = None,
    force: bool = False,
    on_progress: ProgressCallback = lambda done, total: None,
) -> Exported:
    """Export an episode file to a folder, which appears under its name once it is complete.

    Args:
        data: episode file.
        form: one of `FORMS`.
        out: folder to create.
        splits: splits to export; None exports all.
        numbers: episodes of each of these splits; None exports all.
        limit: largest number of episodes of each split.
        fields: paths of datasets, or groups such as `objects`; None exports all.
        frames_as: `npy` or `png` (webdataset), `png` or `mp4` (folder; MP4 is lossy); None takes the first of these.
        shard_bytes: size of a tar shard above which the next one begins (webdataset); None is 256 MiB.
        force: replace an existing export at `out`.
        on_progress: called after every episode.

    Raises:
        InputError: the file, an option or the output is invalid.
        Interrupted: SIGINT or SIGTERM arrived; nothing is left behind.
    """
    started = time.perf_counter()
    chosen, options = _form(form), FormOptions(frames_as, shard_bytes)
    with EpisodeFile(Path(data), needs_frames=False) as episodes:
        selection = select(episodes, splits, numbers, limit, fields)
        restore_moved_aside(Path(out))
        _check_target(Path(out), Path(data), force)
        make_folder(Path(out).parent)
        with stop_requests() as stop:
            try:
                with atomic_folder(Path(out)) as folder:
                    for done, _ in enumerate(_write(chosen(selection, folder, options), selection), 1):
                        on_progress(done, selection.num_episodes)
                        if stop:
                            break
                    if stop:
                        raise Interrupted("")
                    # again: another process may just have finished it
                    refuse_existing(Path(out), force)
            except (InputError, OSError, Interrupted):
                # Ctrl-C reaches the video encoder too, which then fails
                if not stop:
                    raise
                raise Interrupted(f"{stop.signal_name}: the export is unfinished and nothing is kept") from None
    num_files, stored_bytes = _measure(Path(out))
    counts = {split: len(numbers) for split, numbers in selection.numbers.items()}
    return Exported(Path(out), counts, num_files, stored_bytes, time.perf_counter() - started)


def estimate(
    data: Path,
    form: str,
    splits: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    frames_as: str | None = None,
    shard_bytes: int | None = None,
) -> Estimate:
    """Export a few episodes to a temporary folder and extrapolate size and time; arguments as in `export`."""
    chosen, options = _form(form), FormOptions(frames_as, shard_bytes)
    with EpisodeFile(Path(data), needs_frames=False) as episodes, tempfile.TemporaryDirectory() as place:
        selection = select(episodes, splits, numbers, limit, fields)
        sample = selection.first(SAMPLED_EPISODES)
        started = time.perf_counter()
        for _ in _write(chosen(sample, Path(place), options), sample):
            pass
        share = selection.num_bytes / max(1, sample.num_bytes)
        seconds = (time.perf_counter() - started) * share
        counts = {split: len(numbers) for split, numbers in selection.numbers.items()}
        return Estimate(counts, int(_measure(Path(place))[1] * share), seconds)


def default_folder(data: Path, form: str) -> Path:
    """Default folder of an export: `bcb.h5` → `bcb-webdataset`, `bcb.zarr`."""
    _form(form)
    return data.with_suffix(".zarr") if form == "zarr" else data.with_name(f"{data.stem}-{form}")


def _form(name: str) -> type[Form]:
    if name not in FORMS:
        raise InputError(f"`form` {name}: there is no such form; choose {', '.join(FORMS)}")
    return FORMS[name]


def _write(form: Form, selection: Selection) -> Iterator[None]:
    """Write everything, one episode per step."""
    for split in selection.numbers:
        yield from form.write(split)
    form.finish()


def _check_target(out: Path, data: Path, force: bool) -> None:
    """Refuse an existing target; with `force`, only one that is not an export, since it would be deleted as a whole."""
    refuse_existing(out, force)
    if not out.exists():
        return
    if not is_export(out):
        raise InputError(f"{out} is not an export, and `force` replaces nothing else; choose another `out`")
    if data.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} contains {data}, which would be deleted; choose another `out`")


def _measure(folder: Path) -> tuple[int, int]:
    """Number of files in a folder, at any depth, and their total size in bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)
