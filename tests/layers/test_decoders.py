import pytest
import torch
from torch import nn

from slotssm.errors import InputError
from slotssm.layers import (
    ConvolutionPainter,
    PieceDecoder,
    PiecePainter,
    PieceTokenizer,
    SpatialBroadcastDecoder,
)
from slotssm.layers.positions import sincos_grid


def piece_decoder(**changes) -> PieceDecoder:
    arguments = {
        "height": 8,
        "width": 8,
        "piece_px": 4,
        "num_channels": 3,
        "dim": 8,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_ratio": 2.0,
    }
    return PieceDecoder(**(arguments | changes)).eval()


# --- Transformer over pieces ------------------------------------------------------------------------------


class NumberedPixels(nn.Module):
    """Paints with what tells query, channel and pixel."""

    def forward(self, x):
        channels, pixels = torch.arange(3)[:, None], torch.arange(16)
        return 10_000 * x[..., :1] + (100 * channels + pixels).flatten()


@pytest.mark.parametrize(("height", "width"), [(12, 12), (12, 20), (24, 16)])
def test_every_query_paints_its_own_square(height, width):
    decoder, columns = piece_decoder(height=height, width=width), width // 4
    assert decoder.grid == (height // 4, columns)
    decoder.layers = nn.ModuleList([])
    decoder.queries, decoder.head = torch.arange(height / 4 * columns)[:, None].expand(-1, 8), NumberedPixels()
    image = decoder(torch.zeros(1, 2, 8))[0]
    assert image.shape == (3, height, width)
    for channel in range(3):
        for y in range(height):
            for x in range(width):
                query, pixel = columns * (y // 4) + x // 4, 4 * (y % 4) + x % 4
                assert image[channel, y, x] == 10_000 * query + 100 * channel + pixel


def test_queries_are_the_positions_of_the_pieces():
    assert torch.equal(piece_decoder(height=12, width=12).queries, sincos_grid(3, 3, 8))
    assert torch.equal(piece_decoder(height=96, width=64).queries, sincos_grid(24, 16, 8))


def test_a_decoder_of_pieces_undoes_the_tokenizer_of_a_frame_that_is_not_square():
    # linear maps that pass on what they get: a token is its piece, and a query paints what it is
    tokenizer, decoder = PieceTokenizer(96, 64, 1, 2, 12), piece_decoder(height=96, width=64, piece_px=2, dim=12)
    nn.init.eye_(tokenizer.embed.weight)
    nn.init.zeros_(tokenizer.embed.bias)
    tokenizer.mlp, tokenizer.positions = nn.Identity(), torch.zeros(48 * 32, 12)
    decoder.layers, decoder.head = nn.ModuleList([]), nn.Identity()
    frames = torch.rand(1, 1, 3, 96, 64)
    time = torch.cat([torch.zeros(6), torch.ones(6)])  # sines and cosines of the number 0
    decoder.queries = tokenizer(frames)[0, 0] - time
    torch.testing.assert_close(decoder(torch.zeros(1, 2, 12)), frames[0])


@pytest.mark.parametrize("piece", [1, 2, 4])
def test_image_has_the_right_size(piece):
    assert piece_decoder(piece_px=piece)(torch.randn(2, 5, 8)).shape == (2, 3, 8, 8)


def test_slots_are_a_set_for_the_decoder():
    decoder = piece_decoder()
    slots = torch.randn(2, 5, 8)
    torch.testing.assert_close(decoder(slots[:, [3, 1, 4, 0, 2]]), decoder(slots))
    assert not torch.allclose(decoder(slots + torch.randn(2, 5, 8)), decoder(slots), atol=1e-3)


def test_batch_elements_are_decoded_alone():
    decoder = piece_decoder()
    slots = torch.randn(3, 5, 8)
    torch.testing.assert_close(decoder(slots)[1:2], decoder(slots[1:2]))


# --- spatial broadcast ------------------------------------------------------------------------------------


PAINTERS = {
    "convolutions": lambda height, width: ConvolutionPainter(height, width, 8, (6, 4)),
    "pieces": lambda height, width: PiecePainter(height, width, 8, (6, 5), 4),
}


def broadcast_decoder(kind: str, height: int = 16, width: int = 16) -> SpatialBroadcastDecoder:
    return SpatialBroadcastDecoder(8, PAINTERS[kind](height, width))


@pytest.fixture(params=list(PAINTERS))
def broadcast(request) -> SpatialBroadcastDecoder:
    return broadcast_decoder(request.param)


def test_masks_sum_to_one_and_blend_the_images(broadcast):
    slots = torch.randn(2, 5, 8)
    blended, images, masks = broadcast.decompose(slots)
    assert (blended.shape, images.shape, masks.shape) == ((2, 3, 16, 16), (2, 5, 3, 16, 16), (2, 5, 16, 16))
    assert (masks > 0).all()
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 16, 16))
    torch.testing.assert_close(blended, (images * masks[:, :, None]).sum(1))
    torch.testing.assert_close(broadcast(slots), blended)


