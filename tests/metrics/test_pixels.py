import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from generators.colors import COLORS
from slotssm.errors import InputError
from slotssm.metrics import all_white_error, color_accuracy, position_iou, psnr, rollout_mse, squared_error, ssim
from slotssm.metrics.pixels import nearest_classes

PALETTE = np.array([(0, 0, 0), *list(COLORS.values())[:6]], np.uint8)


def random_pair(shape=(2, 4, 3, 3, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, dtype=np.uint8), rng.random(shape).astype(np.float32)


# --- squared error ----------------------------------------------------------------------------------------


def test_squared_error_is_the_plain_loop():
    true, pred = random_pair()
    expected = []
    for episode, guess in zip(true, pred, strict=True):
        errors = [(int(a) / 255 - float(b)) ** 2 for a, b in zip(episode.flat, guess.flat, strict=True)]
        expected.append(sum(errors) / len(errors))
    np.testing.assert_allclose(squared_error(true, pred), expected, rtol=1e-12)


def test_rollout_error_is_the_plain_loop_by_step():
    true, pred = random_pair()
    for num_context in range(4):
        found = rollout_mse(true, pred, num_context)
        assert found.shape == (2, 4 - num_context)
        for e in range(2):
            for s in range(4 - num_context):
                error = true[e, num_context + s] / 255 - pred[e, num_context + s].astype(float)
                assert found[e, s] == pytest.approx((error**2).mean(), rel=1e-12)


def test_bytes_are_scaled_before_they_are_subtracted():
    # in uint8 arithmetic 0 - 255 would be 1
    black, white = np.zeros((1, 1, 2, 2, 3), np.uint8), np.full((1, 1, 2, 2, 3), 255, np.uint8)
    assert squared_error(black, white).tolist() == [1]
    assert squared_error(black, white.astype(np.float32) / 255).tolist() == [1]
    assert rollout_mse(white, black, 0).tolist() == [[1]]


def test_context_frames_never_count():
    true, pred = random_pair()
    other = pred.copy()
    other[:, :2] = 7
    np.testing.assert_array_equal(rollout_mse(true, pred, 2), rollout_mse(true, other, 2))


def test_mean_is_over_episodes_not_over_batches():
    true, pred = random_pair((5, 1, 3, 3, 3))
    parts = [squared_error(true[:2], pred[:2]), squared_error(true[2:], pred[2:])]
    np.testing.assert_array_equal(np.concatenate(parts), squared_error(true, pred))


def test_frames_of_other_shapes_are_refused():
    true, pred = random_pair()
    with pytest.raises(InputError, match="cannot be compared"):
        squared_error(true, pred[:, :1])
    with pytest.raises(InputError, match="cannot be compared"):
        rollout_mse(true, pred[:, :, :1], 0)


# --- PSNR and SSIM ----------------------------------------------------------------------------------------


def similar_pair(shape=(2, 3, 14, 19, 3), seed=0):
    """Videos that resemble each other: floats, and the same with noise."""
    rng = np.random.default_rng(seed)
    true = rng.random(shape)
    return true, (true + 0.1 * rng.normal(size=shape)).clip(0, 1)


def by_frame(score, true, pred):
    return [[score(a, b) for a, b in zip(x, y, strict=True)] for x, y in zip(true, pred, strict=True)]


def test_psnr_is_that_of_scikit_image():
    true, pred = similar_pair()
    expected = by_frame(lambda a, b: peak_signal_noise_ratio(a, b, data_range=1), true, pred)
    np.testing.assert_allclose(psnr(true, pred), expected, rtol=1e-12)


def test_psnr_of_bytes_has_the_closed_form():
    true = np.full((1, 2, 4, 4, 3), 100, np.uint8)
    pred = np.stack([true[:, 0] + 1, true[:, 0] + 155], 1)
    expected = [[20 * math.log10(255), 20 * math.log10(255 / 155)]]
    np.testing.assert_allclose(psnr(true, pred), expected, rtol=1e-12)
    # black against white is the worst that there is
    assert psnr(np.zeros_like(true), np.full_like(true, 255)).tolist() == [[0, 0]]


def test_psnr_of_equal_frames_is_capped():
    true, pred = similar_pair()
    pred[0, 1] = true[0, 1]
    pred[0, 2] = true[0, 2] + 1e-7
    scores = psnr(true, pred)
    assert scores[0, 1:].tolist() == [100, 100]
    assert (np.delete(scores.ravel(), [1, 2]) < 30).all()


@pytest.mark.parametrize("shape", [(2, 3, 14, 19, 3), (1, 2, 11, 11, 1), (1, 1, 64, 64, 3)])
def test_ssim_is_that_of_scikit_image(shape):
    true, pred = similar_pair(shape)

    def score(a, b):
        options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1, "channel_axis": -1}
        return structural_similarity(a, b, **options)

    np.testing.assert_allclose(ssim(true, pred), by_frame(score, true, pred), rtol=0, atol=1e-12)
    # images with large flat parts, as the videos here have them
    true, pred = (true > 0.9).astype(float), (pred > 0.9).astype(float)
    np.testing.assert_allclose(ssim(true, pred), by_frame(score, true, pred), rtol=0, atol=1e-12)


