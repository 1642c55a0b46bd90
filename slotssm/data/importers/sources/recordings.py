"""Recordings: videos or numbered pictures with masks and depth maps beside them, whole or cut into clips."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from slotssm.data.episodes import PICTURE, Episode, Field, Layout, numeric
from slotssm.data.importers.readers import images
from slotssm.data.importers.readers.annotations import Segments
from slotssm.data.importers.readers.framing import Framing, Size, sample
from slotssm.data.importers.readers.listing import number_in
from slotssm.data.importers.readers.options import ImportOptions
from slotssm.data.importers.readers.videos import Reel, count_frames, first_frame, read_header, read_video
from slotssm.data.importers.sources.source import Source, Survey, file_sizes, most_common
from slotssm.errors import InputError

Map = Path | Segments
"""A mask or depth map: a file, or annotated regions."""
MASK_IDS = "mask_ids"
"""Field with the ids that the source's masks have, for masks whose ids were numbered anew."""
MOST_OBJECTS = images.MAX_ID
HEADER_MARGIN = 1.2
"""How much longer than a clip a video must be by its header for its frames not to be counted."""


class Recording(NamedTuple):
    """A video, or numbered pictures.

    Attributes:
        name: for messages, unique in the source.
        frames: a video file, or the pictures in order.
        masks: masks, or None; beside pictures one for each, None where there is none, and beside a video as they come.
        depth: depth maps, likewise.
    """

    name: str
    frames: Path | tuple[Path, ...]
    masks: tuple[Map | None, ...] | None = None
    depth: tuple[Map | None, ...] | None = None

    @property
    def place(self) -> str:
        """Its file, or the folder of its pictures, for messages."""
        return str(self.frames if isinstance(self.frames, Path) else self.frames[0].parent)


class Take(NamedTuple):
    """An episode: a recording, or the clip that starts at the kept frame `first`."""

    recording: Recording
    first: int | None = None


class DepthScale(NamedTuple):
    """How stored depth becomes metres.

    Attributes:
        per_metre: stored value of a metre; None leaves the values as they are.
        invalid: stored values that mean "not measured", besides 0.
    """

    per_metre: float | None = None
    invalid: tuple[float, ...] = ()


