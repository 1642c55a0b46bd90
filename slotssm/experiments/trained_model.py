"""A trained model for use in other programs: from a video to named outputs in one call."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotssm.config import RunConfig
from slotssm.data.importers.readers.framing import middle, resize_frame
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.evaluation.sources import as_stored, channels_last, evaluating
from slotssm.models import ModelState
from slotssm.plugins import load_installed_plugins, load_plugin
from slotssm.tasks import Outputs, Task
from slotssm.training.checkpoint import Description, folder_of, load_task
from slotssm.training.device import resolve_device

CHUNK_FRAMES = 16
"""Frames of a stream that are processed together by default."""
ROUNDING = 1e-3
"""How far floats may lie outside [0, 1], as resizing and half precision make them; they are clipped."""
CONVERT = "convert it to uint8 (0 to 255), or to floats in [0, 1]"
EXPECTED = "a video is [T, H, W, 3], a batch [B, T, H, W, 3]"


class Prediction(Mapping[str, Any]):
    """Outputs of a task for one video or batch, by name.

    The names are those of `slotssm.tasks.OUTPUTS` that the task gives, with two differences in shape: the colours of
    `frames` and `slot_frames` are the last axis, as in the video, and there is no batch axis if the video had none.

    Args:
        state: state for continuing the stream after the last frame.
        values: arrays by name: NumPy float32 arrays if the video was one, otherwise tensors on the model's device.
    """

    def __init__(self, state: ModelState, values: Mapping[str, Any]) -> None:
        self.state, self._values = state, dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Prediction({', '.join(f'{name} {list(value.shape)}' for name, value in self._values.items())})"


class TrainedModel:
    """A trained task that is called with videos, in eval mode and without gradients.

    Videos are uint8, or floats in [0, 1], which are rounded to 8 bits as the model was trained on them; NumPy arrays or
    torch tensors [T, H, W, 3], or batches [B, T, H, W, 3]. H and W must be those of the training data; `resize` makes
    them so.

    Args:
        task: the task.
        description: its configuration and the specification of its data.
        checkpoint: folder of the weights.

    Attributes:
        task: the torch module, with `task.model`, `task.encoder` and so on.
        config: configuration of the run.
        spec: specification of the data that it was trained on.
        checkpoint: folder of the weights.
    """

    def __init__(self, task: Task, description: Description, checkpoint: Path) -> None:
        self.task, self.checkpoint = task, checkpoint
        self.config: RunConfig = description.config
        self.spec: DataSpec = description.spec

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.spec.height, self.spec.width

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.task.parameters()).device

    def __call__(self, video: Any) -> Prediction:
        """Outputs for a whole video or batch.

        A task that predicts the future uses only the context frames, as in scoring, and returns the predictions of the
        frames after them; `advance` and `stream` give its predictions of every next frame instead.

        Args:
            video: [T, H, W, 3] or [B, T, H, W, 3].

        Raises:
            InputError: wrong shape, size, type or values.
        """
        return self._predict(video, self.task.predict_episode)

    def advance(self, video: Any, state: ModelState | None = None) -> Prediction:
        """Outputs for the next part of a stream, of one or more frames; the result has the state after it.

        Args:
            video: [T, H, W, 3] or [B, T, H, W, 3].
            state: the state of the result for the previous part; None starts a stream.

        Raises:
            InputError: wrong shape, size, type or values.
        """
        return self._predict(video, lambda frames: self.task.predict(frames, state))

    def stream(self, frames: Iterable[Any], chunk_frames: int = CHUNK_FRAMES) -> Iterator[Prediction]:
        """Outputs for a video of any length, in chunks with carried state and in bounded memory.

        Args:
            frames: frames [H, W, 3] one after the other: a video, or a generator that reads a camera.
            chunk_frames: frames of each result, but for a shorter last one; 1 gives each frame its result at once.

        Raises:
            InputError: wrong shape, size, type or values.
        """
        state = None
        for chunk in _chunks(frames, chunk_frames):
            prediction = self.advance(chunk, state)
            state = prediction.state
            yield prediction

    def resize(self, video: Any) -> np.ndarray:
        """A video at the model's size: cropped around the middle to its aspect ratio, then resized by area.

        Args:
            video: uint8, or floats in [0, 1], [..., H, W, 3].

        Returns:
            uint8 [..., H, W, 3].

        Raises:
            InputError: wrong shape, type or values.
        """
        pixels = _as_bytes(_as_tensor(video)).cpu().numpy()
        if pixels.ndim < 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
            raise InputError(f"the video has shape {list(pixels.shape)}; frames are [..., H, W, 3]")
        rows, columns = middle((pixels.shape[-3], pixels.shape[-2]), self.size)
        cropped = pixels[..., rows, columns, :]
        frames = [resize_frame(each, self.size) for each in cropped.reshape(-1, *cropped.shape[-3:])]
        return np.stack(frames).reshape(*pixels.shape[:-3], *self.size, 3)

    def outputs(self, frames: np.ndarray, state: ModelState | None = None, requested: Collection[str] = ()) -> Outputs:
        """Outputs of the task as it gives them, with the colours of pictures before height and width.

        Args:
            frames: uint8 [B, T, H, W, 3].
            state: state of the stream; None takes the frames as whole episodes.
            requested: outputs that the task gives on request only.
        """
        batch = torch.from_numpy(frames).to(self.device)
        with evaluating(self.task), self.task.requesting(requested):
            return self.task.predict_episode(batch) if state is None else self.task.predict(batch, state)

    def _predict(self, video: Any, predict: Callable[[Tensor], Outputs]) -> Prediction:
        frames = _as_tensor(video)
        _check_shape(frames.shape, self.size)
        is_batch, batch = frames.ndim == 5, _as_bytes(frames).to(self.device)
        with evaluating(self.task):
            outputs = predict(batch if is_batch else batch[None])
        convert = channels_last if isinstance(video, Tensor) else as_stored
        values = {name: convert(name, value) for name, value in outputs.items()}
        return Prediction(outputs.state, values if is_batch else {name: value[0] for name, value in values.items()})

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"TrainedModel({self.config.model.kind}, {self.config.task.kind}, {width} x {height} px, {self.checkpoint})"
        )


def load(path: str | Path, device: str = "auto", plugins: Sequence[str | Path] = ()) -> TrainedModel:
    """Load a trained model; the program's random numbers are not affected.

    Args:
        path: run directory, whose last checkpoint is taken, or a checkpoint folder.
        device: `auto` (a CUDA GPU if there is one, otherwise the CPU), `cpu`, `cuda` or `mps`.
        plugins: Python files that register the model or the task, if they do not come with slotssm.

    Raises:
        InputError: there is no checkpoint, it is damaged, or it needs a plugin.
    """
    where = resolve_device(device)
    load_installed_plugins()
    for plugin in plugins:
        load_plugin(Path(plugin))
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; give a run directory or a checkpoint folder")
    checkpoint = folder_of(Path(path))
    with torch.random.fork_rng(devices=[]):
        task, description = load_task(checkpoint, where)
    return TrainedModel(task, description, checkpoint)


def _chunks(frames: Iterable[Any], chunk_frames: int) -> Iterator[Any]:
    """Stacks [T, H, W, 3] of `chunk_frames` frames, and of those that are left."""
    if chunk_frames < 1:
        raise InputError(f"`chunk_frames` is {chunk_frames}; it must be at least 1")
    chunk: list[Any] = []
    for each in frames:
        frame = each if isinstance(each, Tensor) else np.asarray(each)
        if frame.ndim != 3 or (chunk and frame.shape != chunk[0].shape):
            first = f" after frames of {list(chunk[0].shape)}" if chunk else ""
            raise InputError(f"a frame has shape {list(frame.shape)}{first}; a stream is of frames [H, W, 3]")
        chunk.append(frame)
        if len(chunk) == chunk_frames:
            yield _stacked(chunk)
            chunk = []
    if chunk:
        yield _stacked(chunk)


def _stacked(frames: list[Any]) -> Any:
    return torch.stack(frames) if isinstance(frames[0], Tensor) else np.stack(frames)


def _as_tensor(video: Any) -> Tensor:
    """The video as a tensor, not yet converted to bytes."""
    if isinstance(video, Tensor):
        return video
    try:
        array = np.asarray(video)
    except ValueError:
        raise InputError(f"the frames differ in shape; {EXPECTED}") from None
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"the video is {array.dtype}; {CONVERT}")
    # torch takes neither negative strides nor the longest floats nor foreign byte orders, and warns of read-only arrays
    dtype = array.dtype.newbyteorder("=") if array.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def _as_bytes(video: Tensor) -> Tensor:
    """The video as uint8."""
    if video.dtype == torch.uint8:
        return video
    if not video.is_floating_point():
        raise InputError(f"the video is {str(video.dtype).removeprefix('torch.')}; {CONVERT}")
    values = video.detach().float()
    if not torch.isfinite(values).all():
        raise InputError("the video holds values that are not finite numbers; replace them")
    if values.numel() and (values.min() < -ROUNDING or values.max() > 1 + ROUNDING):
        low, high = float(values.min()), float(values.max())
        remedy = "divide by 255, or convert it to uint8" if low >= 0 else "map them to [0, 1], without normalisation"
        raise InputError(f"the video holds floats from {low:.4g} to {high:.4g}, outside [0, 1]; {remedy}")
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def _check_shape(shape: Sequence[int], size: tuple[int, int]) -> None:
    """Refuse a video whose axes or size the model does not take."""
    found = f"the video has shape {list(shape)}"
    if len(shape) in (4, 5) and shape[-1] == 3:
        if 0 in shape:
            raise InputError(f"{found}, so that it is empty")
        if tuple(shape[-3:-1]) != size:
            raise InputError(
                f"the video has frames of {shape[-2]} x {shape[-3]} px, the model takes {size[1]} x {size[0]} px; "
                "bring it to this size, as the model's method resize does"
            )
        return
    if len(shape) == 3 and shape[-1] == 3:
        remedy = "for a single frame, add the axis of time: video[None]"
    elif len(shape) in (4, 5) and shape[-3] == 3:
        remedy = "move the colours to the last axis"
    elif len(shape) in (4, 5) and shape[-1] == 4:
        remedy = "blend it with a background and leave out the fourth channel"
    else:
        remedy = "repeat grey values as red, green and blue" if len(shape) == 3 or shape[-1:] == (1,) else EXPECTED
    raise InputError(f"{found}; {remedy}" + ("" if remedy == EXPECTED else f" ({EXPECTED})"))
