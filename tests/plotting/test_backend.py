"""Figures need no window system, no settings of a notebook and no folder of matplotlib."""

import errno
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from slotssm.errors import InputError
from slotssm.plotting import Column, Storyboard, new_figure, save_figure, write_storyboard

DRAWS = (
    "import os, sys\nfrom pathlib import Path\nfrom slotssm.plotting import write_curves\n"
    "write_curves([{'step': 1, 'split': 'train', 'loss': 1.0}], Path(sys.argv[1]), 'title')\n"
    "assert 'matplotlib.pyplot' not in sys.modules\n"
    "import matplotlib\nprint(os.environ.get('MPLBACKEND'), matplotlib.rcParams._get('backend'))\n"
)


def draw(path, **settings):
    command = [sys.executable, "-W", "error", "-c", DRAWS, str(path)]
    unset = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    return subprocess.run(command, env=unset | settings, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "QtAgg", "TkAgg", "unheard-of", ""])
def test_figures_do_not_depend_on_the_backend_of_the_environment(tmp_path, backend):
    done = draw(tmp_path / "a.png", MPLBACKEND=backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    in_environment, in_matplotlib = done.stdout.split(" ", 1)
    # others in the process find the setting as they would without this package
    assert in_environment == backend
    if backend in ("QtAgg", "TkAgg"):  # matplotlib itself refuses a module that is not installed
        assert in_matplotlib.strip().lower() == backend.lower()


def test_folders_of_matplotlib_that_cannot_be_written_are_no_matter(tmp_path):
    done = draw(tmp_path / "a.png", MPLCONFIGDIR="/dev/null/config", HOME="/dev/null", XDG_CACHE_HOME="/dev/null/cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_suffix_decides_the_format(tmp_path, suffix, start):
    figure = new_figure(2, 1)
    figure.subplots().plot([0, 1], [1, 0])
    save_figure(figure, tmp_path / f"a.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 1


class Encoder:
    """Leaves these bytes instead of a video; None breaks its pipe."""

    def __init__(self, left, path, **options):
        self.left, self.path = left, path

    def append_data(self, frame):
        if self.left is None:
            raise OSError(errno.EPIPE, "Broken pipe")

    def close(self):
        if self.left:
            self.path.write_bytes(self.left)


def test_a_video_that_the_encoder_did_not_finish_is_refused(tmp_path, monkeypatch):
    frames = Storyboard([[Column("", np.zeros((3, 16, 16, 3), np.uint8))]], 3)
    path = tmp_path / "a.mp4"
    write_storyboard(frames, path)
    whole = path.read_bytes()
    # what a full disk leaves: the encoder's exit code is not looked at by imageio
    for name, left in {"cut": whole[:-200], "failed": None, "absent": b""}.items():
        monkeypatch.setattr("slotssm.plotting.videos.iio.get_writer", partial(Encoder, left))
        with pytest.raises(InputError, match=r"cannot write .*a\.mp4: Input/output error; choose another `out`"):
            write_storyboard(frames, path)
        assert path.read_bytes() == whole, name
    monkeypatch.setattr("slotssm.plotting.videos.FULL_BELOW_BYTES", 2**62)
    with pytest.raises(InputError, match=r"cannot write .*a\.mp4: No space left on device; free some space"):
        write_storyboard(frames, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
