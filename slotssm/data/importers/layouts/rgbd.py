"""Colour and depth of RGB-D cameras: TUM, 7-Scenes, 3DMatch, KITTI, and folders such as ScanNet's.

Sources of the layouts: TUM RGB-D benchmark (Sturm et al. 2012), "File Formats" and `associate.py`; 7-Scenes (Shotton et
al. 2013) and 3DMatch (Zeng et al. 2017), their pages; KITTI depth completion (Uhrig et al. 2017), its readme; ScanNet
(Dai et al. 2017), `SensReader`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from slotssm.data.importers.readers.layout_errors import layout_errors
from slotssm.data.importers.readers.listing import MAPS, PICTURES, entries, files_of, number_in, picture_files
from slotssm.data.importers.sources.recordings import DepthScale, Recording, RecordingSource, beside
from slotssm.data.importers.sources.source import Survey
from slotssm.data.importers.sources.splitting import assign, own_splits
from slotssm.errors import InputError

COLORS = ("rgb", "color", "colour", "image", "images", "frames")
"""Names of the folder of frames beside `depth`."""
SAME_MOMENT_S = 0.02
"""Largest distance in time of a frame and its depth map, as in `associate.py`."""
DEEPEST = 5
"""Levels of folders that are searched."""


class Layout(NamedTuple):
    """How a camera's frames and depth maps are stored.

    Attributes:
        name: for notes.
        scale: how stored depth becomes metres.
        pairs: frames with their depth maps in a folder; nothing if the folder does not have this layout.
    """

    name: str
    scale: DepthScale
    pairs: Callable[[Path], list[tuple[Path, Path | None]]]


class RgbdSource(RecordingSource):
    """One sequence, or folders of sequences of one layout."""

    def find(self) -> dict[str, list[Recording]]:
        """All folders with frames and depth maps."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder; name a sequence, or the folder of several")
        self._layout: Layout | None = None
        folders = own_splits(self.path, lambda folder: _layout_of(folder) is not None)
        found = {split: list(self._sequences(folder)) for split, folder in folders.items()}
        if self._layout is None:
            raise InputError(
                f"{self.path} holds no RGB-D sequence: neither rgb.txt and depth.txt, nor *.color.* and *.depth.png, "
                f"nor a folder depth/ beside {', '.join(COLORS[:4])}"
            )
        return assign({split: each for split, each in found.items() if each}, self.options, str(self.path))

    def depth_scale(self) -> DepthScale:
        """The scale of the layout, unless the options name one."""
        assert self._layout is not None
        own = self._layout.scale
        return own if self.options.depth_scale is None else own._replace(per_metre=self.options.depth_scale)

    def _sequences(self, folder: Path) -> Iterator[Recording]:
        for place in _below(folder, DEEPEST):
            found = _layout_of(place)
            if found is None:
                continue
            layout, pairs = found
            if self._layout is not None and self._layout.name != layout.name:
                raise InputError(
                    f"{self.path} has sequences as {self._layout.name} and as {layout.name} stores them; import them "
                    "apart"
                )
            self._layout = layout
            frames = tuple(frame for frame, _ in pairs)
            name = place.relative_to(self.path).as_posix()
            masks = Path(self.options.masks) / name if self.options.masks else place / "masks"
            maps = files_of(masks, MAPS) if masks.is_dir() else []
            aligned = beside(frames, maps, str(place), "masks") if maps else None
            yield Recording(name, frames, aligned, tuple(depth for _, depth in pairs))

    def notes(self, survey: Survey) -> list[str]:
        """Say how depth was read."""
        assert self._layout is not None
        scale = self.depth_scale()
        told = [f"{self._layout.name}: a metre is {scale.per_metre:g}, 0 is not measured"]
        without = sum(each is None for key in self.keys for each in key.recording.depth or ())
        if without:
            told.append(f"{without} frames have no depth map; theirs is 0 (not measured) everywhere")
        return [*super().notes(survey), *told]


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """A folder and those in it, except below one that is a sequence."""
    yield folder
    if levels and _layout_of(folder) is None:
        for entry in entries(folder):
            if entry.is_dir():
                yield from _below(entry, levels - 1)


def _layout_of(folder: Path) -> tuple[Layout, list[tuple[Path, Path | None]]] | None:
    for layout in LAYOUTS:
        pairs = layout.pairs(folder)
        if pairs:
            return layout, pairs
    return None


# --- TUM ---


