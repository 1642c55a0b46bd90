"""A single video to look at, frame by frame: a video file, or a folder of pictures."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from slotssm.data.importers.readers import images
from slotssm.data.importers.readers.listing import PICTURES, picture_files
from slotssm.data.importers.readers.videos import iterate_video, video_rate
from slotssm.errors import InputError


class Footage:
    """One video, which is read anew by every call of `frames`, in constant memory.

    Args:
        path: a video file that ffmpeg reads, or a folder of pictures, in the order of the numbers in their names.

    Attributes:
        path: the file or folder.
        height: H of a frame in pixels.
        width: W of a frame in pixels.
        frames_per_s: the frame rate; None for pictures, and if the file does not say.
        num_frames: the number of frames, approximate for a video file; None if the file does not say.

    Raises:
        InputError: there is no such video, or its first frame cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise InputError(f"{path} does not exist; name a video file or a folder of pictures")
        if path.suffix.lower() in (".h5", ".hdf5"):
            raise InputError(f"{path} is not a video; give an episode file as `data`")
        self._pictures: list[Path] = []
        self.frames_per_s: float | None = None
        self.num_frames: int | None = None
        if path.is_dir():
            self._pictures = picture_files(path)
            if not self._pictures:
                raise InputError(
                    f"{path} holds no pictures ({', '.join(PICTURES)}); name a video or a folder of frames"
                )
            self.num_frames = len(self._pictures)
        else:
            self.frames_per_s, self.num_frames = video_rate(path)
        with closing(self._decoded()) as frames:
            self.height, self.width = next(frames).shape[:2]

    def frames(self) -> Generator[np.ndarray, None, None]:
        """All frames one after the other, uint8 [H, W, 3].

        Raises:
            InputError: a frame is damaged, or differs in size from the first.
        """
        with closing(self._decoded()) as frames:
            for index, pixels in enumerate(frames):
                if pixels.shape[:2] != (self.height, self.width):
                    raise InputError(
                        f"{self.path}: frame {index} has {pixels.shape[1]} x {pixels.shape[0]} px, the first "
                        f"{self.width} x {self.height} px; bring all to one size"
                    )
                yield pixels

    def _decoded(self) -> Generator[np.ndarray, None, None]:
        if not self._pictures:
            yield from iterate_video(self.path)
        for file in self._pictures:
            yield images.frame(images.read_bytes(file), str(file))
