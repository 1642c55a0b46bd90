"""Baselines of the size of a SlotSSM: as many parameters, and everything else the same."""

import pytest
import torch

from slotssm.config import RunConfig
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.matched import (
    RESIDUAL,
    SEQUENCE_MODELS,
    WIDE,
    count_parameters,
    count_used_parameters,
    matched,
    with_model,
)
from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS
from slotssm.layers import Mamba2Config, S5Config
from slotssm.models import RIMConfig, SlotSSMConfig, build_model
from slotssm.registry import MODELS
from slotssm.tasks import build_task

PRESETS = ("cpu-bcb", "cpu-balls", "paper-bcb", "paper-balls")
BASELINES = tuple(name for name in SEQUENCE_MODELS if name not in ("slotssm", "rim"))
ONE_SLOT = ("single-state-ssm", "transformer")


def sizes(run: RunConfig) -> tuple[int, int]:
    """Parameters of the whole task, and those of its sequence model that have an effect."""
    with torch.device("meta"):
        task = build_task(run, spec_of(run.data))
    return sum(p.numel() for p in task.parameters()), task.model.count_used_parameters()


# --- size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("run", PRESETS)
def test_baselines_are_within_a_tenth_of_slotssm(run, name):
    reference = sizes(preset(run))
    for ours, theirs in zip(sizes(with_model(preset(run), name)), reference, strict=True):
        assert ours == pytest.approx(theirs, rel=0.1)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("run", PRESETS)
def test_no_other_width_of_the_layers_comes_nearer(run, name):
    reference = preset(run).model
    goal, config = count_used_parameters(reference), matched(reference, name)
    hidden = config.layer_mlp_ratio * config.slot_dim
    assert hidden == int(hidden)
    assert hidden % 8 == 0

    def distance(width: float) -> int:
        changed = config.replace(layer_mlp_ratio=width / config.slot_dim)
        return abs(count_used_parameters(changed) - goal)

    assert distance(hidden) <= min(distance(width) for width in (hidden - 8, hidden + 8) if width > 0)


@pytest.mark.parametrize("mixer", [Mamba2Config(), S5Config()], ids=lambda mixer: mixer.kind)
@pytest.mark.parametrize("name", BASELINES)
def test_size_follows_the_reference(name, mixer):
    reference = SlotSSMConfig(slot_dim=64, num_layers=4, num_slots=3, time_mixer=mixer, layer_mlp_ratio=3.0)
    config = matched(reference, name)
    assert count_used_parameters(config) == pytest.approx(count_used_parameters(reference), rel=0.01)


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_parameters_are_counted_without_making_them(name):
    config = matched(preset("tiny-bcb").model, name)
    assert count_parameters(config) == sum(p.numel() for p in build_model(config).parameters())


@pytest.mark.parametrize("run", [*PRESETS, "tiny-bcb"])
def test_the_wide_single_state_has_the_state_of_all_slots_together(run):
    reference = preset(run).model
    wide = matched(reference, WIDE)
    assert (wide.kind, wide.num_slots, wide.slot_dim) == ("single-state-ssm", 1, reference.slot_dim)
    tokens = torch.zeros(1, 2, 4, reference.slot_dim)
    ours, theirs = (build_model(config)(tokens).state.layers for config in (wide, reference))
    assert [layer.ssm.numel() for layer in ours] == [layer.ssm.numel() for layer in theirs]


@pytest.mark.parametrize("run", [*PRESETS, "tiny-bcb"])
def test_the_residual_slot_rnn_is_slot_rnn_with_its_inputs_added(run):
    ours, papers = (matched(preset(run).model, name) for name in (RESIDUAL, "slot-rnn"))
    assert (ours.residual, papers.residual) == (True, False)
    assert ours == papers.replace(residual=True)


