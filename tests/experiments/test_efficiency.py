"""Time and memory over the length: growth against numpy, and what is measured or left out."""

import ctypes
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.errors import Interrupted, SlotSSMError
from slotssm.experiments.measurement import efficiency as measurement
from slotssm.experiments.reproductions.cells import ProgressCallbacks, read_record, run_cell
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.matched import SEQUENCE_MODELS, count_parameters, matched
from slotssm.experiments.reproductions.studies import efficiency
from slotssm.experiments.reproductions.studies.efficiency import QUANTITIES, Efficiency, EfficiencyCell, exponent
from slotssm.models import SlotSSMConfig, build_model

NOBODY = ProgressCallbacks()
SMALL = SlotSSMConfig(num_slots=3, slot_dim=16, num_layers=2, num_heads=2, num_encoder_layers=1)


def cell(length, model="slotssm"):
    return EfficiencyCell(model, length, matched(SMALL, model))


class Program:
    """Stands in for the program that measures; seconds and bytes are powers of the length."""

    def __init__(self, power=1.0, **done):
        self.power, self.done, self.lengths = power, done, []

    def run(self, command, **options):
        length = json.loads(command[-1])["length"]
        self.lengths.append(length)
        measured = {"values": dict.fromkeys(QUANTITIES, length**self.power / 80), "repeats": {}}
        return SimpleNamespace(**{"returncode": 0, "stdout": json.dumps(measured), "stderr": ""} | self.done)


@pytest.fixture
def measured_by(monkeypatch):
    """A function that puts a stand-in in the place of the measuring program."""

    def replace(program):
        monkeypatch.setattr(efficiency, "subprocess", program)
        return program

    return replace


# --- growth -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(1e-6, 1e9)), min_size=3, max_size=8))
def test_exponents_are_numpys_slopes_of_the_logarithms(points):
    x, y = np.log(np.array(points).T)
    if np.ptp(x) > 0.1:
        assert exponent(points) == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-6, abs=1e-6)


@given(st.floats(-3, 3), st.floats(1e-3, 1e3))
def test_the_exponent_of_a_power_is_its_exponent(power, factor):
    points = [(length, factor * length**power) for length in (320.0, 640.0, 1280.0)]
    assert exponent(points) == pytest.approx(power, abs=1e-9)


def test_two_points_have_no_exponent():
    assert exponent([]) is None
    assert exponent([(1.0, 2.0), (2.0, 4.0)]) is None


def rows_of(tmp_path, measured_by, powers, lengths=(160, 320, 640, 1280)):
    for model, power in powers.items():
        measured_by(Program(power))
        for length in lengths:
            run_cell(cell(length, model), tmp_path, "cpu", NOBODY)
    records = [read_record(cell(length, model), tmp_path) for length in lengths for model in powers]
    return Efficiency().rows(records)


def test_notes_tell_exponents_and_how_many_times_slower_slot_transformer_is(tmp_path, measured_by, monkeypatch):
    monkeypatch.setattr(efficiency, "LIMIT_S", 1e12)
    rows = rows_of(tmp_path, measured_by, {"slotssm": 1, "slot-transformer": 2})
    table = Efficiency().table(rows, Choice("cpu"))
    assert f"Exponent of L (from L = 320), {efficiency._TITLES['latency_s']}: slotssm 1.00, slot-transformer 2.00." in (
        table.notes
    )
    assert sum("320.0 at L = 320, 640.0 at L = 640, 1280.0 at L = 1280" in note for note in table.notes) == 5
    assert table.rows[0][:4] == ("160", "slotssm", f"{count_parameters(SMALL):,}", "2 s")