class RecordingSource(Source):
    """Recordings, of which a layout only says where they are.

    Attributes:
        opaque: refuse frames with transparent pixels; otherwise leave the transparency out.
    """

    splits: Mapping[str, Sequence[Take]]
    opaque = True
    _OPENED: ClassVar[Mapping[str, Any]] = {"_reel": None}

    def __init__(self, path: Path, options: ImportOptions) -> None:
        super().__init__(path, options)
        self._reel: Reel | None = None
        self.splits = {split: [Take(each) for each in found] for split, found in self.find().items()}
        for kind in ("masks", "depth"):
            without = [key.recording for key in self.keys if getattr(key.recording, kind) is None]
            if 0 < len(without) < len(self.keys):
                raise InputError(
                    f"{without[0].place} has no {kind} and other episodes have; add them, or import it apart"
                )
        self._has_masks, self._has_depth = (
            bool(self.keys) and getattr(self.keys[0].recording, kind) is not None for kind in ("masks", "depth")
        )
        self.files = file_sizes(dict.fromkeys(file for key in self.keys for file in _files(key.recording)), path)

    @abstractmethod
    def find(self) -> Mapping[str, Sequence[Recording]]:
        """The selected recordings by split, from names of files alone."""

    def depth_scale(self) -> DepthScale:
        """How stored depth becomes metres."""
        return DepthScale(self.options.depth_scale)

    def name(self, key: Take) -> str:
        """Name of the recording, and the frames of the clip."""
        if key.first is None or self.options.clip_len is None:
            return key.recording.name
        step = self.options.stride
        return f"{key.recording.name}, frames {key.first * step} to {(key.first + self.options.clip_len - 1) * step}"

    def close(self) -> None:
        """End the decoder."""
        if self._reel is not None:
            self._reel.close()

    def most_workers(self, survey: Survey) -> int:
        """One for every recording, since a video is decoded from its start."""
        return len(self.keys)

    # --- survey ---

    def survey(self) -> Survey:
        """Size of the first frame, numbers of frames, and ids of masks that must be numbered anew."""
        key, (height, width) = self.first(self._size)
        lengths = {key.recording.name: length for key, length in self.each(self._length)}
        if not lengths:
            raise InputError(f"{self.path}: all episodes are damaged; the first: {next(iter(self.damaged.values()))}")
        known = [length for length in lengths.values() if length is not None]
        survey: Survey = {"source_size": [width, height]}
        if self.options.clip_len:
            survey |= {"num_frames": self.options.clip_len, "lengths": lengths}
        elif self.options.num_frames:
            survey["num_frames"] = self.options.num_frames
        else:
            usual = (most_common(known) if self.options.skip_damaged else known[0]) if known else self._count(key)
            survey["num_frames"] = usual
            list(self.each(lambda key: self._check_length(key, lengths[key.recording.name], usual)))
        if self._has_masks:
            ids = {key.recording.name: found for key, found in self.each(self._ids) if found is not None}
            survey |= {"ids": ids, "num_ids": max(map(len, ids.values()), default=0)}
        return survey

    def _size(self, key: Take) -> Size:
        """Height and width of the first frame."""
        frames = key.recording.frames
        if isinstance(frames, Path):
            pixels = first_frame(frames)
        else:
            pixels = images.frame(images.read_bytes(frames[0]), str(frames[0]), self.opaque)
        return pixels.shape[0], pixels.shape[1]

    def _length(self, key: Take) -> int | None:
        """Number of kept frames; None for a video whose frames need not be counted now."""
        frames, options = key.recording.frames, self.options
        if not isinstance(frames, Path):
            return len(options.kept_frames(len(frames), key.recording.place))
        if options.clip_len is None:
            return None
        if options.clips == "first":
            header = read_header(frames)
            if (header.num_frames or 0) > HEADER_MARGIN * options.clip_len * options.stride:
                return options.clip_len
        return self._count(key)

    def _count(self, key: Take) -> int:
        frames = key.recording.frames
        total = count_frames(frames) if isinstance(frames, Path) else len(frames)
        return len(self.options.kept_frames(total, key.recording.place))

    def _check_length(self, key: Take, found: int | None, expected: int) -> None:
        if found is not None and found != expected:
            raise InputError(
                f"{key.recording.place} has {found} frames and others have {expected}; give `num_frames` to take as "
                "many of each"
            )

    def _ids(self, key: Take) -> list[int] | None:
        """Ids of a recording's masks, in order, if any is above 255; None if they are kept as they are."""
        files = [each for each in key.recording.masks or () if isinstance(each, Path)]
        if self.options.binary_masks or not files or not _may_exceed_bytes(files[0]):
            return None
        ids = set[int]()
        for file in files:
            ids |= set(np.unique(images.label_values(images.read_bytes(file), str(file))).tolist())
        if max(ids) <= images.IGNORE_ID:
            return None
        ids.discard(0)
        if len(ids) > MOST_OBJECTS or min(ids) < 0 or max(ids) >= 2**31:
            raise InputError(
                f"{key.recording.place}: its masks have {len(ids)} ids from {min(ids)} to {max(ids)}; a file holds "
                f"{MOST_OBJECTS} objects"
            )
        return sorted(ids)

    # --- episodes ---

    def episodes(self, survey: Survey) -> dict[str, list[Take]]:
        """Sound recordings, or their clips; no clip has frames of two recordings."""
        chosen, length = super().episodes(survey), self.options.clip_len
        if length is None:
            return chosen
        step = self.options.clip_stride or length
        cut: dict[str, list[Take]] = {}
        for split, keys in chosen.items():
            for key in keys:
                firsts = range(0, survey["lengths"][key.recording.name] - length + 1, step)
                cut.setdefault(split, []).extend(
                    Take(key.recording, first) for first in (firsts[:1] if self.options.clips == "first" else firsts)
                )
        return {split: clips[: self.options.limit] for split, clips in cut.items() if clips}

    def layout(self, survey: Survey) -> Layout:
        """Frames, and masks and depth where they exist; nothing is known about the objects."""
        width, height = survey["source_size"]
        shape = (survey["num_frames"], *self.options.framing((height, width), str(self.path)).size)
        fields = {"frames": Field((*PICTURE, "channel"), (*shape, 3), "uint8", image=True)}
        if self._has_masks:
            attrs = {"ids": "per-frame"} if self.options.per_frame_ids else {}
            fields["masks"] = Field(PICTURE, shape, "uint8", image=True, attrs=attrs)
            if survey["num_ids"]:
                named = numeric("id in the source's masks")
                fields[MASK_IDS] = Field(("object",), (survey["num_ids"],), "int32", attrs=named)
        if self._has_depth:
            unit = numeric("as in the source") if self.depth_scale().per_metre is None else _METRES
            fields["depth"] = Field(PICTURE, shape, "float32", image=True, attrs=unit)
        return fields

    def read(self, key: Take, survey: Survey) -> Episode:
        """One recording, or one clip."""
        recording, options = key.recording, self.options
        wanted = survey["num_frames"]
        first = (key.first or 0) * options.stride
        kept = np.arange(first, first + wanted * options.stride, options.stride)
        sizes: set[Size] = set()
        if isinstance(recording.frames, Path):
            if key.first is not None:
                self._reel = self._reel or Reel()
                frames = self._reel.read(recording.frames, key.first, wanted, options.stride, options)
            else:
                frames = read_video(recording.frames, options)
            self._check_length(key, len(frames), wanted)
            if options.crop and (recording.masks or recording.depth):
                sizes.add(self._size(key))
        else:
            self._check_length(key, min(wanted, self._count(key)), wanted)
            frames = self._pictures([recording.frames[index] for index in kept], sizes)
        size = self._target(survey)
        if frames.shape[1:3] != size:
            raise InputError(
                f"{recording.place} gives frames of {frames.shape[2]} x {frames.shape[1]} px, others "
                f"{size[1]} x {size[0]} px; give a `size`"
            )
        source = sizes.pop() if len(sizes) == 1 else None
        episode: Episode = {"frames": frames}
        if recording.masks is not None:
            episode["masks"] = self._masks(recording, kept, size, source, survey)
            if survey["num_ids"]:
                ids = survey["ids"].get(recording.name, [])
                episode[MASK_IDS] = np.pad(np.array(ids, np.int32), (0, survey["num_ids"] - len(ids)))
        if recording.depth is not None:
            episode["depth"] = self._depth(recording, kept, size, source)
        return episode

    def _target(self, survey: Survey) -> Size:
        width, height = survey["source_size"]
        return self.options.framing((height, width), str(self.path)).size

    def _pictures(self, files: Sequence[Path], sizes: set[Size]) -> np.ndarray:
        """Framed pictures, one decoded at a time."""
        frames = []
        for file in files:
            pixels = images.frame(images.read_bytes(file), str(file), self.opaque)
            sizes.add((pixels.shape[0], pixels.shape[1]))
            frames.append(self.options.framing(pixels.shape[:2], str(file)).frame(pixels))
            if frames[-1].shape != frames[0].shape:
                height, width = frames[0].shape[:2]
                raise InputError(
                    f"{file} has {pixels.shape[1]} x {pixels.shape[0]} px, the first frame {width} x {height}; give "
                    "a `size`"
                )
        return np.stack(frames)

    def _masks(
        self, recording: Recording, kept: np.ndarray, size: Size, source: Size | None, survey: Survey
    ) -> np.ndarray:
        """Masks uint8 [T, H, W]; frames without one are all `ignore`."""
        ids = survey["ids"].get(recording.name)
        masks = np.full((len(kept), *size), images.IGNORE_ID, np.uint8)
        seen = np.zeros(256, bool)
        for row, each in enumerate(self._aligned(recording, recording.masks or (), kept, "masks")):
            if each is None:
                continue
            place = str(each)
            values = (
                each.labels() if isinstance(each, Segments) else images.label_values(images.read_bytes(each), place)
            )
            if self.options.binary_masks:
                values = (values != 0).astype(np.int64)
            elif ids is not None:
                values = np.where(values == 0, 0, np.searchsorted(ids, values) + 1)
            labels = images.as_labels(values, place)
            seen[np.unique(labels)] = True
            masks[row] = self._framing_of(labels.shape, source, size, place).nearest(labels)
        if seen[images.IGNORE_ID] and not seen[1 : images.IGNORE_ID].any():
            raise InputError(
                f"{recording.place}: its masks hold only 0 and 255, and 255 means ignore; if objects are 255, give "
                f"`binary_masks`, otherwise write them as 1 to {images.MAX_ID}"
            )
        return masks

    def _depth(self, recording: Recording, kept: np.ndarray, size: Size, source: Size | None) -> np.ndarray:
        """Depth float32 [T, H, W], in metres if the scale is known; 0 where not measured."""
        scale = self.depth_scale()
        depth = np.zeros((len(kept), *size), np.float32)
        for row, each in enumerate(self._aligned(recording, recording.depth or (), kept, "depth")):
            if not isinstance(each, Path):
                continue
            values = images.depth_map(images.read_bytes(each), str(each))
            if scale.per_metre is not None:
                unknown = np.isin(values, scale.invalid) | ~np.isfinite(values) | (values < 0)
                values = np.where(unknown, 0, values / np.float32(scale.per_metre)).astype(np.float32)
            depth[row] = self._framing_of(values.shape, source, size, str(each)).nearest(values)
        return depth

    def _framing_of(self, shape: tuple[int, ...], source: Size | None, size: Size, place: str) -> "_MapFraming":
        """How a map is brought to the frames: as its frame is, after it has been brought to the frame's size."""
        own = (shape[0], shape[1])
        framing = self.options.framing(source or own, place)
        if (source is not None and own != source and self.options.size is None) or framing.size != size:
            expected = source or size
            raise InputError(
                f"{place} has {own[1]} x {own[0]} px, its frame {expected[1]} x {expected[0]} px; give a `size`"
            )
        return _MapFraming(framing, source or own)

    def _aligned(
        self, recording: Recording, maps: Sequence[Map | None], kept: np.ndarray, field: str
    ) -> list[Map | None]:
        """The map of every kept frame, or None."""
        if not isinstance(recording.frames, Path):
            return [maps[index] for index in kept]
        by_frame = numbered(maps, recording.place, field)
        missing = [int(index) for index in kept if index not in by_frame]
        if missing and (field == "depth" or len(missing) == len(kept)):
            raise InputError(
                f"{recording.place} has {len(maps)} {field} and none for frame {missing[0]}; the numbers in their "
                "names must be those of the frames"
            )
        return [by_frame.get(int(index)) for index in kept]

    def notes(self, survey: Survey) -> list[str]:
        """Describe what was not found, and what was changed."""
        notes = [] if self._has_masks else ["no masks were found"]
        pictures = [key.recording for key in self.keys if not isinstance(key.recording.frames, Path)]
        without = sum(each is None for recording in pictures for each in recording.masks or ())
        if without:
            total = sum(len(recording.frames) for recording in pictures)
            notes.append(f"{without} of {total} frames have no mask; theirs is `ignore` everywhere")
        if survey.get("num_ids"):
            notes.append(f"ids of masks above 254 were numbered from 1; {MASK_IDS} has the source's ids")
        if "lengths" in survey:
            short = [name for name, length in survey["lengths"].items() if length < survey["num_frames"]]
            if short:
                notes.append(f"{len(short)} videos are shorter than a clip and give none, such as {short[0]}")
        return notes


