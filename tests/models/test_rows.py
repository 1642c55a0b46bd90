"""What each model is: its composition written out by hand, and what of it the configuration decides."""

import pytest
import torch
import torch.nn.functional as F
from model_cases import (
    CONFIGS,
    CORRECTING,
    DIM,
    ENCODED,
    MIXERS,
    ONE_SLOT,
    SLOTS,
    STATE_SPACE,
    STEPS,
    TOKENS,
    TRANSFORMERS,
    build,
    close,
    config_of,
    random_tokens,
    slots_of,
)

from slotssm.layers import (
    RIM,
    S4D,
    S5,
    Attention,
    CausalSlotAttention,
    Mamba,
    Mamba2,
    MLPBlock,
    SlotEncoder,
    SlotGRU,
)
from slotssm.models import (
    OCSlotSSM,
    RIMs,
    SAVi,
    SAViPlusPlus,
    SingleStateSSM,
    SlotModel,
    SlotRNN,
    SlotSSM,
    SlotSSMConfig,
    SlotTransformer,
    SlotTransformerConfig,
    SplitSSM,
    Transformer,
    build_model,
)


def encoded(encoder: SlotEncoder, tokens: torch.Tensor) -> torch.Tensor:
    """Slots of every step, one step at a time."""
    return torch.stack([encoder(None, tokens[:, t])[0] for t in range(tokens.shape[1])], 1)


def state_space_layer(layer, slots: torch.Tensor) -> torch.Tensor:
    """Slot by slot over time and step by step over slots, where the model folds them into the batch."""
    over_time = [slots[:, :, k] + layer.time_mixer(layer.time_norm(slots[:, :, k]))[0] for k in range(slots.shape[2])]
    return torch.stack([layer.slot_mixer(torch.stack(over_time, 2)[:, t]) for t in range(slots.shape[1])], 1)


def masked_attention(block: CausalSlotAttention, slots: torch.Tensor) -> torch.Tensor:
    """torch's attention over all pairs of slots, with a mask that leaves steps up to the own one."""
    batch, steps, num_slots, dim = slots.shape
    rows = slots.reshape(batch, -1, dim)
    weights = torch.cat([block.query.weight, block.key_value.weight])
    q, k, v = (rows @ weights.T).unflatten(-1, (3, block.num_heads, -1)).permute(2, 0, 3, 1, 4)
    step = torch.arange(steps).repeat_interleave(num_slots)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=step[:, None] >= step[None])
    return block.out(y.transpose(1, 2).flatten(2)).view(slots.shape)


def gru_loop(layer: SlotGRU, slots: torch.Tensor) -> torch.Tensor:
    """A cell for every slot, then the mixer, whose outputs are the next step's states."""
    hidden, outputs = torch.zeros_like(slots[:, 0]), []
    for t in range(slots.shape[1]):
        cells = [layer.gru(slots[:, t, k], hidden[:, k]) for k in range(slots.shape[2])]
        hidden = layer.mixer(torch.stack(cells, 1))
        outputs.append(hidden)
    return torch.stack(outputs, 1)


# --- the rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("kind", ["slotssm", "single-state-ssm"])
def test_slotssm_reads_once_and_mixes_time_and_slots_in_turn(kind, mixer):
    model, tokens = build(kind, mixer), random_tokens()
    slots = encoded(model.layers[0].reader, tokens)
    for layer in model.layers:
        slots = state_space_layer(layer, slots)
    output = model(tokens)
    close(output.slots, slots)
    assert output.attention is None
    assert model.layers[1].reader is None


def test_oc_slotssm_reads_the_tokens_in_every_layer():
    model, tokens = build("oc-slotssm"), random_tokens()
    slots = model.queries.expand(2, STEPS, -1, -1)
    for layer in model.layers:
        read = [layer.reader(slots[:, t], tokens[:, t]) for t in range(STEPS)]
        slots = state_space_layer(layer, torch.stack([updated for updated, _ in read], 1))
    output = model(tokens)
    close(output.slots, slots)
    close(output.attention, torch.stack([attention for _, attention in read], 1))


def test_split_ssm_joins_its_slots_for_one_state_and_splits_it():
    model, tokens = build("split-ssm"), random_tokens()
    reader, split = model.layers[0].reader, model.splitter.split
    outside = encoded(reader.encoder, tokens)
    into = reader.join.weight.split(DIM, 1)
    state = sum(outside[:, :, k] @ into[k].T for k in range(SLOTS)) + reader.join.bias
    for layer in model.layers:
        state = state_space_layer(layer, state[:, :, None])[:, :, 0]
    maps = zip(split.weight.split(DIM), split.bias.split(DIM), strict=True)
    output = model(tokens)
    close(output.slots, torch.stack([state @ weight.T + bias for weight, bias in maps], 2))
    # one state whatever the number of slots
    assert [part.shape[0] for layer in output.state.layers for part in layer] == [2] * 4


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers_attend_to_all_slots_of_all_steps_so_far(kind):
    model, tokens = build(kind), random_tokens()
    slots = encoded(model.layers[0].reader, tokens)
    for layer in model.layers:
        slots = slots + masked_attention(layer.time_mixer, layer.time_norm(slots))
        slots = layer.slot_mixer(slots)
        assert isinstance(layer.slot_mixer, MLPBlock)
    close(model(tokens).slots, slots)
    assert model.layers[1].reader is None


