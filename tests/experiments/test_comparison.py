"""Means, deviations and intervals against numpy; tables as Markdown and CSV readers see them."""

import csv
import io
import json
import re
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.experiments.reproductions.comparison import Summary, Table, compare, numbers_csv, rows_csv, summarize
from slotssm.metrics.scores import bootstrap_interval

SETTING = {"length": 20, "balls": 2}


def record(seed=0, model="slotssm", setting=SETTING, failed=None, parameters=7, intervals=None, **values):
    """A cell as it is recorded; a failed one has neither values nor parameters."""
    head = {"cell": f"{model}-s{seed}", "model": model, "setting": setting, "seed": seed, "failed": failed}
    if failed:
        return {**head, "values": {}}
    results = [
        {"metric": name, "value": value, "interval": (intervals or {}).get(name)} for name, value in values.items()
    ]
    known = {name: value for name, value in values.items() if value is not None}
    return {**head, "values": known, "results": results, "parameters": parameters}


def only(records, metric="mse"):
    """The summary of the one row that the records make."""
    (row,) = compare(records, [metric])
    return row.metrics[metric]


# --- over seeds -------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_mean_and_deviation_over_seeds_are_numpys(values):
    found = only([record(seed, mse=value) for seed, value in enumerate(values)])
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)
    assert found.values == dict(enumerate(values))
    assert found.interval is None
    assert found.error == (found.std, found.std)


def test_one_seed_has_the_interval_that_was_recorded_and_no_deviation():
    found = only([record(3, mse=0.25, intervals={"mse": [0.125, 0.5]})])
    assert (found.mean, found.std, found.interval, found.values) == (0.25, None, (0.125, 0.5), {3: 0.25})
    assert found.error == (0.125, 0.25)
    assert str(found) == "0.2500 [0.1250, 0.5000]"


def test_several_seeds_have_a_deviation_and_no_interval():
    found = only([record(seed, mse=seed, intervals={"mse": [0.0, 9.0]}) for seed in (1, 2, 3)])
    assert (found.mean, found.std, found.interval) == (2.0, 1.0, None)
    assert str(found) == "2.0000 ± 1.0000"


def test_failed_seeds_are_counted_and_left_out_of_the_mean():
    failed = record(1, failed="not converged: nan")
    (row,) = compare([record(0, mse=0.25), failed, record(2, mse=0.75)], ["mse"])
    assert (row.metrics["mse"].mean, row.metrics["mse"].values) == (0.5, {0: 0.25, 2: 0.75})
    assert row.failed == {1: "not converged: nan"}
    assert row.parameters == 7


def test_one_seed_that_is_left_has_its_own_interval():
    found = only([record(0, failed="out of memory"), record(1, mse=0.5, intervals={"mse": [0.25, 1.0]})])
    assert (found.mean, found.std, found.interval) == (0.5, None, (0.25, 1.0))
    # a seed whose metric could not be scored is no seed of it either
    found = only([record(0, mse=None), record(1, mse=0.5, intervals={"mse": [0.25, 1.0]})])
    assert (found.values, found.interval) == ({1: 0.5}, (0.25, 1.0))


def test_where_every_seed_failed_there_is_no_number():
    (row,) = compare([record(seed, failed="out of memory") for seed in (0, 1)], ["mse"])
    found = row.metrics["mse"]
    assert (found.mean, found.std, found.values, found.interval, found.error) == (None, None, {}, None, (0.0, 0.0))
    assert str(found) == "–"
    assert row.parameters is None
    assert len(row.failed) == 2


@given(st.floats(0, 1), st.integers(2, 40))
def test_whiskers_are_never_negative(value, num_episodes):
    # episodes that all score the same: the interval's ends differ from the mean by rounding alone
    values = np.full(num_episodes, value)
    low, high = bootstrap_interval(values, np.arange(num_episodes), seed=0)
    assert min(Summary(float(values.mean()), None, {}, (low, high)).error) >= 0


# --- rows -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 3)), unique=True))
def test_rows_keep_the_order_in_which_they_first_occur(cells):
    records = [record(seed, model, {"length": length}, mse=1.0) for model, length, seed in cells]
    rows = compare(records, ["mse"])
    assert [(row.model, row.setting["length"]) for row in rows] == list(dict.fromkeys((m, n) for m, n, _ in cells))
    assert sum(len(row.metrics["mse"].values) for row in rows) == len(cells)


