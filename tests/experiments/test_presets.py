"""Presets printed as TOML: described, complete, and read back as they were."""

import itertools
import tomllib

import pytest

from slotssm.config import InitialConfig, RunConfig
from slotssm.documents import Config, as_described_toml, as_toml, load
from slotssm.experiments.presets import PRESETS, preset
from slotssm.experiments.resolve import Request, resolve


def leaves(config: Config, prefix: str = "") -> dict[str, object]:
    """All values of a configuration by their dotted key."""
    found = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, Config) else {f"{prefix}{name}": value}
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_preset_is_read_as_the_same_run(name, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(as_described_toml(preset(name)), encoding="utf-8")
    assert resolve(Request(file=path))[0] == preset(name)


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_preset_has_every_key_and_says_what_it_is(name):
    lines = as_described_toml(preset(name)).splitlines()
    keys = [line.removeprefix("#").partition(" =")[0] for line in lines if line and not line.startswith("# ")]
    expected = [key for key in leaves(preset(name)) if key != "train.initial"]
    assert set(keys) == {*expected, "train.initial.run", "train.initial.parts"}
    assert len(keys) == len(set(keys))
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("# "):
            assert before.startswith("# "), f"{line} is not described"
    assert all(len(line) <= 80 for line in lines if line.startswith("#"))


def test_what_is_off_is_commented_out_and_can_be_switched_on():
    run = preset("tiny-oc")
    text = as_described_toml(run)
    off = [key for key, value in leaves(run).items() if value is None]
    assert {"train.initial", "model.layer_mlp_ratio"} <= set(off)
    on = text.replace("#model.layer_mlp_ratio =", "model.layer_mlp_ratio = 2.5")
    on = on.replace("#train.initial.run =", 'train.initial.run = "runs/a"').replace(
        "#train.initial.parts", "train.initial.parts"
    )
    changed = run.replace(model=run.model.replace(layer_mlp_ratio=2.5))
    changed = changed.replace(train=run.train.replace(initial=InitialConfig(run="runs/a")))
    assert load(RunConfig, tomllib.loads(on), "run.toml") == changed


def test_tables_with_and_without_keys_are_read_back():
    run = preset("tiny-oc")
    for rates in ({}, {"encoder": 1e-5, "model": 0.5}):
        changed = run.replace(train=run.train.replace(part_learning_rates=rates))
        for text in (as_toml(changed), as_described_toml(changed)):
            assert load(RunConfig, tomllib.loads(text), "run.toml") == changed