_METRES: Mapping[str, Any] = {**numeric("m"), "invalid": 0.0}


class _MapFraming(NamedTuple):
    """The framing of a frame, for a map that may have another size."""

    framing: Framing
    size: Size

    def nearest(self, values: np.ndarray) -> np.ndarray:
        return self.framing.nearest(sample(values, self.size))


def _may_exceed_bytes(file: Path) -> bool:
    """Whether a mask may have ids above 255: all but PNGs of at most 8 bits."""
    with file.open("rb") as stream:
        header = stream.read(25)
    return header[:4] != b"\x89PNG" or header[24:25] > b"\x08"


def _files(recording: Recording) -> Iterable[Path]:
    yield from [recording.frames] if isinstance(recording.frames, Path) else recording.frames
    for maps in (recording.masks, recording.depth):
        for each in maps or ():
            if each is not None:
                yield each.file if isinstance(each, Segments) else each


def beside(pictures: Sequence[Path], maps: Sequence[Path], place: str, field: str) -> tuple[Path | None, ...]:
    """The map of every picture, by name; None where there is none.

    Args:
        pictures: frames.
        maps: maps, each with the name of a frame and its own suffix.
        place: name for errors.
        field: `masks` or `depth`.

    Raises:
        InputError: a map has the name of no frame, or two have the same.
    """
    by_name: dict[str, Path] = {}
    for each in maps:
        if by_name.setdefault(each.stem, each) != each:
            raise InputError(f"{by_name[each.stem]} and {each.name} are for the same frame; keep one")
    odd = sorted(by_name.keys() - {each.stem for each in pictures})
    if odd:
        raise InputError(f"{place} and its {field} differ in their names ({odd[0]}); each needs that of its frame")
    return tuple(by_name.get(each.stem) for each in pictures)


def numbered(maps: Sequence[Map | None], place: str, field: str) -> dict[int, Map]:
    """Maps beside a video by the number of their frame.

    Consecutive numbers may start anywhere, since some programs count from 1; others are numbers of frames from 0 on.
    """
    files = [each for each in maps if isinstance(each, Path)]
    if len(files) < len(maps):
        return {index: each for index, each in enumerate(maps) if each is not None}
    found = [number_in(each.stem) for each in files]
    numbers = [number for number in found if number is not None]
    if numbers and len(numbers) == len(files) and len(set(numbers)) == len(files):
        if max(numbers) - min(numbers) + 1 != len(numbers):
            return dict(zip(numbers, files, strict=True))
    elif len(files) > 1:
        raise InputError(f"{place}: its {field} need the numbers of their frames in their names")
    return dict(enumerate(files))
