"""Scores of predicted frames: squared error, PSNR, SSIM, and scores of Blinking Color Balls."""

import numpy as np

from slotssm.errors import InputError

BACKGROUND = 0
WHITE = 1

MAX_PSNR_DB = 100.0
"""Upper limit of PSNR, so that a perfect frame leaves the mean finite."""
SSIM_WINDOW_PX = 11
"""Side of the SSIM window; frames must not be smaller."""
SSIM_SIGMA_PX = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03

NEAR, FAR = 0.25, 0.75
"""How far floats lie outside of [0, 1] if a model erred, and if they have another range."""
FEW = 0.25
"""Share of floats that a model may predict farther than `NEAR` outside."""

ValueRange = tuple[float, float]
"""Values of black and white."""


def squared_error(true: np.ndarray, pred: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Mean squared error of each episode, pixels in [0, 1].

    Args:
        true: [E, ...], uint8 or floats in [0, 1].
        pred: the same shape.
        value_range: values of black and white in what is not uint8, such as (-1, 1); None refuses integers, and floats
            that are not in [0, 1] by more than a model may err.

    Returns:
        float64 [E].
    """
    error = (unit_range(true, value_range) - unit_range(_alike(pred, true), value_range)) ** 2
    return error.reshape(len(error), -1).mean(axis=1)


def rollout_mse(
    true: np.ndarray, pred: np.ndarray, num_context: int, value_range: ValueRange | None = None
) -> np.ndarray:
    """Mean squared error of every roll-out step and episode; context frames do not count.

    Args:
        true: [E, T, H, W, C], uint8 or in [0, 1].
        pred: the same shape.
        num_context: number of context frames.
        value_range: see `squared_error`.

    Returns:
        float64 [E, T - num_context].
    """
    pred = _alike(pred, true)
    error = (unit_range(true[:, num_context:], value_range) - unit_range(pred[:, num_context:], value_range)) ** 2
    return error.reshape(*error.shape[:2], -1).mean(axis=2)


def psnr(true: np.ndarray, pred: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio of every frame in dB: -10 log10 of its squared error, at most `MAX_PSNR_DB`.

    Args:
        true: [E, T, H, W, C], uint8 or in [0, 1]; the peak is 1.
        pred: the same shape.
        value_range: see `squared_error`.

    Returns:
        float64 [E, T].
    """
    return -10 * np.log10(np.maximum(rollout_mse(true, pred, 0, value_range), 10 ** (-MAX_PSNR_DB / 10)))


def ssim(true: np.ndarray, pred: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Structural similarity of every frame (Wang et al. 2004), the mean over positions and channels.

    Gaussian window of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, population variances, and only
    windows inside the frame, as in scikit-image's
    `structural_similarity(..., gaussian_weights=True, use_sample_covariance=False)`.

    Args:
        true: [E, T, H, W, C], uint8 or in [0, 1].
        pred: the same shape.
        value_range: see `squared_error`.

    Returns:
        float64 [E, T].

    Raises:
        InputError: shapes differ, or frames are smaller than the window.
    """
    height, width = np.shape(true)[2:4]
    if min(height, width) < SSIM_WINDOW_PX:
        raise InputError(f"frames of {width} x {height} px are smaller than the {SSIM_WINDOW_PX} px window of SSIM")
    # one episode at a time, to limit the memory of filtered float64 copies
    pairs = zip(unit_range(true, value_range), unit_range(_alike(pred, true), value_range), strict=True)
    return np.array([_similarity(x, y) for x, y in pairs]).reshape(np.shape(true)[:2])


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SSIM of the frames of one episode, float64 [T, H, W, C] to [T]."""
    from scipy.ndimage import gaussian_filter

    radius = SSIM_WINDOW_PX // 2

    def local(values: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter(values, SSIM_SIGMA_PX, axes=(1, 2), radius=radius)
        return blurred[:, radius:-radius, radius:-radius]

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    structure = (2 * covariance + SSIM_K2**2) / (variances + SSIM_K2**2)
    luminance = (2 * mean_x * mean_y + SSIM_K1**2) / (mean_x**2 + mean_y**2 + SSIM_K1**2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def unit_range(pixels: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Frames as float64 with black at 0 and white at 1.

    Args:
        pixels: uint8, floats in [0, 1], or what `value_range` says.
        value_range: values of black and white in what is not uint8.

    Raises:
        InputError: without `value_range`, they are integers other than uint8, or floats far outside [0, 1].
    """
    array = np.asarray(pixels)
    if array.dtype == np.uint8:
        return array.astype(np.float64) / 255
    if array.dtype.kind not in "iuf":
        raise InputError(f"frames must be numbers, found {array.dtype}")
    if value_range is not None:
        black, white = value_range
        if not (np.isfinite(value_range).all() and black < white):
            raise InputError(f"value_range {value_range} must be the values of black and white, such as (-1, 1)")
        return (array.astype(np.float64) - black) / (white - black)
    if array.dtype.kind in "iu":
        raise InputError(f"frames are {array.dtype}; give uint8, or their range as value_range, such as (0, 255)")
    if not seems_in_unit_range(array):
        raise InputError(
            f"frames are floats from {array.min():g} to {array.max():g} rather than in [0, 1]; give their range as "
            "value_range, such as (-1, 1)"
        )
    return array.astype(np.float64)


def seems_in_unit_range(pixels: np.ndarray) -> bool:
    """Whether floats are those of pixels in [0, 1], from which predictions of a model may stray."""
    outside = np.maximum(-pixels, pixels - 1)
    return bool(outside.max(initial=0) < FAR and (outside > NEAR).mean() <= FEW) if pixels.size else True


def _alike(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    if np.shape(pred) != np.shape(true):
        raise InputError(f"frames of shapes {np.shape(true)} and {np.shape(pred)} cannot be compared")
    return pred


def color_accuracy(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Share of the target's ball pixels with the correct colour class, by episode; NaN if there is no ball.

    Args:
        true: [E, H, W] pixel classes, 0 background.
        pred: [E, H, W] pixel classes.

    Returns:
        float64 [E].
    """
    balls = true != BACKGROUND
    return _ratio(balls & (true == pred), balls)


def position_iou(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """IoU of true and predicted ball pixels, regardless of colour, by episode; NaN if both are empty.

    Args:
        true: [E, H, W] pixel classes, 0 background.
        pred: [E, H, W] pixel classes.

    Returns:
        float64 [E].
    """
    ours, theirs = true != BACKGROUND, pred != BACKGROUND
    return _ratio(ours & theirs, ours | theirs)


def all_white_error(target: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Squared error of the all-white baseline, which draws every ball at its true position in white, by episode.

    A model has remembered colours only if its error is below the mean of this baseline on the same file (about 0.0353
    after 5 context frames and 0.0436 after 10 at the paper's geometry).

    Args:
        target: [E, H, W] pixel classes of the targets.
        palette: uint8 [C, 3].

    Returns:
        float64 [E].
    """
    white = np.where(target != BACKGROUND, WHITE, BACKGROUND)
    return squared_error(palette[target], palette[white])


def nearest_classes(frames: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Pixel classes of RGB frames, by the nearest palette colour.

    Args:
        frames: [..., 3], uint8 or floats in [0, 1].
        palette: uint8 [C, 3].

    Returns:
        int64 [...].
    """
    pixels = frames.astype(np.float32) * (1 if frames.dtype == np.uint8 else 255)
    best, classes = np.full(pixels.shape[:-1], np.inf, np.float32), np.zeros(pixels.shape[:-1], np.int64)
    for index, color in enumerate(palette.astype(np.float32)):
        distance = ((pixels - color) ** 2).sum(-1)
        classes[distance < best] = index
        best = np.minimum(best, distance)
    return classes


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    count = whole.reshape(len(whole), -1).sum(1)
    share = part.reshape(len(part), -1).sum(1) / np.maximum(count, 1)
    return np.where(count > 0, share, np.nan)
