import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slotssm.layers import Attention, InvertedAttention, MLPBlock, QueryBlock, SlotEncoder, SlotMixer
from slotssm.layers import attention as attention_module

DIM, HEADS = 12, 3


def moved(module: nn.Module) -> nn.Module:
    """Float64, with no parameter at its initial value (norms start as the identity)."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * norm.weight + norm.bias


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# --- plain attention --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_queries", "num_keys"), [(5, None), (5, 7), (5, 1), (1, None), (1, 1)])
def test_attention_is_the_formula(num_queries, num_keys):
    cross = num_keys is not None
    block = moved(Attention(DIM, HEADS, cross=cross))
    x, context = normal(2, num_queries, DIM), normal(2, num_keys, DIM) if cross else None
    queries = layer_norm(x, block.norm)
    source = layer_norm(context, block.context_norm) if cross else queries
    width = DIM // HEADS
    heads = []
    for head in range(HEADS):
        rows = slice(head * width, (head + 1) * width)
        q = torch.einsum("bqd,ed->bqe", queries, block.query.weight[rows])
        k = torch.einsum("bmd,ed->bme", source, block.key_value.weight[:DIM][rows])
        v = torch.einsum("bmd,ed->bme", source, block.key_value.weight[DIM:][rows])
        scores = torch.exp(torch.einsum("bqe,bme->bqm", q, k) / math.sqrt(width))
        heads.append(torch.einsum("bqm,bme->bqe", scores / scores.sum(-1, keepdim=True), v))
    expected = x + torch.einsum("bqe,de->bqd", torch.cat(heads, -1), block.out.weight) + block.out.bias
    close(block(x, context), expected)


def test_attention_equals_torchs_multihead_attention():
    block = moved(Attention(DIM, HEADS))
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
        theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(block.out.state_dict())
    x = normal(2, 5, DIM)
    normed = block.norm(x)
    close(block(x), x + theirs(normed, normed, normed)[0])


@pytest.mark.parametrize("num_contexts", [1, 3])
def test_one_set_of_queries_serves_every_context(num_contexts):
    block = moved(QueryBlock(DIM, HEADS, 2.0))
    queries, context = normal(1, 4, DIM).requires_grad_(), normal(num_contexts, 5, DIM)
    each = torch.cat([block.mlp(block.cross_attention(block.self_attention(queries), row[None])) for row in context])
    close(block(queries, context), each)
    close(block(queries.expand(num_contexts, -1, -1), context), each)
    weight = normal(num_contexts, 4, DIM)
    close(*(torch.autograd.grad((y * weight).sum(), queries)[0] for y in (block(queries, context), each)))


def test_every_context_has_a_dropout_mask_of_its_own():
    block = QueryBlock(DIM, HEADS, 2.0, dropout=0.5)
    # what reaches the queries through the self-attention alone
    nn.init.zeros_(block.cross_attention.out.weight)
    nn.init.zeros_(block.mlp.net[3].weight)
    y = block(torch.randn(1, 4, DIM), torch.randn(1, 5, DIM).expand(2, -1, -1))
    assert not torch.allclose(y[0], y[1])
    assert torch.equal(*block.eval()(torch.randn(1, 4, DIM), torch.randn(1, 5, DIM).expand(2, -1, -1)))


def test_cross_attention_ignores_the_order_of_the_context():
    block = moved(Attention(DIM, HEADS, cross=True))
    x, context = normal(2, 5, DIM), normal(2, 7, DIM)
    close(block(x, context[:, torch.randperm(7)]), block(x, context))


def test_mlp_block_is_the_formula():
    block = moved(MLPBlock(DIM, ratio=2.0))
    x = normal(2, 5, DIM)
    norm, first, _, second, _ = block.net
    hidden = layer_norm(x, norm) @ first.weight.T + first.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    assert hidden.shape[-1] == 2 * DIM
    close(block(x), x + hidden @ second.weight.T + second.bias)


@pytest.mark.parametrize("block", [Attention(DIM, HEADS, dropout=0.5), MLPBlock(DIM, dropout=0.5)])
def test_dropout_acts_in_training_only(block):
    x = torch.randn(2, 5, DIM)
    block.train()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


# --- inverted attention -----------------------------------------------------------------------------------


@torch.no_grad()
def test_inverted_attention_is_the_formula():
    block = moved(InvertedAttention(DIM, eps=0.0))
    slots, tokens = normal(2, 4, DIM), normal(2, 9, DIM)
    updated, attention = block(slots, tokens)
    for b in range(2):
        q = layer_norm(slots[b], block.norm) @ block.query.weight.T
        k = layer_norm(tokens[b], block.token_norm) @ block.key_value.weight[:DIM].T
        v = layer_norm(tokens[b], block.token_norm) @ block.key_value.weight[DIM:].T
        weights = torch.zeros(4, 9, dtype=torch.float64)
        for m in range(9):
            scores = [math.exp(float(q[i] @ k[m]) / math.sqrt(DIM)) for i in range(4)]
            for i in range(4):
                weights[i, m] = scores[i] / sum(scores)
        close(attention[b], weights)
        for i in range(4):
            read = sum(weights[i, m] / weights[i].sum() * v[m] for m in range(9))
            close(updated[b, i], slots[b, i] + block.out.weight @ read + block.out.bias)


@torch.no_grad()
def test_a_null_slot_is_a_slot_whose_logits_are_zero_and_that_nobody_sees():
    slots, tokens = normal(2, 4, DIM), normal(2, 9, DIM)
    block = moved(InvertedAttention(DIM, eps=0.0, null_slot=True))
    updated, attention = block(slots, tokens)
    keys, values = block.key_value(block.token_norm(tokens)).chunk(2, dim=-1)
    scores = (block.query(block.norm(slots)) @ keys.transpose(1, 2) / math.sqrt(DIM)).exp()
    close(attention, scores / (1 + scores.sum(1, keepdim=True)))
    means = torch.einsum("bkm,bmd->bkd", attention, values) / attention.sum(2, keepdim=True)
    close(updated, slots + block.out(means))


@torch.no_grad()
def test_tokens_of_the_null_slot_do_not_dilute_the_slots():
    block = InvertedAttention(4, null_slot=True)
    block.norm, block.token_norm, block.out = nn.Identity(), nn.Identity(), nn.Identity()
    block.query.weight.copy_(50 * torch.eye(4))
    block.key_value.weight.copy_(torch.eye(4).repeat(2, 1))
    slot = torch.tensor([[[1.0, 0, 0, 0]]])
    own, background = slot[:, 0], torch.tensor([[-1.0, 0, 5, 0]])
    updated, attention = block(slot, torch.stack([own, background, background], 1))
    torch.testing.assert_close(attention, torch.tensor([[[1.0, 0, 0]]]))
    torch.testing.assert_close(updated - slot, slot)
    block.null_slot = False
    assert (block(slot, torch.stack([own, background, background], 1))[0] - slot)[0, 0, 2] > 3


def test_default_eps_is_negligible():
    block = moved(InvertedAttention(DIM))
    slots, tokens = normal(2, 4, DIM), normal(2, 64, DIM)
    updated, _ = block(slots, tokens)
    block.eps = 0.0
    torch.testing.assert_close(updated, block(slots, tokens)[0], rtol=1e-4, atol=1e-5)


def test_slots_share_every_token():
    _, attention = moved(InvertedAttention(DIM))(normal(2, 4, DIM), normal(2, 9, DIM))
    close(attention.sum(1), torch.ones(2, 9, dtype=torch.float64))
    assert (attention > 0).all()


def test_inverted_attention_permutes_with_the_slots():
    block = moved(InvertedAttention(DIM))
    slots, tokens, order = normal(2, 4, DIM), normal(2, 9, DIM), torch.tensor([2, 0, 3, 1])
    updated, attention = block(slots, tokens)
    for ours, theirs in zip(block(slots[:, order], tokens), (updated[:, order], attention[:, order]), strict=True):
        close(ours, theirs)


def test_inverted_attention_reads_tokens_as_a_set():
    block = moved(InvertedAttention(DIM))
    slots, tokens, order = normal(2, 4, DIM), normal(2, 9, DIM), torch.randperm(9)
    updated, attention = block(slots, tokens)
    shuffled, shuffled_attention = block(slots, tokens[:, order])
    close(shuffled, updated)
    close(shuffled_attention, attention[:, :, order])


def test_a_slot_without_tokens_stays_finite():
    # one slot wins every token by so much that the other's weights underflow to zero
    block = InvertedAttention(4)
    with torch.no_grad():
        block.query.weight.copy_(1e4 * torch.eye(4))
        block.key_value.weight.copy_(torch.eye(4).repeat(2, 1))
    slots = torch.tensor([[[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]]]).requires_grad_()
    updated, attention = block(slots, slots[:, :1].detach().repeat(1, 5, 1))
    updated.sum().backward()
    assert attention[0, 1].sum() == 0
    assert updated.isfinite().all()
    assert slots.grad.isfinite().all()


# --- slot encoder and mixer -------------------------------------------------------------------------------


def test_slot_encoder_gives_k_slots_whatever_the_number_of_tokens():
    encoder = moved(SlotEncoder(4, DIM, 2, HEADS, 2.0))
    assert [encoder(None, normal(3, m, DIM))[0].shape for m in (1, 16)] == [(3, 4, DIM)] * 2


def test_slot_encoder_permutes_with_its_cls_tokens():
    encoder = moved(SlotEncoder(4, DIM, 2, HEADS, 2.0))
    tokens, order = normal(3, 7, DIM), torch.tensor([2, 0, 3, 1])
    slots = encoder(None, tokens)[0]
    assert not torch.allclose(slots, slots[:, order])
    encoder.cls.data = encoder.cls.data[order]
    close(encoder(None, tokens)[0], slots[:, order])


def test_slot_encoder_is_its_layers_and_a_linear_map():
    encoder = moved(SlotEncoder(4, DIM, 3, HEADS, 2.0))
    tokens = normal(2, 7, DIM)
    slots = encoder.cls.expand(2, 4, DIM)
    assert len(encoder.layers) == 3
    for layer in encoder.layers:
        slots = layer.self_attention(slots)
        slots = layer.cross_attention(slots, tokens)
        slots = slots + layer.mlp.net(slots)
    close(encoder(None, tokens)[0], slots @ encoder.to_slots.weight.T + encoder.to_slots.bias)


def test_slot_mixer_permutes_with_the_slots():
    mixer = moved(SlotMixer(DIM, HEADS, 2.0))
    slots, order = normal(3, 4, DIM), torch.tensor([2, 0, 3, 1])
    close(mixer(slots[:, order]), mixer(slots)[:, order])


def test_slot_mixer_mixes_slots_of_one_element_only():
    mixer = moved(SlotMixer(DIM, HEADS, 2.0))
    slots = normal(2, 4, DIM)
    changed = slots.clone()
    changed[0, 0, 0] += 1
    difference = (mixer(changed) - mixer(slots)).abs().sum(-1)
    assert (difference[0] > 0).all()
    assert (difference[1] == 0).all()


def test_attention_in_pieces_of_a_batch_is_that_of_the_whole(monkeypatch):
    # a GPU's kernels take so many rows at a time; `meta` stands for a device that is not a CPU
    q, k, v = (torch.randn(7, 2, 5, 4) for _ in range(3))
    mask = torch.randn(5, 5)
    monkeypatch.setattr(attention_module, "MOST_ROWS", 3)
    calls = []
    whole = F.scaled_dot_product_attention

    def counted(q, k, v, **options):
        calls.append(len(q))
        return whole(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    assert attention_module.attend(*(t.to("meta") for t in (q, k, v))).shape == q.shape
    assert calls == [3, 3, 1]
    calls.clear()
    expected = attention_module.attend(q, k, v, mask)
    assert calls == [7]
    pieces = zip(*(t.split(3) for t in (q, k, v)), strict=True)
    found = torch.cat([attention_module.attend(*piece, mask) for piece in pieces])
    torch.testing.assert_close(found, expected)