def test_ssim_of_flat_frames_has_the_closed_form():
    low, high = np.full((1, 1, 12, 12, 3), 0.25), np.full((1, 1, 12, 12, 3), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(low, high)[0, 0] == pytest.approx(expected, rel=1e-12)


def test_ssim_is_one_for_equal_frames_alone_and_symmetric():
    true, pred = similar_pair()
    np.testing.assert_allclose(ssim(true, true), 1, rtol=1e-12)
    assert (ssim(true, pred) < 0.99).all()
    np.testing.assert_allclose(ssim(true, pred), ssim(pred, true), rtol=1e-12)
    # a frame of a video is scored alone
    np.testing.assert_array_equal(ssim(true, pred)[:, 1:2], ssim(true[:, 1:2], pred[:, 1:2]))


def test_ssim_of_bytes_is_that_of_their_pixels():
    true, pred = random_pair((1, 2, 12, 12, 3))
    np.testing.assert_allclose(ssim(true, pred), ssim(true / 255, pred), rtol=1e-12)


def test_ssim_of_no_episodes_is_empty():
    assert ssim(np.zeros((0, 2, 12, 12, 3)), np.zeros((0, 2, 12, 12, 3))).shape == (0, 2)


def test_frames_without_similarity_are_refused():
    true, pred = similar_pair((1, 2, 10, 30, 3))
    with pytest.raises(InputError, match="frames of 30 x 10 px are smaller than the 11 px window"):
        ssim(true, pred)
    true, pred = similar_pair()
    for score in (psnr, ssim):
        with pytest.raises(InputError, match="cannot be compared"):
            score(true, pred[:, :1])


# --- Blinking Color Balls ---------------------------------------------------------------------------------


def random_classes(seed=0, shape=(4, 6, 6)):
    rng = np.random.default_rng(seed)
    return rng.choice(7, shape, p=[0.5, *[0.5 / 6] * 6])


def test_scores_of_classes_are_the_plain_loops():
    true, pred = random_classes(0), random_classes(1)
    for e in range(4):
        pairs = list(zip(true[e].flat, pred[e].flat, strict=True))
        balls = [(a, b) for a, b in pairs if a]
        assert color_accuracy(true, pred)[e] == sum(a == b for a, b in balls) / len(balls)
        both, either = sum(bool(a and b) for a, b in pairs), sum(bool(a or b) for a, b in pairs)
        assert position_iou(true, pred)[e] == both / either


def test_worked_example_of_colour_and_position():
    true = np.array([[[0, 2, 2], [0, 3, 3]]])
    pred = np.array([[[2, 2, 2], [0, 4, 0]]])
    # of 4 ball pixels 2 have their colour; balls overlap on 3 of 5 pixels
    assert color_accuracy(true, pred).tolist() == [0.5]
    assert position_iou(true, pred).tolist() == [0.6]


def test_episodes_without_balls_have_no_score():
    nothing, one = np.zeros((1, 2, 2), int), np.array([[[0, 0], [0, 1]]])
    assert np.isnan(color_accuracy(nothing, one)).all()
    assert np.isnan(position_iou(nothing, nothing)).all()
    assert position_iou(nothing, one).tolist() == [0]
    assert position_iou(one, nothing).tolist() == [0]


def test_colour_does_not_move_a_ball():
    true = random_classes()
    recoloured = np.where(true > 0, true % 6 + 1, 0)
    assert position_iou(true, recoloured).tolist() == [1] * 4
    assert color_accuracy(true, recoloured).tolist() == [0] * 4


def test_all_white_error_is_the_share_of_wrong_channels():
    target = random_classes()
    # white differs from red and blue in two channels of three, from yellow, magenta and cyan in one
    wrong = np.array([0, 0, 2, 2, 1, 1, 1]) / 3
    expected = wrong[target].mean(axis=(1, 2))
    np.testing.assert_allclose(all_white_error(target, PALETTE), expected, rtol=1e-12)
    assert all_white_error(np.where(target > 0, 1, 0), PALETTE).tolist() == [0] * 4


@pytest.mark.parametrize(("num_context", "floor"), [(5, 0.0353), (10, 0.0436)])
def test_all_white_error_has_the_papers_value_at_its_geometry(num_context, floor):
    # 4 balls of 101.5 pixels of 4096; each draw takes one ball of four and one colour of five
    rng = np.random.default_rng(0)
    target = np.zeros((3000, 64, 64), np.uint8)
    drawn = rng.random((3000, 4)) >= 0.75**num_context
    colors = np.where(drawn, rng.integers(2, 7, (3000, 4)), 1)
    for ball in range(4):
        # 101 or 102 pixels: 101.5 on average
        target.reshape(3000, -1)[::2, 200 * ball : 200 * ball + 101] = colors[::2, ball, None]
        target.reshape(3000, -1)[1::2, 200 * ball : 200 * ball + 102] = colors[1::2, ball, None]
    assert all_white_error(target, PALETTE).mean() == pytest.approx(floor, abs=5e-4)


def test_nearest_classes_are_the_plain_search():
    frames, floats = random_pair((3, 5, 5, 3))
    for pixels, scale in ((frames, 1), (floats, 255)):
        distance = np.linalg.norm(pixels[..., None, :].astype(float) * scale - PALETTE.astype(float), axis=-1)
        np.testing.assert_array_equal(nearest_classes(pixels, PALETTE), distance.argmin(-1))


def test_classes_of_the_palette_are_exact_in_bytes_and_floats():
    classes = random_classes()
    assert (nearest_classes(PALETTE[classes], PALETTE) == classes).all()
    assert (nearest_classes((PALETTE[classes] / 255).astype(np.float32), PALETTE) == classes).all()


@pytest.mark.parametrize("score", [squared_error, psnr, ssim, lambda *a, **k: rollout_mse(*a, 0, **k)])
def test_frames_of_another_range_are_refused_or_rescaled(score):
    true = np.random.default_rng(0).integers(0, 256, (2, 3, 12, 12, 3)).astype(np.uint8)
    pred = np.random.default_rng(1).integers(0, 256, true.shape).astype(np.uint8)
    expected = score(true, pred)
    signed = pred / 127.5 - 1
    with pytest.raises(InputError, match=r"floats from -1 to 1 rather than in \[0, 1\]; .* value_range, such as"):
        score(true, signed)
    np.testing.assert_allclose(score(true, signed, value_range=(-1, 1)), expected)
    for other in (pred.astype(np.int64), pred.astype(np.float64)):
        with pytest.raises(InputError, match="value_range"):
            score(true, other)
        np.testing.assert_allclose(score(true, other, value_range=(0, 255)), expected)
    with pytest.raises(InputError, match="black and white"):
        score(true, signed, value_range=(1, -1))
    np.testing.assert_allclose(score(true, pred / 255), expected)


def test_a_model_may_leave_the_range_a_little():
    true = np.zeros((1, 1, 12, 12, 3))
    assert squared_error(true, true - 0.2) == pytest.approx(0.04)
    few = true.copy()
    few[0, 0, 0, 0] = (-0.4, 1.4, 0.5)
    assert squared_error(true, few) == pytest.approx((0.4**2 + 1.4**2 + 0.5**2) / true.size)
    for wrong in (true - 0.4, few - 0.4):
        with pytest.raises(InputError, match="value_range"):
            squared_error(true, wrong)