def test_settings_are_the_same_in_any_order_of_their_names():
    other = dict(reversed(SETTING.items()))
    assert len(compare([record(0, mse=1.0), record(1, setting=other, mse=2.0)], ["mse"])) == 1
    assert len(compare([record(0, mse=1.0), record(0, setting=SETTING | {"balls": 3}, mse=2.0)], ["mse"])) == 2


def test_the_papers_figure_is_that_of_setting_and_model():
    asked = []
    rows = compare([record(0, "rim", mse=1.0)], ["mse"], lambda *what: asked.append(what) or "NC")
    assert (rows[0].paper, asked) == ("NC", [(SETTING, "rim")])


def test_rows_survive_json():
    records = [
        record(0, mse=0.1, psnr=20.0, intervals={"mse": [0.0, 0.3]}),
        record(0, "rim", failed="out of memory"),
        record(5, "split-ssm", mse=0.1),
        record(6, "split-ssm", mse=1 / 3),
    ]
    documents = [row.document() for row in compare(records, ["mse", "psnr"], lambda setting, model: "OOM")]
    again = json.loads(json.dumps(documents, allow_nan=False))
    assert again == documents
    assert again[0]["metrics"]["mse"] == {"mean": 0.1, "std": None, "values": {"0": 0.1}, "interval": [0.0, 0.3]}
    assert again[1]["failed"] == {"0": "out of memory"}
    assert again[2]["metrics"]["mse"]["values"] == {"5": 0.1, "6": 1 / 3}
    assert again[2]["cells"] == ["split-ssm-s5", "split-ssm-s6"]


# --- tables -----------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_characters="|", exclude_categories=["C", "Z"]), max_size=9)


@st.composite
def tables(draw, texts=TEXTS):
    width = draw(st.integers(1, 4))
    row = st.tuples(*[texts] * width)
    return Table("a title", draw(row), draw(st.lists(row, max_size=4)), ("one note", "another"))


def markdown_cells(line):
    assert line.startswith("|")
    assert line.endswith("|")
    return tuple(cell.strip() for cell in line[1:-1].split("|"))


@given(tables())
def test_text_is_an_aligned_table_that_markdown_reads(table):
    title, empty, head, ruler, *rest = table.text().splitlines()
    body, notes = rest[: len(table.rows)], rest[len(table.rows) :]
    assert (title, empty, notes) == ("a title", "", ["", "one note", "another"])
    assert len({len(line) for line in (head, ruler, *body)}) == 1
    assert re.fullmatch(r"\|(-{2,}\|)+", ruler)
    # bars stand below each other
    assert len({tuple(i for i, sign in enumerate(line) if sign == "|") for line in (head, ruler, *body)}) == 1
    assert [markdown_cells(line) for line in (head, *body)] == [table.columns, *table.rows]


def test_a_table_without_notes_ends_with_its_last_row():
    assert Table("t", ("a", "b"), [("1", "22")]).text() == "t\n\n| a | b  |\n|---|----|\n| 1 | 22 |\n"


def test_csv_has_a_number_in_every_column_of_numbers():
    names = ("alone", "several", "none")
    records = [
        {"model": model, "setting": {"length": 20}, "seed": seed, "failed": None, "parameters": 7, "values": values}
        for model, seed, values in (
            ("a", 0, {"alone": 0.1, "several": 1 / 3}),
            ("a", 1, {"several": 0.5}),
            ("b", 0, {"several": 2.0}),
        )
    ]
    records[0]["results"] = [{"metric": "alone", "interval": [0.05, 0.2]}]
    lines = list(csv.DictReader(io.StringIO(rows_csv(compare(records, names)))))
    assert [(line["model"], line["metric"]) for line in lines] == [(m, name) for m in "ab" for name in names]
    assert all((line["length"], line["parameters"], line["failed"]) == ("20", "7", "0") for line in lines)
    alone, several, none = lines[:3]
    assert [float(alone[name]) for name in ("mean", "interval_low", "interval_high")] == [0.1, 0.05, 0.2]
    # nothing is rounded
    assert float(several["mean"]) == statistics.fmean([1 / 3, 0.5])
    assert float(several["std"]) == statistics.stdev([1 / 3, 0.5])
    assert [several[name] for name in ("n", "interval_low")] == ["2", ""]
    assert [none[name] for name in ("mean", "std", "n")] == ["", "", "0"]


def test_csv_quotes_names_that_need_it():
    text = numbers_csv([({"name": 'a,"b"\nc'}, "mse", summarize({0: 1.0}))])
    assert next(csv.DictReader(io.StringIO(text, newline="")))["name"] == 'a,"b"\nc'
