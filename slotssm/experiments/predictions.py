"""Predictions of a trained model for a data set or a video, written to a file that scoring reads."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slotssm import __version__
from slotssm.data.episodes import NUM_MASKS, SPLITS, EpisodeFile, PredictionsWriter
from slotssm.data.importers.footage import Footage
from slotssm.data.importers.readers.framing import middle, resize_frame
from slotssm.errors import InputError
from slotssm.evaluation.evaluate import BATCH_EPISODES
from slotssm.evaluation.pictures import count_slots
from slotssm.evaluation.sources import TaskSource, as_stored, refuse_damaged
from slotssm.experiments.runs import check_fits
from slotssm.experiments.trained_model import CHUNK_FRAMES, TrainedModel
from slotssm.files import atomic, make_folder, refuse_existing
from slotssm.metrics import hard_masks
from slotssm.plotting import VideoWriter, enlarged, paint_masks
from slotssm.tasks import Outputs

WRITTEN = ("masks", "slots", "frames", "depth", "logits")
"""Outputs that are written by default, as far as the task gives them."""
SUFFIXES = (".h5", ".hdf5")
FRAMES_PER_S = 10.0
"""Frame rate of overlays of videos that do not have one: data sets, and folders of pictures."""
LARGEST_OVERLAY_PX = 1280
"""Longest side of an overlay; larger videos are reduced."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """What to write.

    Attributes:
        out: predictions file (.h5).
        overlay: video with the masks painted over it (.mp4); None for none.
        names: outputs to write; empty takes those of `WRITTEN` that the task gives.
        hard: whether to write masks as integer labels [E, T, H, W] instead of weights [E, T, K, H, W].
        contours: whether the overlay outlines the slots.
        frames_per_s: frame rate of the overlay; None takes the video's.
        force: whether to overwrite existing files.
    """

    out: Path
    overlay: Path | None = None
    names: tuple[str, ...] = ()
    hard: bool = False
    contours: bool = True
    frames_per_s: float | None = None
    force: bool = False


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        predictions: the predictions file.
        overlay: the overlay, or None.
        source: the data set or video.
        split: split of the predictions file.
        num_episodes: number of episodes.
        num_frames: number of frames that were read of each.
        outputs: shape and dtype of every dataset.
    """

    predictions: str
    overlay: str | None
    source: str
    split: str
    num_episodes: int
    num_frames: int
    outputs: Mapping[str, Mapping[str, Any]]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Part:
    """Outputs of some episodes, or of some frames of one; `frames` are their pixels if an overlay is wanted."""

    first_episode: int
    first_frame: int
    outputs: Outputs
    frames: np.ndarray | None


def predict_data(
    model: TrainedModel,
    data: Path,
    split: str,
    target: Target,
    on_progress: Progress = lambda done, total: None,
) -> Written:
    """Predict all episodes of a split, in the same batches as scoring, so that their scores are the model's exactly.

    Args:
        model: the trained model.
        data: episode file; it needs no masks.
        split: split to predict.
        target: what to write.
        on_progress: called with the numbers of episodes done and in total.

    Raises:
        InputError: the data do not fit the model, or the target cannot be written.
    """
    with EpisodeFile(data) as truth:
        names = _check(model, target, data)
        if split not in truth.splits:
            raise InputError(f"{data} has no split {split!r}; it has {', '.join(truth.splits)}")
        check_fits(model.config, model.spec, truth)
        total, source = truth.num_episodes(split), TaskSource(model.task)

        def parts() -> Iterator[_Part]:
            for first in range(0, total, BATCH_EPISODES):
                on_progress(first, total)
                last = min(first + BATCH_EPISODES, total)
                frames = truth.read(split, "frames", slice(first, last)) if target.overlay else None
                yield _Part(first, 0, source.run(truth, split, first, last, names), frames)
            on_progress(total, total)

        rate = target.frames_per_s or FRAMES_PER_S
        outputs = _write(model, data, parts(), split, total, names, target, rate)
        num_frames = truth.dataset(split, "frames").shape[1]
    overlay = str(target.overlay) if target.overlay else None
    return Written(str(target.out), overlay, str(data), split, total, num_frames, outputs)