def _timestamped(folder: Path) -> list[tuple[Path, Path | None]]:
    """Pairs of the lists `rgb.txt` and `depth.txt`; each frame has at most one depth map, the nearest pairs first."""
    lists = [folder / "rgb.txt", folder / "depth.txt"]
    if not all(each.is_file() for each in lists):
        return []
    (frame_times, frames), (depth_times, maps) = (_stamped(each) for each in lists)
    candidates = sorted(
        (abs(a - b), i, j)
        for i, a in enumerate(frame_times)
        for j, b in _near(depth_times, a)
        if abs(a - b) < SAME_MOMENT_S
    )
    partner: dict[int, int] = {}
    taken = set[int]()
    for _, i, j in candidates:
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    if not partner:
        raise InputError(f"{lists[0]} and {lists[1]} have no times within {SAME_MOMENT_S} s of each other")
    return [(frames[i], maps[j]) for i, j in sorted(partner.items())]


def _stamped(path: Path) -> tuple[list[float], list[Path]]:
    with layout_errors(str(path)):
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [(float(words[0]), path.parent / words[1]) for words in lines if words and not words[0].startswith("#")]
    for _, file in rows:
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise InputError(f"{path} names {file}, which is outside its folder; correct it")
        if not file.is_file():
            raise InputError(f"{file} is missing, which {path.name} names; download it again")
    rows.sort()
    return [time for time, _ in rows], [file for _, file in rows]


def _near(times: Sequence[float], time: float) -> Iterator[tuple[int, float]]:
    """Numbers and times of those within `SAME_MOMENT_S`; `times` is sorted."""
    for index in range(bisect_left(times, time - SAME_MOMENT_S), len(times)):
        if times[index] > time + SAME_MOMENT_S:
            return
        yield index, times[index]


# --- 7-Scenes, 3DMatch ---


def _dotted(folder: Path) -> list[tuple[Path, Path | None]]:
    """Pairs `frame-000000.color.png` and `frame-000000.depth.png` in one folder."""
    files = [each for each in entries(folder) if each.suffix.lower() in (*PICTURES, ".npy")]
    frames = [each for each in files if each.stem.endswith(".color")]
    maps = {each.name.split(".depth.")[0]: each for each in files if each.stem.endswith(".depth")}
    if not maps:
        return []
    return [(each, maps.get(each.stem.removesuffix(".color"))) for each in frames]


# --- KITTI ---


def _kitti(folder: Path) -> list[tuple[Path, Path | None]]:
    """`image_02/data` beside `proj_depth/groundtruth/image_02`; of the two colour cameras, the left one."""
    maps = folder / "proj_depth" / "groundtruth" / "image_02"
    for frames in (folder / "image_02" / "data", folder / "image_02"):
        if maps.is_dir() and frames.is_dir() and picture_files(frames):
            by_name = {each.stem: each for each in files_of(maps, MAPS)}
            return [(each, by_name.get(each.stem)) for each in picture_files(frames)]
    return []


# --- a folder of frames beside `depth` ---


def _beside_depth(folder: Path) -> list[tuple[Path, Path | None]]:
    maps = files_of(folder / "depth", MAPS) if (folder / "depth").is_dir() else []
    if not maps or maps[0].suffix.lower() != ".png":
        return []
    return _paired(folder, maps)


def _beside_metric_depth(folder: Path) -> list[tuple[Path, Path | None]]:
    maps = files_of(folder / "depth", MAPS) if (folder / "depth").is_dir() else []
    if not maps or maps[0].suffix.lower() == ".png":
        return []
    return _paired(folder, maps)


def _paired(folder: Path, maps: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """Frames and maps by name, otherwise by the last number in their names."""
    frames = next((picture_files(folder / name) for name in COLORS if (folder / name).is_dir()), [])
    by_name = {each.stem: each for each in maps}
    if any(each.stem in by_name for each in frames):
        return [(each, by_name.get(each.stem)) for each in frames]
    numbers = {number_in(each.stem): each for each in maps}
    if None in numbers or len(numbers) < len(maps) or len({number_in(each.stem) for each in frames}) < len(frames):
        return []
    return [(each, numbers.get(number_in(each.stem))) for each in frames]


LAYOUTS = (
    Layout("TUM", DepthScale(5000), _timestamped),
    Layout("7-Scenes or 3DMatch", DepthScale(1000, (65535,)), _dotted),
    Layout("KITTI", DepthScale(256), _kitti),
    Layout("a folder with depth/ in mm", DepthScale(1000, (65535,)), _beside_depth),
    Layout("a folder with depth/ in m", DepthScale(1), _beside_metric_depth),
)
