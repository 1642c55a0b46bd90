"""A folder of videos, or of folders of frames, optionally with masks and depth maps beside them.

Also the folders of DAVIS (Perazzi et al. 2016, `JPEGImages/480p`, `Annotations/480p`) and YouTube-VOS (Xu et al. 2018),
and annotations of YouTube-VIS (Yang et al. 2019) as JSON.
"""

from collections.abc import Sequence
from pathlib import Path

from slotssm.data.importers.readers.annotations import AnnotatedVideos
from slotssm.data.importers.readers.listing import MAPS, VIDEOS, entries, files_of, picture_files
from slotssm.data.importers.sources.recordings import Recording, RecordingSource, beside
from slotssm.data.importers.sources.splitting import UNDIVIDED, assign, own_splits
from slotssm.errors import InputError

FRAMES = ("frames", "videos", "JPEGImages")
MASKS = ("masks", "Annotations")


class FolderSource(RecordingSource):
    """Videos and folders of frames, in the folders `train`, `val` and `test` if these exist."""

    def find(self) -> dict[str, list[Recording]]:
        """Videos and folders of frames."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder; name the one that holds videos or folders of frames")
        annotated = masks = None
        if self.options.masks:
            masks = Path(self.options.masks)
            if masks.suffix.lower() == ".json" and masks.is_file():
                annotated = AnnotatedVideos(masks)
            elif not masks.is_dir():
                raise InputError(f"`masks` {masks} is not a folder or a file of annotations (.json)")
        folders = own_splits(self.path, lambda folder: bool(picture_files(folder)))
        found = {
            split: self._recordings(folder, annotated, masks / folder.name if masks and split != UNDIVIDED else masks)
            for split, folder in folders.items()
        }
        chosen = assign(found, self.options, str(self.path))
        if self.options.depth and any(each.depth is None for each in chosen[next(iter(chosen))]):
            raise InputError(f"{self.path} has no folder depth/ with a folder of maps for every episode")
        return chosen

    def _recordings(self, folder: Path, annotated: AnnotatedVideos | None, masks: Path | None) -> list[Recording]:
        root = next((folder / name for name in FRAMES if (folder / name).is_dir()), folder)
        own = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
        skipped = {*MASKS, "depth"} if root == folder else set()
        if root.name == "JPEGImages":
            # DAVIS has a folder for every resolution
            root, own = _resolution(root), own and _resolution(own)
        masks = masks or own
        depth = folder / "depth" if self.options.depth else None
        found = []
        for entry in entries(root):
            if entry.is_file() and entry.suffix.lower() in VIDEOS:
                found.append(self._recording(entry, entry.stem, masks, depth, annotated))
            elif entry.is_dir() and entry.name not in skipped:
                if picture_files(entry):
                    found.append(self._recording(entry, entry.name, masks, depth, annotated))
                elif frames := _own_frames(entry):
                    # as an export of the form `folder` writes them
                    maps = {name: entry / name for name in ("masks", "depth") if (entry / name).is_dir()}
                    depth_maps = maps.get("depth") if self.options.depth else None
                    found.append(self._beside(frames, maps.get("masks"), depth_maps))
        if not found:
            raise InputError(f"{root} holds neither videos ({', '.join(VIDEOS)}) nor folders of pictures")
        _refuse_twins(found)
        return found

    def _recording(
        self, entry: Path, name: str, masks: Path | None, depth: Path | None, annotated: AnnotatedVideos | None
    ) -> Recording:
        if annotated is None:
            return self._beside(entry, _there(masks, name), _there(depth, name))
        plain = self._beside(entry, None, _there(depth, name))
        if isinstance(plain.frames, Path):
            return plain._replace(masks=annotated.of_video(name))
        return plain._replace(masks=annotated.of_pictures(name, [each.name for each in plain.frames]))

    def _beside(self, frames: Path, masks: Path | None, depth: Path | None) -> Recording:
        """A video or folder of frames, with the maps in folders of its own."""
        name = frames.relative_to(self.path).as_posix()
        maps = [(files_of(folder, MAPS) if folder else None) for folder in (masks, depth)]
        if frames.is_file():
            return Recording(name, frames, *(tuple(found) if found else None for found in maps))
        pictures = picture_files(frames)
        aligned = []
        for field, folder, found in zip(("masks", "depth"), (masks, depth), maps, strict=True):
            if folder is not None and not found and (others := picture_files(folder)):
                raise InputError(f"{others[0]} is not a PNG, TIFF or .npy file; lossy formats change {field}")
            pairs = beside(pictures, found, str(frames), field) if found else None
            if field == "depth" and pairs is not None and None in pairs:
                missing = pictures[pairs.index(None)]
                raise InputError(f"{missing} has no depth map; each frame needs its own")
            aligned.append(pairs)
        return Recording(name, tuple(pictures), *aligned)


def _resolution(folder: Path) -> Path:
    inner = entries(folder)
    is_one = len(inner) == 1 and inner[0].is_dir() and not picture_files(inner[0])
    return inner[0] if is_one else folder


def _own_frames(folder: Path) -> Path | None:
    """The frames of an episode that has a folder of its own: `frames/`, or the video `frames.mp4`."""
    pictures, video = folder / FRAMES[0], folder / f"{FRAMES[0]}.mp4"
    if pictures.is_dir() and picture_files(pictures):
        return pictures
    return video if video.is_file() else None


def _there(root: Path | None, name: str) -> Path | None:
    return root / name if root is not None and (root / name).is_dir() else None


def _refuse_twins(found: Sequence[Recording]) -> None:
    """Refuse names that two recordings share, which only differ in their suffix, since their masks would be mixed."""
    seen: dict[str, Recording] = {}
    for each in found:
        if each.masks is not None and isinstance(each.frames, Path):
            other = seen.setdefault(each.frames.stem, each)
            if other is not each:
                raise InputError(f"{other.place} and {each.frames.name} have the same masks; rename one")
