"""A preset's own data: made once, found again, also by several runs that start together."""

import subprocess
import sys

import pytest

from slotssm.config import FileData
from slotssm.data.contents import content_hash
from slotssm.data.episodes import EpisodeWriter, standard_layout
from slotssm.documents import override
from slotssm.errors import BusyError, InputError
from slotssm.experiments.datasets import ensure_own_data, file_data, own_data_path, spec_of, spec_of_file
from slotssm.experiments.presets import preset
from slotssm.files import exclusive


def test_own_data_is_made_once(tmp_path):
    config = preset("tiny-oc")
    path = ensure_own_data(config, tmp_path)
    written = path.stat().st_mtime_ns
    assert ensure_own_data(config, tmp_path).stat().st_mtime_ns == written
    assert spec_of_file(path) == spec_of(config.data)


def test_the_name_follows_everything_that_decides_the_content(tmp_path):
    config = preset("tiny-oc")
    others = [{"seed": 1}, {"num_train": 65}, {"recipe": {"size_px": 32}}]
    paths = {own_data_path(override(config, {"data": change}, "test")) for change in others}
    assert len(paths | {own_data_path(config)}) == 4
    # what does not concern the data does not move it
    assert own_data_path(override(config, {"train": {"num_steps": 7}}, "test")) == own_data_path(config)


@pytest.mark.slow
def test_runs_that_start_together_share_one_generation(tmp_path, environment):
    code = (
        "import sys; from pathlib import Path\n"
        "from slotssm.experiments.datasets import ensure_own_data\n"
        "from slotssm.experiments.presets import preset\n"
        "if __name__ == '__main__': ensure_own_data(preset('cpu-oc'), Path(sys.argv[1]))\n"
    )
    script = tmp_path / "make.py"
    script.write_text(code)
    folder = tmp_path / "data"
    both = [subprocess.Popen([sys.executable, str(script), str(folder)], env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    alone = ensure_own_data(preset("cpu-oc"), tmp_path / "alone")
    assert content_hash(own_data_path(preset("cpu-oc"), folder)) == content_hash(alone)
    assert [path.name for path in folder.iterdir()] == [alone.name]


def test_a_lock_is_exclusive_and_ends(tmp_path):
    refusal = pytest.raises(BusyError, match="in use by another process")
    with exclusive(tmp_path / "lock"), refusal, exclusive(tmp_path / "lock"):
        pass
    with exclusive(tmp_path / "lock"):
        pass


def from_elsewhere(path, height, width):
    with EpisodeWriter(path, {"generator": "movi"}, standard_layout(2, height, width, 1), {"train": 3, "test": 1}):
        return path


def test_files_from_elsewhere_are_named_with_their_content(tmp_path):
    path = from_elsewhere(tmp_path / "a.h5", 8, 16)
    data = file_data(path, num_train=2)
    assert data == FileData(path=str(path), sha256=content_hash(path), num_train=2)
    spec = spec_of(data)
    assert (spec.num_frames, spec.height, spec.width) == (2, 8, 16)
    config = preset("tiny-oc").replace(data=data)
    assert own_data_path(config) == ensure_own_data(config, tmp_path / "elsewhere") == path
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_with_another_content_is_refused(tmp_path):
    data = file_data(from_elsewhere(tmp_path / "a.h5", 8, 8))
    config = preset("tiny-oc").replace(data=data)
    from_elsewhere(tmp_path / "a.h5", 8, 16)
    with pytest.raises(InputError, match=r"a\.h5 is not the data set that data\.sha256 names"):
        ensure_own_data(config, tmp_path)


def test_a_file_that_is_missing_is_named(tmp_path):
    config = preset("tiny-oc").replace(data=FileData(path=str(tmp_path / "none.h5"), sha256="0"))
    with pytest.raises(InputError, match=r"none\.h5 does not exist"):
        ensure_own_data(config, tmp_path)