def test_a_note_tells_how_a_streamed_step_grows_at_the_longest_length_that_was_measured(tmp_path, measured_by):
    for length, late in ((640, 0.75), (320, 0.5)):
        values = {"latency_s": 1.0, "early_step_s": 0.25, "streamed_step_s": late}
        measured_by(Program(stdout=json.dumps({"values": values, "repeats": {}})))
        run_cell(cell(length), tmp_path, "cpu", NOBODY)
    measured_by(Program(returncode=-9))
    run_cell(cell(1280), tmp_path, "cpu", NOBODY)
    rows = Efficiency().rows([read_record(cell(length), tmp_path) for length in (640, 320, 1280)])
    notes = Efficiency().table(rows, Choice("cpu")).notes
    assert "One streamed step after L steps over one after 2, timed alternately: slotssm 3.00 at L = 640." in notes


def test_memory_that_did_not_grow_has_no_exponent_and_no_point(tmp_path, measured_by):
    flat = {"values": dict.fromkeys(QUANTITIES, 0.0), "repeats": {}}
    measured_by(Program(stdout=json.dumps(flat)))
    records = [run_cell(cell(length), tmp_path, "cpu", NOBODY) for length in (320, 640, 1280)]
    rows = Efficiency().rows(records)
    assert Efficiency().table(rows, Choice("cpu")).rows[0][-1] == "0 MiB"
    assert Efficiency().draw(rows, tmp_path) == []


# --- limits and failures ----------------------------------------------------------------------------------


def test_what_would_take_too_long_is_recorded_as_skipped(tmp_path, measured_by, monkeypatch):
    program = measured_by(Program())
    run_cell(cell(160), tmp_path, "cpu", NOBODY)
    # twice the length is expected to take four times as long: 8 s
    monkeypatch.setattr(efficiency, "LIMIT_S", 7.9)
    skipped = run_cell(cell(320), tmp_path, "cpu", NOBODY)
    assert (skipped["failed"], skipped["values"]) == ("skipped: would take more than 8 s a call", {})
    assert run_cell(cell(640), tmp_path, "cpu", NOBODY)["failed"] == skipped["failed"]
    assert program.lengths == [160]
    rows = Efficiency().rows([read_record(cell(length), tmp_path) for length in (160, 320, 640)])
    assert [line[3] for line in Efficiency().table(rows, Choice("cpu")).rows] == ["2 s", "skipped", "skipped"]


def test_what_is_expected_to_take_less_is_measured(tmp_path, measured_by, monkeypatch):
    program = measured_by(Program())
    run_cell(cell(160), tmp_path, "cpu", NOBODY)
    monkeypatch.setattr(efficiency, "LIMIT_S", 8.1)
    assert run_cell(cell(320), tmp_path, "cpu", NOBODY)["failed"] is None
    assert program.lengths == [160, 320]


def test_another_models_slowness_skips_nothing(tmp_path, measured_by, monkeypatch):
    # the name of the slow one ends with that of the fast one
    measured_by(Program(5))
    run_cell(cell(160, "slot-transformer"), tmp_path, "cpu", NOBODY)
    measured_by(Program(0))
    run_cell(cell(160, "transformer"), tmp_path, "cpu", NOBODY)
    monkeypatch.setattr(efficiency, "LIMIT_S", 100.0)
    assert run_cell(cell(320, "transformer"), tmp_path, "cpu", NOBODY)["failed"] is None
    assert "skipped" in run_cell(cell(320, "slot-transformer"), tmp_path, "cpu", NOBODY)["failed"]


@pytest.mark.parametrize("code", [-15, -2])
def test_a_measurement_that_a_signal_ended_is_not_recorded(tmp_path, measured_by, code):
    measured_by(Program(returncode=code))
    with pytest.raises(Interrupted, match="L10-slotssm was stopped by"):
        run_cell(cell(10), tmp_path, "cpu", NOBODY)
    assert read_record(cell(10), tmp_path) is None


def test_a_measurement_that_the_system_killed_ran_out_of_memory(tmp_path, measured_by):
    measured_by(Program(returncode=-9))
    assert run_cell(cell(10), tmp_path, "cpu", NOBODY)["failed"].startswith("out of memory (")