def predict_video(
    model: TrainedModel,
    video: Path,
    split: str,
    target: Target,
    on_progress: Progress = lambda done, total: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Written:
    """Predict one video as an episode, chunk by chunk with carried state.

    Frames of another size are cropped around the middle to the model's aspect ratio and resized by area. A task that
    cannot stream, such as one that predicts the future from its context, reads the whole resized video first.

    Args:
        model: the trained model.
        video: a video file, or a folder of pictures.
        split: split of the predictions file to write to.
        target: what to write.
        on_progress: called with the numbers of frames done and, approximately, in total.
        on_note: called with a line about cropping and resizing.

    Raises:
        InputError: the video cannot be read, or the target cannot be written.
    """
    if split not in SPLITS:
        raise InputError(f"`split` {split} must be one of {', '.join(SPLITS)}")
    footage = Footage(video)
    names = _check(model, target, video)
    rows, columns = middle((footage.height, footage.width), model.size)
    if line := _fitting(footage, model.size):
        on_note(line)
    num_frames = 0

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Frames at the model's size, and if an overlay is wanted, the cropped ones."""
        nonlocal num_frames
        length = CHUNK_FRAMES if model.task.can_stream else None
        small: list[np.ndarray] = []
        large: list[np.ndarray] = []
        for pixels in footage.frames():
            cropped = pixels[rows, columns]
            small.append(resize_frame(cropped, model.size))
            if target.overlay:
                large.append(_reduced(cropped))
            num_frames += 1
            if len(small) == length:
                yield np.stack(small), np.stack(large) if target.overlay else None
                small, large = [], []
                on_progress(num_frames, max(num_frames + 1, footage.num_frames or 0))
        if small:
            yield np.stack(small), np.stack(large) if target.overlay else None
        on_progress(num_frames, num_frames)

    def parts() -> Iterator[_Part]:
        state, first = None, 0
        for small, large in chunks():
            outputs = model.outputs(small[None], state, names)
            yield _Part(0, first, outputs, None if large is None else large[None])
            state, first = outputs.state, first + len(small)

    rate = target.frames_per_s or footage.frames_per_s or FRAMES_PER_S
    written = _write(model, video, parts(), split, 1, names, target, rate)
    overlay = str(target.overlay) if target.overlay else None
    return Written(str(target.out), overlay, str(video), split, 1, num_frames, written)


def _check(model: TrainedModel, target: Target, source: Path) -> list[str]:
    """Refuse a target that cannot be written; returns the names of the outputs to write."""
    given, possible = sorted(model.task.outputs), sorted(model.task.outputs | model.task.on_request)
    rate = target.frames_per_s
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise InputError(f"`fps` {rate} must be a positive number")
    if target.out.suffix.lower() not in SUFFIXES:
        raise InputError(f"`out` {target.out} must end in .h5, since it is an HDF5 file")
    if target.overlay and target.overlay.suffix.lower() != ".mp4":
        raise InputError(f"`overlay` {target.overlay} must end in .mp4")
    if target.overlay and "masks" not in given:
        raise InputError(f"`overlay` needs masks, which this model does not give; it gives {', '.join(given)}")
    for name in target.names:
        if name not in possible:
            raise InputError(f"`outputs` {name} is not an output of this model; it gives {', '.join(possible)}")
    names = list(dict.fromkeys(target.names)) or [name for name in WRITTEN if name in given] or given
    if target.hard and "masks" not in names:
        raise InputError(f"`hard_masks` needs masks among the outputs to write, which are {', '.join(names)}")
    for path in filter(None, (target.out, target.overlay)):
        if path.resolve() == source.resolve():
            raise InputError(f"{path} is what is to be predicted; write to another file")
        refuse_existing(path, target.force)
        make_folder(path.parent)
    return names


def _fitting(footage: Footage, size: tuple[int, int]) -> str:
    """A line that says how the frames are made to fit; empty if they do."""
    rows, columns = middle((footage.height, footage.width), size)
    kept = rows.stop - rows.start, columns.stop - columns.start
    done = [f"cropped to the middle {kept[1]} x {kept[0]} px"] if kept != (footage.height, footage.width) else []
    done += [f"resized to {size[1]} x {size[0]} px"] if kept != size else []
    found = f"{footage.path} has frames of {footage.width} x {footage.height} px"
    return f"{found}, which are {' and '.join(done)}" if done else ""


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """A frame for the overlay, whose longest side is limited."""
    height, width = pixels.shape[:2]
    scale = min(1.0, LARGEST_OVERLAY_PX / max(height, width))
    return resize_frame(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))


def _write(
    model: TrainedModel,
    source: Path,
    parts: Iterator[_Part],
    split: str,
    num_episodes: int,
    names: list[str],
    target: Target,
    frames_per_s: float,
) -> dict[str, dict[str, Any]]:
    """Write the parts as they come; the files appear when all are written."""
    attrs = {"model": str(model.checkpoint), "source": str(source), "version": __version__}
    with ExitStack() as stack:
        temporary, video = stack.enter_context(atomic(target.out)), None
        if target.overlay:
            video = stack.enter_context(VideoWriter(stack.enter_context(atomic(target.overlay)), frames_per_s))
        writer = stack.enter_context(PredictionsWriter(temporary, split, num_episodes, attrs))
        for part in parts:
            refuse_damaged(part.outputs)
            arrays = {name: as_stored(name, part.outputs[name]) for name in names}
            num_masks = part.outputs["masks"].shape[2] if target.hard else 0
            if target.hard:
                arrays["masks"] = hard_masks(arrays["masks"])
            writer.write(part.first_episode, arrays, part.first_frame)
            if target.hard:
                writer.set_attribute("masks", NUM_MASKS, num_masks)
            if video is not None and part.frames is not None:
                soft, num_slots = as_stored("masks", part.outputs["masks"]), count_slots(part.outputs)
                for pixels, weights in zip(part.frames, soft, strict=True):
                    video.write(paint_masks(enlarged(pixels), weights, num_slots, target.contours))
        return writer.summary()
