"""A folder of videos, or of folders of frames, optionally with masks and depth maps beside them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, numeric
from slotssm.data.importers.footage import PICTURES, picture_files
from slotssm.data.importers.readers import images
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.videos import SUFFIXES, read_video
from slotssm.data.importers.source import Source, Survey, file_sizes, natural_order
from slotssm.data.importers.splitting import SPELLINGS, UNDIVIDED, assign
from slotssm.errors import InputError

MAPS = (".png", ".npy")
FRAMES = ("frames", "videos")


class Clip(NamedTuple):
    """An episode: a video or a folder of frames, and the folders of its masks and depth maps."""

    frames: Path
    masks: Path | None
    depth: Path | None


class FolderSource(Source):
    """Videos and folders of frames, in the folders `train`, `val` and `test` if these exist."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; name the one that holds videos or folders of frames")
        named: dict[str, Path] = {}
        for folder in sorted(entry for entry in path.iterdir() if _is_split(entry)):
            other = named.setdefault(SPELLINGS[folder.name], folder)
            if other != folder:
                raise InputError(f"{other} and {folder.name} are both the split {SPELLINGS[folder.name]}; keep one")
        own = {
            split: self._clips(folder, folder.name if named else "")
            for split, folder in (named or {UNDIVIDED: path}).items()
        }
        self.splits = assign(own, options, str(path))
        for kind in ("masks", "depth"):
            without = [key.frames for key in self.keys if getattr(key, kind) is None]
            if 0 < len(without) < len(self.keys):
                raise InputError(f"{without[0]} has no {kind} and other episodes have; add them, or import it apart")
        self._has_masks, self._has_depth = self.keys[0].masks is not None, self.keys[0].depth is not None
        if options.depth and not self._has_depth:
            raise InputError(f"{path} has no folder depth/ with a folder of maps for every episode")
        self.files = {}
        for key in self.keys:
            self.files |= self._files_of(key)

    def _clips(self, folder: Path, split: str) -> list[Clip]:
        roots = [folder / name for name in FRAMES if (folder / name).is_dir()]
        root = roots[0] if roots else folder
        beside = {"masks", "depth"} if not roots else set()
        masks = Path(self.options.masks) / split if self.options.masks else folder / "masks"
        if self.options.masks and not masks.is_dir():
            raise InputError(f"`masks` {masks} is not a folder")
        depth = folder / "depth" if self.options.depth else None
        clips = []
        for entry in natural_order([*root.iterdir()]):
            is_video = entry.is_file() and entry.suffix.lower() in SUFFIXES
            if is_video or (entry.is_dir() and entry.name not in beside and picture_files(entry)):
                name = entry.stem if is_video else entry.name
                clips.append(Clip(entry, _there(masks, name), _there(depth, name)))
            elif own := _own_frames(entry):
                # as an export of the form `folder` writes them
                clips.append(Clip(own, _there(entry, "masks"), _there(entry if self.options.depth else None, "depth")))
        if not clips:
            raise InputError(f"{root} holds neither videos ({', '.join(SUFFIXES)}) nor folders of pictures")
        return clips

    def _files_of(self, key: Clip) -> dict[str, int]:
        files = [key.frames] if key.frames.is_file() else picture_files(key.frames)
        found = file_sizes(files, self.path)
        for folder in (key.masks, key.depth):
            if folder is not None:
                # masks may lie elsewhere
                base = self.path if folder.is_relative_to(self.path) else folder.parent.parent
                found |= file_sizes([file for file in folder.iterdir() if file.suffix.lower() in MAPS], base)
        return found

    def survey(self) -> Survey:
        """Frames and size of the first episode; lengths of all folders of frames."""
        first = self.keys[0].frames
        whole = ImportOptions(kind="folder", stride=self.options.stride, num_frames=self.options.num_frames)
        frames = read_video(first, whole) if first.is_file() else None
        if frames is not None:
            num_frames, height, width = frames.shape[:3]
        else:
            files = picture_files(first)
            num_frames = len(self.options.kept_frames(len(files), str(first)))
            height, width = images.frame(images.read_bytes(files[0]), str(files[0])).shape[:2]
        for key in self.keys:
            if key.frames.is_dir():
                found = len(self.options.kept_frames(len(picture_files(key.frames)), str(key.frames)))
                self._check_length(key, found, num_frames)
        return {"num_frames": num_frames, "source_size": [width, height]}

    def _check_length(self, key: Clip, found: int, expected: int) -> None:
        if found != expected:
            raise InputError(
                f"{key.frames} has {found} frames and {self.keys[0].frames} has {expected}; give `num_frames` to take "
                "as many of each"
            )

    def layout(self, survey: Survey) -> Layout:
        """Frames, and masks and depth where they exist; nothing is known about the objects."""
        width, height = survey["source_size"]
        shape = (survey["num_frames"], *self.options.frame_size(height, width))
        fields = {"frames": Field((*PICTURE, "channel"), (*shape, 3), "uint8", image=True)}
        if self._has_masks:
            attrs = {"ids": "per-frame"} if self.options.per_frame_ids else {}
            fields["masks"] = Field(PICTURE, shape, "uint8", image=True, attrs=attrs)
        if self._has_depth:
            fields["depth"] = Field(PICTURE, shape, "float32", image=True, attrs=numeric("as in the source"))
        return fields

    def read(self, key: Clip, survey: Survey) -> Episode:
        """One video or folder of frames."""
        width, height = survey["source_size"]
        size = self.options.frame_size(height, width)
        if key.frames.is_file():
            frames, names = read_video(key.frames, self.options), None
            # a video does not say how many frames it has; its masks must, for the frames that are kept
            total = 1 + self.options.stride * (len(frames) - 1)
        else:
            files = picture_files(key.frames)
            kept, names, total = self._kept(files, key), [file.stem for file in files], len(files)
            frames = self._stack(kept, images.frame, lambda pixels: images.resize_frame(pixels, size), size)
        self._check_length(key, len(frames), survey["num_frames"])
        if frames.shape[1:3] != size:
            found = f"{frames.shape[2]} x {frames.shape[1]}"
            raise InputError(f"{key.frames} has frames of {found} px, the first {width} x {height}; give a `size`")
        episode: Episode = {"frames": frames}
        for field, folder, suffixes, decode in (
            ("masks", key.masks, PICTURES, images.labels),
            ("depth", key.depth, MAPS, images.depth_map),
        ):
            if folder is not None:
                maps = natural_order([file for file in folder.iterdir() if file.suffix.lower() in suffixes])
                _check_names(maps, names, total, self.options, key, field)
                kept = self._kept(maps, key)
                episode[field] = self._stack(kept, decode, lambda values: images.sample(values, size), size)
        if "masks" in episode:
            self._check_ids(episode["masks"], key)
        return episode

    def _kept(self, files: Sequence[Path], key: Clip) -> list[Path]:
        return [files[index] for index in self.options.kept_frames(len(files), str(key.frames))]

    def _stack(
        self,
        files: Sequence[Path],
        decode: Callable[[bytes, str], np.ndarray],
        resize: Callable[[np.ndarray], np.ndarray],
        size: tuple[int, int],
    ) -> np.ndarray:
        """Decode and resize files, which must have the same size unless `size` is given."""
        decoded = [decode(images.read_bytes(file), str(file)) for file in files]
        if self.options.size is None:
            for file, values in zip(files, decoded, strict=True):
                if values.shape[:2] != size:
                    raise InputError(
                        f"{file} has {values.shape[1]} x {values.shape[0]} px, the first frame "
                        f"{size[1]} x {size[0]}; give a `size`"
                    )
        return np.stack([resize(values) for values in decoded])

    def _check_ids(self, masks: np.ndarray, key: Clip) -> None:
        """Refuse masks with only 0 and 255, which are more likely to be binary masks than all `ignore`."""
        if masks.max() == images.IGNORE_ID and not ((masks > 0) & (masks < images.IGNORE_ID)).any():
            raise InputError(
                f"{key.masks} holds only 0 and 255, and 255 means ignore; write the objects as 1 to {images.MAX_ID}"
            )

    def notes(self, survey: Survey) -> list[str]:
        """Describe what was not found."""
        return [] if self._has_masks else ["no masks were found"]


def _is_split(folder: Path) -> bool:
    return folder.is_dir() and folder.name in SPELLINGS and not picture_files(folder)


def _own_frames(folder: Path) -> Path | None:
    """The frames of an episode that has a folder of its own: `frames/`, or the video `frames.mp4`."""
    pictures, video = folder / FRAMES[0], folder / f"{FRAMES[0]}.mp4"
    if pictures.is_dir() and picture_files(pictures):
        return pictures
    return video if video.is_file() else None


def _there(root: Path | None, name: str) -> Path | None:
    return root / name if root is not None and (root / name).is_dir() else None


def _check_names(
    maps: Sequence[Path], names: Sequence[str] | None, total: int, options: ImportOptions, key: Clip, field: str
) -> None:
    """Check that maps and frames match, by name, or for a video by number."""
    if names is not None and [file.stem for file in maps] != list(names):
        odd = sorted({file.stem for file in maps} ^ set(names))
        raise InputError(f"{key.frames} and its {field} differ in their names ({odd[0]}); each frame needs its own")
    if names is None and (len(maps) < total or (options.num_frames is None and len(maps) >= total + options.stride)):
        raise InputError(f"{key.frames} has {len(maps)} {field} for at least {total} frames; each frame needs its own")