def test_masks_are_a_softmax_of_the_fourth_channel(broadcast):
    slots = torch.randn(1, 3, 8)
    _, images, masks = broadcast.decompose(slots)
    painter, painted = nn.Sequential(*broadcast.painter), []
    for slot in slots[0]:
        cells = (slot + broadcast.positions).reshape(4, 4, 8).permute(2, 0, 1)
        painted.append(painter(cells[None])[0])
    logits = torch.stack([image[3] for image in painted])
    torch.testing.assert_close(images[0], torch.stack([image[:3] for image in painted]))
    torch.testing.assert_close(masks[0], torch.exp(logits) / torch.exp(logits).sum(0))


@pytest.mark.parametrize("kind", ["convolutions", "pieces"])
def test_transposed_kernels_and_positions_paint_transposed_frames(kind):
    usual, other = broadcast_decoder(kind, 96, 64), broadcast_decoder(kind, 64, 96)
    assert (usual.painter.grid, other.painter.grid) == ((24, 16), (16, 24))
    assert torch.equal(usual.positions, sincos_grid(24, 16, 8))
    other.load_state_dict(usual.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim == 4:
                parameter.copy_(parameter.transpose(2, 3).clone())
    other.positions = usual.positions.view(24, 16, 8).transpose(0, 1).flatten(0, 1)
    slots = torch.randn(2, 3, 8)
    for ours, theirs in zip(other.decompose(slots), usual.decompose(slots), strict=True):
        assert theirs.shape[-2:] == (96, 64)
        torch.testing.assert_close(ours.transpose(-1, -2), theirs, rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"a frame of 96 x 62 pixels .* whole pieces of 4 x 4 pixels"):
        piece_decoder(height=96, width=62)
    with pytest.raises(InputError, match=r"a frame of 94 x 64 pixels .* whole pieces of 4 x 4 pixels"):
        broadcast_decoder("pieces", 94, 64)
    with pytest.raises(InputError, match=r"a frame of 94 x 64 pixels .* whole cells of 4 x 4 pixels"):
        broadcast_decoder("convolutions", 94, 64)


def test_images_of_a_slot_do_not_depend_on_the_others(broadcast):
    slots = torch.randn(1, 3, 8)
    changed = slots.clone()
    changed[:, 1:] += 1
    torch.testing.assert_close(broadcast.decompose(changed)[1][:, 0], broadcast.decompose(slots)[1][:, 0])


def test_decoded_slots_permute(broadcast):
    slots, order = torch.randn(2, 4, 8), [2, 0, 3, 1]
    blended, images, masks = broadcast.decompose(slots)
    expected = (blended, images[:, order], masks[:, order])
    for ours, theirs in zip(broadcast.decompose(slots[:, order]), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_cells_of_the_grid_paint_where_they_lie(broadcast):
    # the position of the first and of the last cell reach the first and the last pixel alone
    broadcast.positions = broadcast.positions.clone().requires_grad_()
    images = broadcast.decompose(torch.randn(1, 2, 8))[1]
    near, far = (
        torch.autograd.grad(images[..., corner, corner].sum(), broadcast.positions, retain_graph=True)[0].abs().sum(1)
        for corner in (0, 15)
    )
    assert near[0] > 0
    assert near[-1] == 0
    assert far[-1] > 0
    assert far[0] == 0


@pytest.mark.parametrize("has_canvas", [False, True])
@pytest.mark.parametrize("pixels_at_once", [1, 2**17])
def test_gradients_are_those_of_the_weighted_sum_that_autograd_differentiates(
    broadcast, has_canvas, pixels_at_once, monkeypatch
):
    monkeypatch.setattr("slotssm.layers.decoders.PIXELS_AT_ONCE", pixels_at_once)
    broadcast.double()
    slots = torch.randn(3, 5, 8, dtype=torch.double, requires_grad=True)
    canvas = torch.rand(3, 3, 16, 16, dtype=torch.double, requires_grad=True) if has_canvas else None
    target = torch.rand(3, 3, 16, 16, dtype=torch.double)
    painted = nn.Sequential(*broadcast.painter)(
        (slots.flatten(0, 1)[:, None] + broadcast.positions).unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    ).unflatten(0, (3, 5))
    images, logits = painted[:, :, :3], painted[:, :, 3]
    if canvas is not None:
        images = torch.cat([images + canvas[:, None].detach(), canvas[:, None]], dim=1)
        logits = torch.cat([logits, torch.full_like(logits[:, :1], 0.5)], dim=1)
    expected = (images * logits.softmax(1)[:, :, None]).sum(1)
    blended = broadcast(slots, canvas, 0.5)
    torch.testing.assert_close(blended, expected)
    leaves = [slots, *broadcast.parameters()] + ([canvas] if has_canvas else [])
    ours, theirs = (
        torch.autograd.grad((image - target).square().sum(), leaves, retain_graph=True) for image in (blended, expected)
    )
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)


def test_no_frames_are_no_images(broadcast):
    assert broadcast(torch.randn(0, 3, 8)).shape == (0, 3, 16, 16)