@pytest.mark.parametrize("residual", [True, False])
def test_slot_rnn_is_a_gru_with_the_slot_mixer_in_its_loop(residual):
    model, tokens = build("slot-rnn", residual=residual), random_tokens()
    slots = encoded(model.layers[0].reader, tokens)
    for layer in model.layers:
        states = gru_loop(layer.time_mixer, layer.time_norm(slots))
        slots = slots + states if residual else states
        assert layer.slot_mixer is None
    output = model(tokens)
    close(output.slots, slots)
    close(output.state.layers[-1].hidden, states[:, -1])


def test_slot_rnn_is_the_papers_unless_told_otherwise():
    assert not config_of("slot-rnn").residual
    assert torch.equal(
        build("slot-rnn")(random_tokens()).slots, build("slot-rnn", residual=False)(random_tokens()).slots
    )


def test_slots_of_rim_are_the_states_of_its_units():
    model, tokens = build("rim"), random_tokens()
    slots = encoded(model.layers[0].reader, tokens)
    for layer in model.layers:
        # the units read the slots as tokens; nothing is added to their states, and nothing mixes them afterwards
        slots = layer.time_mixer(layer.time_norm(slots))[0]
        assert layer.slot_mixer is None
    output = model(tokens)
    close(output.slots, slots)
    close(output.state.layers[-1].hidden, slots[:, -1])


@pytest.mark.parametrize("num_iterations", [1, 3])
@pytest.mark.parametrize("kind", CORRECTING)
def test_savi_corrects_its_prediction_by_every_frame(kind, num_iterations):
    model, tokens = build(kind, num_iterations=num_iterations), random_tokens()
    corrector, slots, expected, attention = model.corrector, model.queries.expand(2, -1, -1), [], []
    for t in range(STEPS):
        keys, values = (corrector.token_norm(tokens[:, t]) @ corrector.key_value.weight.T).split(DIM, 2)
        for _ in range(num_iterations):
            queries = corrector.norm(slots) @ corrector.query.weight.T
            logits = torch.einsum("bkd,bmd->bkm", queries, keys) / DIM**0.5
            shares = logits.exp() / logits.exp().sum(1, keepdim=True)
            won = torch.einsum("bkm,bmd->bkd", shares, values) / (shares.sum(2, keepdim=True) + corrector.eps)
            cells = [corrector.gru(won[:, k], slots[:, k]) for k in range(SLOTS)]
            slots = torch.stack(cells, 1)
            slots = corrector.mlp(slots) if kind == "savi" else slots
        expected.append(slots)
        attention.append(shares)
        for block in model.predictor:
            slots = block.mlp(block.attention(slots))
    output = model(tokens)
    close(output.slots, torch.stack(expected, 1))
    close(output.attention, torch.stack(attention, 1))
    close(output.state.layers[0].predicted, slots)


def test_a_slot_that_wins_no_token_stays_finite():
    model = build("savi").float()
    model.corrector.query.weight.data *= 1e4
    output = model(random_tokens().float())
    assert (output.attention.sum(-1) == 0).any(), "every slot won something: the test is too easy"
    assert output.slots.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "of_several"), [("single-state-ssm", SlotSSMConfig), ("transformer", SlotTransformerConfig)]
)
def test_models_of_one_slot_are_those_of_several_with_one(kind, of_several):
    config, tokens = config_of(kind), random_tokens()
    model = build(kind)
    other = build_model(of_several(**config.model_dump(exclude={"kind"}))).double().eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(tokens).slots, other(tokens).slots)
    assert model(tokens).slots.shape == (2, STEPS, 1, DIM)


# --- slots and time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["oc-slotssm", *CORRECTING])
def test_slots_compete_for_every_token(kind):
    attention = build(kind)(random_tokens()).attention
    assert attention.shape == (2, STEPS, SLOTS, TOKENS)
    close(attention.sum(2), torch.ones(2, STEPS, TOKENS, dtype=torch.float64))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("kind", ["slotssm", "oc-slotssm"])
def test_time_is_mixed_within_each_slot_alone(kind, mixer):
    moved = moved_slots(build(kind, mixer))
    assert (moved[:, :, [0, 2]] == 0).all()
    assert (moved[:, :2, 1] == 0).all()
    assert (moved[:, 2:, 1] > 0).all()


