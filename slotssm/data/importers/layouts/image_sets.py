"""Sets of single images, with masks or COCO annotations: episodes of one frame."""

from collections.abc import Sequence
from pathlib import Path

from slotssm.data.importers.readers.annotations import AnnotatedPictures
from slotssm.data.importers.readers.listing import MAPS, PICTURES, entries, files_of
from slotssm.data.importers.sources.recordings import Map, Recording, RecordingSource, beside
from slotssm.data.importers.sources.splitting import UNDIVIDED, assign, own_splits
from slotssm.errors import InputError

FOLDERS = ("images", "frames", "JPEGImages")
MASKS = ("masks", "Annotations", "SegmentationObject")


class ImageSource(RecordingSource):
    """Images in a folder, or in the folders `train`, `val` and `test`."""

    def find(self) -> dict[str, list[Recording]]:
        """One recording of one picture for every image."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder; name the one that holds images")
        masks = Path(self.options.masks) if self.options.masks else None
        annotated = AnnotatedPictures(masks) if masks and masks.suffix.lower() == ".json" and masks.is_file() else None
        if masks and not annotated and not masks.is_dir():
            raise InputError(f"`masks` {masks} is not a folder or a file of annotations (.json)")
        found = {}
        for split, folder in own_splits(self.path, lambda folder: False).items():
            root = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder)
            files = _below(root, files_of(root, PICTURES))
            if not files:
                raise InputError(f"{root} holds no images ({', '.join(PICTURES)})")
            maps: Sequence[Map | None]
            if annotated:
                maps = [annotated.of_picture(file.relative_to(root).as_posix()) for file in files]
            else:
                own = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
                place = (masks if split == UNDIVIDED else masks / folder.name) if masks else own
                maps = _masks(files, root, place) if place else []
            found[split] = [
                Recording(file.relative_to(self.path).as_posix(), (file,), (maps[index],) if any(maps) else None)
                for index, file in enumerate(files)
            ]
        return assign(found, self.options, str(self.path))


def _below(root: Path, files: list[Path]) -> list[Path]:
    """Pictures in a folder; without any, those in its folders."""
    if files:
        return files
    return [file for entry in entries(root) if entry.is_dir() for file in files_of(entry, PICTURES)]


def _masks(files: list[Path], root: Path, place: Path) -> list[Path | None]:
    """The mask of every image, by name; in folders of the same names if the images are."""
    if not place.is_dir():
        raise InputError(f"{place} is not a folder; `masks` needs one of each split")
    if files[0].parent == root:
        return list(beside(files, files_of(place, MAPS), str(root), "masks"))
    found: list[Path | None] = []
    for folder in dict.fromkeys(file.parent for file in files):
        inner = place / folder.name
        own = [file for file in files if file.parent == folder]
        found += beside(own, files_of(inner, MAPS) if inner.is_dir() else [], str(folder), "masks")
    return found
