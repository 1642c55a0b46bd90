"""Memory is measured on systems without the module `resource`, too; the cost of a run is that of its whole batch."""

import itertools
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from slotssm.config import PhaseConfig
from slotssm.experiments.datasets import own_data_path, spec_of
from slotssm.experiments.measurement import cost
from slotssm.experiments.presets import preset

WITHOUT = (
    "import sys\nimport psutil, torch\nsys.modules['resource'] = None\n"
    "from types import SimpleNamespace\nfrom slotssm.experiments.measurement import efficiency as measurement\n"
    "assert measurement.resource is None\n"
    "def absent(name):\n    raise OSError(name)\n"
    "measurement._status = absent\n"
    "measurement.psutil.Process = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=77))\n"
    "print(measurement._peak_bytes())\n"
)


def test_the_peak_of_windows_is_asked_of_the_process():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "77\n"


@pytest.mark.parametrize(("name", "expected"), [("tiny-oc", 4), ("paper-oc", 1)])
def test_a_trial_batch_of_large_videos_is_small(name, expected):
    config = preset(name)
    assert cost.sample_size(config.train, spec_of(config.data)) == expected


def test_memory_does_not_depend_on_the_size_of_the_trial_batch(workplace, monkeypatch):
    config = preset("tiny-oc")
    spec, path = spec_of(config.data), own_data_path(config)
    whole = cost.cost_of_run(config, spec, path)
    monkeypatch.setattr(cost, "SAMPLE_PIXELS", 1)
    single = cost.cost_of_run(config, spec, path)
    assert cost.sample_size(config.train, spec) == 1
    assert single.memory_bytes == pytest.approx(whole.memory_bytes, rel=0.1)


def test_phases_cost_what_their_batches_cost(workplace, monkeypatch):
    """Half of the frames in half of the steps save a quarter of the time; the largest batch needs the memory."""
    config = preset("tiny-oc")
    spec, path = spec_of(config.data), own_data_path(config)
    monkeypatch.setattr(cost, "_step", lambda task, loader: (1.0, 1 << 20))
    train = config.train.replace(num_steps=10, batch_size=8, clip_len=4)
    shorter = PhaseConfig(num_steps=5, batch_size=8, clip_len=2)
    plain, phased, swapped = (
        cost.cost_of_run(config.replace(train=each), spec, path)
        for each in (
            train,
            train.replace(phases=(shorter,)),
            train.replace(phases=(shorter.replace(clip_len=4),), clip_len=2),
        )
    )
    assert phased.seconds == pytest.approx(0.75 * plain.seconds)
    assert phased.memory_bytes == plain.memory_bytes
    # here the sample has 2 frames of each video, so a frame of it takes twice as long
    assert swapped.seconds == pytest.approx(1.5 * plain.seconds)


def test_only_the_steps_that_are_left_cost_time(workplace, monkeypatch):
    config = preset("tiny-oc")
    spec, path = spec_of(config.data), own_data_path(config)
    monkeypatch.setattr(cost, "_step", lambda task, loader: (1.0, 1 << 20))
    shorter = PhaseConfig(num_steps=6, batch_size=8, clip_len=2)
    config = config.replace(train=config.train.replace(num_steps=10, batch_size=8, clip_len=4, phases=(shorter,)))
    seconds = [cost.cost_of_run(config, spec, path, first).seconds for first in (0, 2, 6, 8, 10)]
    # six steps of half the frames, then four
    assert seconds == pytest.approx([share * seconds[2] / 4 for share in (7, 6, 4, 2, 0)])


def clock(*times):
    """Stands in for the module `time` where all cores are at work."""
    return SimpleNamespace(perf_counter=iter(times).__next__, process_time=itertools.count(step=1000).__next__)


def test_time_in_which_the_process_did_not_run_costs_nothing(workplace, monkeypatch):
    config, backward = preset("tiny-oc"), torch.Tensor.backward

    def pause(loss):
        time.sleep(0.5)
        backward(loss)

    monkeypatch.setattr(torch.Tensor, "backward", pause)
    found = cost.cost_of_run(config, spec_of(config.data), own_data_path(config))
    assert 0 < found.seconds < 0.5 * config.train.num_steps * config.train.batch_size / 4


def test_compiling_in_the_first_trial_step_costs_nothing(workplace, monkeypatch):
    config = preset("tiny-oc")
    # the first step takes 30 s, the second one 4 s, after which there is no need of more
    monkeypatch.setattr(cost, "time", clock(0.0, 30.0, 30.0, 34.0))
    found = cost.cost_of_run(config, spec_of(config.data), own_data_path(config))
    train, num_frames = config.train, 4 * (config.train.clip_len or 0)
    assert found.seconds == pytest.approx(4 * train.num_steps * train.batch_size * train.clip_len / num_frames)


def test_the_fastest_of_the_repeated_trial_steps_counts(workplace, monkeypatch):
    config = preset("tiny-oc")
    ends = [0.0, *(end for took in (0.5, 0.4, 0.1, 0.3, 0.2, 0.6) for end in (took, 0.0))]
    monkeypatch.setattr(cost, "time", clock(*ends))
    found = cost.cost_of_run(config, spec_of(config.data), own_data_path(config))
    train = config.train
    assert found.seconds == pytest.approx(0.1 * train.num_steps * train.batch_size / 4)


def test_a_long_trial_step_is_taken_once(workplace, monkeypatch):
    config = preset("tiny-oc")
    taken, batch = [], cost.Loader.batch
    monkeypatch.setattr(cost.Loader, "batch", lambda self, step: taken.append(step) or batch(self, step))
    monkeypatch.setattr(cost, "LONG_STEP_S", 0.0)
    found = cost.cost_of_run(config, spec_of(config.data), own_data_path(config))
    assert taken == [0]
    assert found.seconds > 0