@pytest.mark.parametrize("run", ["tiny-oc", "cpu-oc"])
def test_savi_has_the_size_of_oc_slotssm(run):
    reference = preset(run)
    savi = with_model(reference, "savi")
    assert savi.model.kind == "savi"
    for ours, theirs in zip(sizes(savi), sizes(reference), strict=True):
        assert ours == pytest.approx(theirs, rel=0.05)
    same = {"slot_dim", "num_slots", "num_heads", "mlp_ratio", "dropout"}
    assert savi.model.model_dump(include=same) == reference.model.model_dump(include=same)
    assert savi.model.num_layers == 1
    assert savi.model_dump(exclude={"model"}) == reference.model_dump(exclude={"model"})
    assert RunConfig.model_validate(savi.model_dump(mode="json")) == savi


# --- all the rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
@pytest.mark.parametrize("run", [*PRESETS, "tiny-bcb", "tiny-balls"])
def test_only_the_model_changes(run, name):
    before, after = preset(run), with_model(preset(run), name)
    assert after.model_dump(exclude={"model"}) == before.model_dump(exclude={"model"})
    assert type(after.model) is MODELS[name].config_class
    assert after.model.kind == name
    # a configuration that is made without its checks passes them
    assert RunConfig.model_validate(after.model_dump(mode="json")) == after


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
@pytest.mark.parametrize("run", PRESETS)
def test_baselines_have_the_widths_depths_and_slots_of_slotssm(run, name):
    reference = preset(run).model
    config = matched(reference, name)
    same = {"slot_dim", "num_heads", "mlp_ratio", "dropout", "num_encoder_layers"}
    same |= {"num_slots"} if name not in ONE_SLOT else set()
    same |= {"num_layers"} if name != "rim" else set()
    same |= {"time_mixer"} if hasattr(config, "time_mixer") else set()
    assert config.model_dump(include=same) == reference.model_dump(include=same)
    assert hasattr(config, "time_mixer") == (name in ("slotssm", "single-state-ssm", "split-ssm"))
    if name in ONE_SLOT:
        assert config.num_slots == 1


def test_every_reference_setting_is_taken_over():
    reference = SlotSSMConfig(
        num_slots=9,
        slot_dim=32,
        num_layers=5,
        num_heads=8,
        mlp_ratio=3.0,
        dropout=0.2,
        num_encoder_layers=2,
        time_mixer=S5Config(d_state=6),
    )
    config = matched(reference, "split-ssm")
    changed = {"kind", "layer_mlp_ratio"}
    assert config.model_dump(exclude=changed) == reference.model_dump(exclude=changed)
    assert matched(reference, "slotssm") == reference


@pytest.mark.parametrize(("num_slots", "num_active"), [(1, 1), (2, 1), (3, 2), (6, 4), (9, 6)])
def test_rim_has_one_layer_and_two_thirds_of_its_units_active(num_slots, num_active):
    reference = SlotSSMConfig(num_slots=num_slots, num_layers=4)
    config = matched(reference, "rim")
    assert isinstance(config, RIMConfig)
    assert (config.num_layers, config.num_slots, config.num_active) == (1, num_slots, num_active)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_a_run_of_a_baseline_is_refused(name):
    baseline = with_model(preset("tiny-bcb"), "transformer")
    refusal = r"^a model of kind 'transformer' has no '.*' of its size; baselines are matched"
    with pytest.raises(InputError, match=refusal):
        with_model(baseline, name)
    with pytest.raises(InputError, match=r"^a model of kind 'savi' has no "):
        with_model(with_model(preset("tiny-oc"), "savi"), name)


@pytest.mark.parametrize(("run", "name"), [("tiny-oc", "slotssm"), ("tiny-oc", "rim"), ("tiny-bcb", "savi")])
def test_models_are_compared_within_their_experiment(run, name):
    with pytest.raises(InputError, match="of its size; baselines are matched"):
        with_model(preset(run), name)


@pytest.mark.parametrize("name", ["single-state", "slot_transformer", ""])
def test_names_that_no_baseline_has_are_unknown(name):
    with pytest.raises(InputError, match=f"has no '{name}' of its size"):
        matched(preset("tiny-bcb").model, name)
    # experiments say so before, in words
    for experiment in EXPERIMENTS.values():
        with pytest.raises(InputError, match=f"^`models` {name} is unknown; .* compares .*slotssm, "):
            experiment.check(Choice(scale="cpu", models=(experiment.models[0], name)))
