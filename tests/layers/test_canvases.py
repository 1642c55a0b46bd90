import pytest
import torch
from torch import nn

from slotssm.errors import InputError
from slotssm.layers import ColorCanvas, ConvolutionPainter, ImageCanvas, SpatialBroadcastDecoder

HEIGHT, WIDTH, DIM = 8, 12, 8


@pytest.fixture
def decoder() -> SpatialBroadcastDecoder:
    return SpatialBroadcastDecoder(DIM, ConvolutionPainter(HEIGHT, WIDTH, DIM, (4,)))


@torch.no_grad()
@pytest.mark.parametrize("logit", [0.0, 1.5])
def test_a_canvas_is_blended_as_a_slot_whose_logit_is_the_same_everywhere(decoder, logit):
    slots, canvas = torch.randn(2, 3, DIM), torch.rand(2, 3, HEIGHT, WIDTH)
    blended, images, masks = decoder.decompose(slots, canvas, logit)
    torch.testing.assert_close(decoder(slots, canvas, logit), blended, rtol=1e-5, atol=1e-6)
    cells = slots.reshape(6, 1, DIM) + decoder.positions
    painted = nn.Sequential(*decoder.painter)(cells.reshape(6, HEIGHT // 2, WIDTH // 2, DIM).permute(0, 3, 1, 2))
    painted = painted.reshape(2, 3, 4, HEIGHT, WIDTH).double()
    weights = torch.cat([painted[:, :, 3].exp(), torch.full((2, 1, HEIGHT, WIDTH), logit).exp()], dim=1)
    weights = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(masks.double(), weights, rtol=1e-5, atol=1e-6)
    assert torch.equal(images[:, 3], canvas)
    torch.testing.assert_close(images[:, :3].double(), painted[:, :, :3] + canvas[:, None], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(blended, (images * masks[:, :, None]).sum(1), rtol=1e-5, atol=1e-6)


def test_slots_without_a_picture_leave_the_canvas_and_do_not_train_it(decoder):
    """Whatever they bid; only the pixels of the canvas itself have a gradient for it."""
    with torch.no_grad():
        decoder.painter[-1].weight[:3] = 0
        decoder.painter[-1].bias[:3] = 0
    canvas = torch.rand(2, 3, HEIGHT, WIDTH, requires_grad=True)
    slots = torch.randn(2, 3, DIM)
    blended, masks = decoder(slots, canvas), decoder.decompose(slots, canvas)[2]
    torch.testing.assert_close(blended, canvas)
    blended.sum().backward()
    torch.testing.assert_close(canvas.grad, masks[:, 3:].expand_as(canvas))


@torch.no_grad()
def test_the_canvas_owns_the_pixels_for_which_no_slot_bids(decoder):
    decoder.painter[-1].bias[3] = -0.02
    _, _, masks = decoder.decompose(torch.randn(2, 3, DIM), torch.rand(2, 3, HEIGHT, WIDTH))
    _, _, without = decoder.decompose(torch.randn(2, 3, DIM))
    assert without.shape[1] == 3
    owned = masks.argmax(1) == 3
    assert owned.any()
    assert not owned.all()
    # odds against the canvas are exponentials of the logits
    assert torch.equal(owned, (masks[:, :3] / masks[:, 3:]).amax(1) < 1)


@torch.no_grad()
def test_a_colour_canvas_is_black_at_first_and_the_same_everywhere():
    canvas = ColorCanvas(HEIGHT, WIDTH)
    tokens = torch.randn(2, 5, 7, DIM)
    assert torch.equal(canvas(tokens), torch.zeros(10, 3, HEIGHT, WIDTH))
    canvas.color += torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(canvas(tokens)[4, :, 3, 2], torch.tensor([0.1, 0.2, 0.3]))
    assert (canvas(tokens) == canvas(tokens)[:1, :, :1, :1]).all()


@torch.no_grad()
@pytest.mark.parametrize("cells", [1, 2, 4])
def test_an_image_canvas_interpolates_a_grid_of_its_own_frame(cells):
    canvas = ImageCanvas(HEIGHT, WIDTH, DIM, cells)
    canvas.head.weight.normal_()
    tokens = torch.randn(2, 3, 7, DIM)
    images = canvas(tokens)
    grid = canvas.head(canvas.mlp(tokens.mean(2))).reshape(6, 3, cells, cells)
    assert images.shape == (6, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(images[:, :, 0, 0], grid[:, :, 0, 0])
    torch.testing.assert_close(images[:, :, -1, -1], grid[:, :, -1, -1])
    if cells == 1:
        assert (images == images[:, :, :1, :1]).all()
    if cells == 2:
        # with two cells, every row is a straight line
        step = images.diff(dim=3)
        torch.testing.assert_close(step, step[..., :1].expand_as(step), rtol=1e-4, atol=1e-5)
    changed = tokens.clone()
    changed[1, 2] += 1 + torch.rand(7, DIM)
    differs = (canvas(changed) != images).flatten(1).any(1)
    assert differs.tolist() == [False] * 5 + [True]


@torch.no_grad()
@pytest.mark.parametrize("canvas", [ColorCanvas(HEIGHT, WIDTH), ImageCanvas(HEIGHT, WIDTH, DIM, 2)])
def test_a_canvas_starts_from_one_colour(canvas):
    tokens, color = torch.randn(2, 5, 7, DIM), torch.tensor([0.1, 0.2, 0.3])
    assert not canvas(tokens).any()
    canvas.start_from(color)
    torch.testing.assert_close(canvas(tokens), color[None, :, None, None].expand(10, 3, HEIGHT, WIDTH))


def test_an_image_canvas_refuses_tokens_of_another_width():
    with pytest.raises(InputError, match=r"ImageCanvas takes .* \[B, T, M, 8\]"):
        ImageCanvas(HEIGHT, WIDTH, DIM, 2)(torch.zeros(1, 2, 3, DIM + 1))


@pytest.mark.parametrize("cells", [1, 2, 5])
def test_an_image_canvas_is_the_same_among_deterministic_algorithms(cells):
    canvas, tokens = ImageCanvas(HEIGHT, WIDTH, DIM, cells), torch.randn(2, 3, 5, DIM, requires_grad=True)

    def found() -> list[torch.Tensor]:
        pixels = canvas(tokens)
        return [pixels, *torch.autograd.grad(pixels.square().sum(), [tokens, *canvas.parameters()])]

    expected = found()
    torch.use_deterministic_algorithms(True)
    try:
        torch.testing.assert_close(found(), expected, rtol=1e-5, atol=1e-5)
    finally:
        torch.use_deterministic_algorithms(False)
