import pytest
import torch
import torch.nn.functional as F

from slotssm.errors import InputError
from slotssm.layers import CNNEncoder, PieceTokenizer
from slotssm.layers.positions import sincos, sincos_grid


def influence(function, frames: torch.Tensor) -> torch.Tensor:
    """Which input pixels [T, H, W] each token [L, M] depends on: the sum of absolute gradients."""
    frames = frames.clone().requires_grad_()
    tokens = function(frames)[0]
    maps = []
    for token in tokens.reshape(-1, tokens.shape[-1]):
        weight = torch.linspace(1, 2, token.shape[0])
        (gradient,) = torch.autograd.grad((token * weight).sum(), frames, retain_graph=True)
        maps.append(gradient[0].abs().sum(1))
    return torch.stack(maps).reshape(*tokens.shape[:2], *maps[0].shape)


# --- pieces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 16), (24, 8)])
@pytest.mark.parametrize(("patches", "piece"), [(1, 4), (2, 4), (2, 2), (4, 2), (8, 1)])
def test_each_piece_becomes_the_right_token_of_the_right_step(height, width, patches, piece):
    frames = 2
    tokenizer = PieceTokenizer(height, width, patches, piece, 8)
    seen = influence(tokenizer, torch.rand(1, frames, 3, height, width)) > 0
    high, wide = height // patches, width // patches
    assert seen.shape[:2] == (frames * patches**2, (high // piece) * (wide // piece))
    for frame in range(frames):
        for y in range(height):
            for x in range(width):
                step = frame * patches**2 + (y // high) * patches + x // wide
                token = (y % high) // piece * (wide // piece) + (x % wide) // piece
                expected = torch.zeros(seen.shape[:2], dtype=torch.bool)
                expected[step, token] = True
                assert torch.equal(seen[:, :, frame, y, x], expected), (frame, y, x)


def test_tokens_of_a_wide_frame_one_at_a_time():
    height, width, patches, piece, dim = 96, 64, 2, 8, 16
    tokenizer, frames = PieceTokenizer(height, width, patches, piece, dim), torch.rand(2, 3, 3, height, width)
    tokens = tokenizer(frames, first_frame=4)
    assert tokenizer.grid == (12, 8)
    assert tokens.shape == (2, 3 * 4, 6 * 4, dim)
    for t in range(3):
        for step in range(4):
            for token in range(6 * 4):
                row, column = step // 2 * 6 + token // 4, step % 2 * 4 + token % 4
                y, x = row * piece, column * piece
                embedded = tokenizer.embed(frames[:, t, :, y : y + piece, x : x + piece].flatten(1))
                place = [sincos(torch.tensor(i), dim // 2, period=100.0) for i in (row, column)]
                expected = tokenizer.mlp(embedded + torch.cat(place) + sincos(torch.tensor(4 + t), dim))
                torch.testing.assert_close(tokens[:, 4 * t + step, token], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patches", [1, 2, 4])
def test_a_transposed_frame_has_transposed_tokens(patches):
    height, width, piece, dim = 16, 24, 2, 8
    rows, columns = height // piece // patches, width // piece // patches
    usual, other = (
        PieceTokenizer(height, width, patches, piece, dim),
        PieceTokenizer(width, height, patches, piece, dim),
    )
    other.load_state_dict(usual.state_dict())
    with torch.no_grad():
        other.embed.weight.copy_(usual.embed.weight.view(dim, 3, piece, piece).transpose(2, 3).flatten(1))
    other.positions = usual.positions.view(*usual.grid, dim).transpose(0, 1).flatten(0, 1)
    frames = torch.rand(2, 3, 3, height, width)
    expected = usual(frames).unflatten(1, (3, patches, patches)).unflatten(4, (rows, columns))
    found = other(frames.transpose(3, 4)).unflatten(1, (3, patches, patches)).unflatten(4, (columns, rows))
    torch.testing.assert_close(found.transpose(2, 3).transpose(4, 5), expected)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"a frame of 64 x 90 pixels .* whole pieces of 4 x 4 pixels"):
        PieceTokenizer(64, 90, 1, 4, 8)
    with pytest.raises(InputError, match=r"3 x 3 patches of a frame of 96 x 64 pixels .* whole pieces of 4 x 4 pixels"):
        PieceTokenizer(96, 64, 3, 4, 8)
    with pytest.raises(InputError, match=r"5 x 5 patches"):
        PieceTokenizer(96, 64, 2, 4, 8)(torch.rand(1, 1, 3, 96, 64), patches_per_side=5)
    with pytest.raises(InputError, match=r"a frame of 2 x 64 pixels"):
        PieceTokenizer(2, 64, 1, 4, 8)
    with pytest.raises(InputError, match=r"a frame of 90 x 64 pixels .* whole cells of 4 x 4 pixels"):
        CNNEncoder(90, 64, (4, 4), 4, 8)
    for downsample in (3, 8):
        with pytest.raises(InputError, match=f"2 convolutions .* factor of {downsample}"):
            CNNEncoder(96, 48, (4, 4), downsample, 8)
    with pytest.raises(InputError, match="multiple of 4, not 10"):
        CNNEncoder(96, 64, (4, 4), 2, 10)


@pytest.mark.parametrize("encoder", [PieceTokenizer(16, 8, 2, 4, 8), CNNEncoder(16, 8, (4,), 2, 8)])
@pytest.mark.parametrize("shape", [(8, 16), (8, 8), (17, 8)])
def test_frames_of_another_size_are_refused(encoder, shape):
    with pytest.raises(
        InputError, match=rf"\[B, T, 3, 16, 8\] .* not float32 of shape \[1, 2, 3, {shape[0]}, {shape[1]}\]"
    ):
        encoder(torch.rand(1, 2, 3, *shape))


def test_position_is_that_of_the_piece_in_the_whole_frame():
    # a frame without content: what is left of a token is its place and time
    tokenizer = PieceTokenizer(8, 8, 2, 2, 16)
    tokenizer.mlp = torch.nn.Identity()
    tokenizer.embed.bias.data.zero_()
    tokens = tokenizer(torch.zeros(1, 2, 3, 8, 8), first_frame=5)[0]
    grid = sincos_grid(4, 4, 16).reshape(4, 4, 16)
    for frame in range(2):
        for step in range(4):
            for token in range(4):
                row, column = step // 2 * 2 + token // 2, step % 2 * 2 + token % 2
                expected = grid[row, column] + sincos(torch.tensor(5.0 + frame), 16)
                torch.testing.assert_close(tokens[4 * frame + step, token], expected)


def test_first_frame_continues_a_stream():
    tokenizer = PieceTokenizer(8, 8, 2, 2, 8)
    frames = torch.rand(2, 5, 3, 8, 8)
    parts = [tokenizer(frames[:, :3]), tokenizer(frames[:, 3:], first_frame=3)]
    torch.testing.assert_close(torch.cat(parts, 1), tokenizer(frames))
    assert not torch.allclose(tokenizer(frames[:, 3:]), parts[1])


@pytest.mark.parametrize(("patches", "other"), [(1, 4), (4, 1), (2, 4), (4, 2), (2, 2)])
def test_other_patches_rearrange_the_same_tokens(patches, other):
    size, piece, num_frames = 16, 2, 3
    tokenizer, frames = PieceTokenizer(size, size, patches, piece, 8), torch.rand(2, num_frames, 3, size, size)
    usual, found = tokenizer(frames), tokenizer(frames, patches_per_side=other)
    pieces = size // piece

    def places(num_patches: int) -> dict[tuple[int, int, int], tuple[int, int]]:
        """Frame, row and column of every piece to the step and the token that it becomes."""
        side = pieces // num_patches
        return {
            (t, y, x): (t * num_patches**2 + y // side * num_patches + x // side, y % side * side + x % side)
            for t in range(num_frames)
            for y in range(pieces)
            for x in range(pieces)
        }

    assert found.shape == (2, num_frames * other**2, (pieces // other) ** 2, 8)
    before, after = places(patches), places(other)
    for key in before:
        torch.testing.assert_close(found[:, *after[key]], usual[:, *before[key]])
    # as if made for them, and nothing stays behind
    made = PieceTokenizer(size, size, other, piece, 8)
    made.load_state_dict(tokenizer.state_dict())
    assert torch.equal(found, made(frames))
    assert torch.equal(tokenizer(frames), usual)


def test_other_patches_go_on_from_the_first_frame_too():
    tokenizer, frames = PieceTokenizer(8, 8, 2, 2, 8), torch.rand(1, 5, 3, 8, 8)
    parts = [tokenizer(frames[:, :3], 0, 4), tokenizer(frames[:, 3:], 3, 4)]
    torch.testing.assert_close(torch.cat(parts, 1), tokenizer(frames, patches_per_side=4))


# --- CNN --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24)])
@pytest.mark.parametrize(("channels", "downsample"), [((4,), 1), ((4,), 2), ((4, 6), 2), ((4, 6, 4), 4)])
def test_cnn_tokens_lie_row_by_row_on_their_grid(height, width, channels, downsample):
    encoder = CNNEncoder(height, width, channels, downsample, 8)
    # smooth activations instead of ReLU, so that no unit is dead by chance
    encoder.cnn = torch.nn.Sequential(*(torch.nn.Softplus() if i % 2 else layer for i, layer in enumerate(encoder.cnn)))
    encoder.mlp = torch.nn.Identity()
    seen = influence(encoder, torch.rand(1, 2, 3, height, width))
    columns = width // downsample
    assert encoder.grid == (height // downsample, columns)
    assert seen.shape[:2] == (2, height // downsample * columns)
    for frame in range(2):
        assert not seen[frame, :, 1 - frame].any(), "tokens of a frame read another frame"
        for token in range(seen.shape[1]):
            reached = seen[frame, token, frame] > 0
            # the field of view is centred on the token's cell, but for the edges of the image
            y, x = (token // columns + 0.5) * downsample - 0.5, (token % columns + 0.5) * downsample - 0.5
            field = len(channels) * 2 * downsample
            for centre, axis, size in ((y, 1, height), (x, 0, width)):
                lines = torch.arange(size).float()[reached.any(axis)]
                assert lines.min() <= centre <= lines.max()
                assert (lines - centre).abs().max() <= field
                if field <= centre < size - field:
                    assert (lines.mean() - centre).abs() <= downsample


def test_a_transposed_frame_has_transposed_cnn_tokens():
    usual, other = CNNEncoder(96, 64, (4, 5), 2, 8), CNNEncoder(64, 96, (4, 5), 2, 8)
    other.load_state_dict(usual.state_dict())
    with torch.no_grad():
        for index in (0, 2):
            other.cnn[index].weight.copy_(usual.cnn[index].weight.transpose(2, 3))
    other.positions = usual.positions.view(48, 32, 8).transpose(0, 1).flatten(0, 1)
    frames = torch.rand(1, 2, 3, 96, 64)
    found = other(frames.transpose(3, 4)).view(1, 2, 32, 48, 8).transpose(2, 3)
    torch.testing.assert_close(found, usual(frames).view(1, 2, 48, 32, 8), rtol=1e-4, atol=1e-5)


def test_cnn_tokens_know_their_place_and_not_their_time():
    encoder = CNNEncoder(8, 8, (4,), 1, 8)
    frames = torch.full((1, 2, 3, 8, 8), 0.5)
    tokens = encoder(frames)
    assert torch.equal(tokens[:, 0], tokens[:, 1])
    inner = tokens[0, 0].reshape(8, 8, 8)[2:6, 2:6].reshape(16, 8)
    # without a position all inner tokens of a uniform frame would be the same
    assert torch.cdist(inner, inner).fill_diagonal_(1).min() > 1e-4


def test_cnn_is_torchs_convolution():
    encoder = CNNEncoder(8, 8, (4, 5), 2, 8)
    frames = torch.rand(1, 1, 3, 8, 8)
    first, _, second, _ = encoder.cnn
    features = F.relu(F.conv2d(frames[0], first.weight, first.bias, stride=2, padding=1))
    features = F.relu(F.conv2d(features, second.weight, second.bias, stride=1, padding=1))
    tokens = encoder.project(features[0].permute(1, 2, 0).reshape(16, 5)) + sincos_grid(4, 4, 8)
    torch.testing.assert_close(encoder(frames)[0, 0], encoder.mlp(tokens))


# --- positions --------------------------------------------------------------------------------------------


def test_sincos_is_the_formula():
    position = torch.tensor([0, 1, 17])
    expected = torch.zeros(3, 8)
    for row, p in enumerate(position):
        for i in range(4):
            angle = p / 10_000 ** (i / 4)
            expected[row, i], expected[row, 4 + i] = torch.sin(angle), torch.cos(angle)
    torch.testing.assert_close(sincos(position, 8), expected)


def test_sincos_grid_embeds_the_row_then_the_column():
    grid = sincos_grid(3, 5, 16)
    assert grid.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            parts = [sincos(torch.tensor([i]), 8, period=100.0)[0] for i in (row, column)]
            torch.testing.assert_close(grid[5 * row + column], torch.cat(parts))


def test_no_two_cells_of_a_frame_share_a_position():
    grid = sincos_grid(64, 64, 16)
    assert torch.pdist(grid).min() > 1e-3