def test_a_measurement_that_could_not_allocate_is_recorded_and_another_fault_is_not(tmp_path, measured_by):
    measured_by(Program(returncode=1, stderr="RuntimeError: DefaultCPUAllocator: can't allocate memory\n"))
    assert run_cell(cell(10), tmp_path, "cpu", NOBODY)["failed"].startswith("out of memory (")
    measured_by(Program(returncode=1, stderr="ImportError: no such module\n"))
    with pytest.raises(RuntimeError, match="no such module"):
        run_cell(cell(20), tmp_path, "cpu", NOBODY)
    assert read_record(cell(20), tmp_path) is None


def test_a_measurement_that_failed_says_its_last_line(tmp_path, measured_by):
    measured_by(Program(returncode=1, stderr="Traceback (most recent call last):\n  ...\nValueError: no such thing\n"))
    with pytest.raises((SlotSSMError, RuntimeError), match=r"^L10-slotssm: ValueError: no such thing$"):
        cell(10).measure(tmp_path, "cpu", NOBODY)


# --- measuring --------------------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch):
    """Few repeats."""
    monkeypatch.setattr(measurement, "REPEATS", 3)
    monkeypatch.setattr(measurement, "STREAMED_STEPS", 2)


@pytest.mark.parametrize("model", SEQUENCE_MODELS)
def test_every_model_is_timed_as_a_whole_and_step_by_step(brief, model):
    measured = measurement.measure(matched(SMALL, model), 6, 2, 1, 100.0, "cpu")
    assert set(measured["values"]) == {*QUANTITIES, "early_step_s"}
    # the first time and three repeats
    counts = {name: len(times) for name, times in measured["repeats"].items()}
    assert counts == {"latency_s": 4, "streamed_step_s": 2, "early_step_s": 2, "training_step_s": 4}
    for name, times in measured["repeats"].items():
        assert min(times) > 0
        assert measured["values"][name] == pytest.approx(np.median(times))
    assert min(measured["values"].values()) >= 0
    json.dumps(measured, allow_nan=False)


def test_streamed_steps_are_timed_after_the_beginning_and_after_the_whole_sequence_in_turns(brief, monkeypatch):
    # of a model whose state grows: every timed step must see one of the same two states
    seen = []
    kind = type(build_model(matched(SMALL, "slot-transformer")))
    step = kind.step

    def watch(self, tokens, state=None):
        seen.append((tuple(tokens.shape), state.num_steps))
        return step(self, tokens, state)

    monkeypatch.setattr(kind, "step", watch)
    measurement.measure(matched(SMALL, "slot-transformer"), 6, 2, 1, 100.0, "cpu")
    assert seen == [((2, 1, 16), 2), ((2, 1, 16), 6)] * 2


def test_training_is_left_out_where_it_would_take_too_long(brief):
    values = measurement.measure(SMALL, 6, 2, 1, 0.0, "cpu")["values"]
    assert set(values) == {"latency_s", "streamed_step_s", "early_step_s", "inference_bytes"}


PEAKS = """
import numpy as np
from slotssm.experiments.measurement import efficiency

def take(megabytes):
    assert np.ones((megabytes, 1 << 20), np.uint8).sum() == megabytes << 20
    return 0.0

for size in (160, 64):
    print(efficiency._peak_growth(lambda: take(size), "cpu")[0] / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the peak cannot be set back")
@pytest.mark.slow
def test_the_peak_is_that_of_the_work_alone():
    # in a process of its own, as cells are measured: one that has trained keeps the memory that it freed
    done = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True)
    assert [float(line) for line in done.stdout.split()] == pytest.approx([160, 64], abs=8)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_libraries_that_a_long_sequence_loads_are_no_memory_of_the_model(tmp_path):
    # numba, which compiles the kernels, is over a hundred megabytes
    (found,) = Efficiency().cells(Choice("paper", ("rim",), lengths=(80,)))
    assert found.measure(tmp_path, "cpu", NOBODY)["values"]["inference_bytes"] < 50 * 2**20