@pytest.mark.parametrize("kind", ["slot-transformer", "slot-rnn"])
def test_time_and_slots_are_mixed_together(kind):
    moved = moved_slots(build(kind))
    assert (moved[:, :2] == 0).all()
    assert (moved[:, 2:] > 0).all()


def moved_slots(model: SlotModel) -> torch.Tensor:
    """How far a change of one slot in the third step moves every slot of every step, before slots are mixed."""
    slots = torch.randn(2, STEPS, SLOTS, DIM, dtype=torch.float64)
    changed = slots.clone()
    changed[:, 2, 1] += torch.randn(DIM, dtype=torch.float64)
    layer = model.layers[0]
    return (layer.mix_time(changed, None)[0] - layer.mix_time(slots, None)[0]).abs().sum(-1)


# --- what the configuration decides -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "model_class"),
    [
        ("slotssm", SlotSSM),
        ("oc-slotssm", OCSlotSSM),
        ("single-state-ssm", SingleStateSSM),
        ("split-ssm", SplitSSM),
        ("transformer", Transformer),
        ("slot-transformer", SlotTransformer),
        ("slot-rnn", SlotRNN),
        ("rim", RIMs),
        ("savi", SAVi),
        ("savi++", SAViPlusPlus),
    ],
)
def test_configuration_decides_the_model(kind, model_class):
    num_slots = 1 if kind in ONE_SLOT else 5
    model = build(kind, num_layers=3, num_slots=num_slots)
    assert type(model) is model_class
    assert len(model.predictor if kind in CORRECTING else model.layers) == 3
    output = model(random_tokens())
    assert output.slots.shape == (2, STEPS, num_slots, DIM)
    assert (output.attention is not None) == (kind not in ENCODED)


@pytest.mark.parametrize(
    ("mixer", "mixer_class"), [("mamba", Mamba), ("mamba2", Mamba2), ("s4d", S4D), ("s5", S5)], ids=list(MIXERS)
)
@pytest.mark.parametrize("kind", STATE_SPACE)
def test_configuration_decides_the_time_mixer_and_all_of_its_fields(kind, mixer, mixer_class):
    for layer in build(kind, mixer).layers:
        assert type(layer.time_mixer) is mixer_class
        assert layer.time_mixer.d_state == 4
        if mixer == "mamba":
            assert layer.time_mixer.d_inner == int(1.25 * DIM)
        if mixer == "mamba2":
            assert (layer.time_mixer.headdim, layer.time_mixer.ngroups, layer.time_mixer.chunk_size) == (4, 2, 32)


@pytest.mark.parametrize("kind", ENCODED)
def test_configuration_decides_the_encoder(kind):
    (encoder,) = found(build(kind, num_encoder_layers=3), SlotEncoder).values()
    assert len(encoder.layers) == 3
    assert encoder.cls.shape == (slots_of(kind), DIM)


def test_configuration_decides_how_many_units_are_active():
    for num_active in (1, 2, 3):
        units = found(build("rim", num_active=num_active), RIM).values()
        assert [(rim.num_units, rim.num_active) for rim in units] == [(SLOTS, num_active)] * 2


@pytest.mark.parametrize("kind", CONFIGS)
def test_heads_and_dropout_are_everywhere_the_configurations(kind):
    model = build(kind, num_heads=4, dropout=0.3)
    assert {part.num_heads for part in model.modules() if hasattr(part, "num_heads")} == {4}
    assert {drop.p for drop in found(model, torch.nn.Dropout).values()} == {0.3}
    for part in (Attention, CausalSlotAttention, MLPBlock, RIM):
        assert all(found(module, torch.nn.Dropout) for module in found(model, part).values())


@pytest.mark.parametrize("kind", CONFIGS)
def test_mlps_of_the_layers_have_a_width_of_their_own(kind):
    def widths(model):
        return {name: block.net[1].out_features for name, block in found(model, MLPBlock).items()}

    usual, changed = widths(build(kind)), widths(build(kind, layer_mlp_ratio=0.5))
    assert set(usual.values()) <= {2 * DIM}
    in_encoder = {name for name in usual if ".reader." in name}
    assert len(in_encoder) == (2 if kind in ENCODED else 0)
    # one in each layer, but for RIM; SAVi has one in the corrector, which SAVi++ has not, and two blocks of a predictor
    assert len(usual) - len(in_encoder) == {"rim": 0, "savi": 3}.get(kind, 2)
    assert changed == {name: 2 * DIM if name in in_encoder else DIM // 2 for name in usual}


def found(model: torch.nn.Module, kind: type) -> dict[str, torch.nn.Module]:
    """All modules of a kind by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}
