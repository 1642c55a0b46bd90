"""The ffmpeg that decodes and encodes videos: that of the package imageio-ffmpeg, or one that the user names."""

import shutil

from imageio_ffmpeg import get_ffmpeg_exe

from slotssm.errors import InputError

REMEDY = "install the package imageio-ffmpeg, or name another ffmpeg in the variable IMAGEIO_FFMPEG_EXE"


class FFmpegError(InputError):
    """Videos cannot be decoded or encoded here: ffmpeg is missing, too old or incomplete. No file is to blame."""


def executable() -> str:
    """Path of the ffmpeg to run.

    Raises:
        FFmpegError: there is none, or it cannot be run.
    """
    try:
        found = str(get_ffmpeg_exe())
    except RuntimeError:
        raise FFmpegError(f"no ffmpeg was found, which decodes and encodes videos; {REMEDY}") from None
    if shutil.which(found) is None:
        raise unusable(found, "there is no such program")
    return found


def unusable(program: str, reason: str) -> FFmpegError:
    """The error that says why an ffmpeg cannot be run."""
    return FFmpegError(f"{program} cannot be run, which decodes and encodes videos: {reason}; {REMEDY}")
