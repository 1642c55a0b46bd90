"""Scores as pure functions on arrays; conventions and their alternatives are described in docs/evaluation.md."""

from slotssm.metrics.agreement import accuracy, r2, split_by_group
from slotssm.metrics.pixels import (
    color_accuracy,
    position_iou,
    psnr,
    rollout_mse,
    squared_error,
    ssim,
    white_ball_floor,
)
from slotssm.metrics.scores import Scores, bootstrap_interval
from slotssm.metrics.segmentation import ari, fg_ari, hard_masks, match, mbo, miou, resize_labels
from slotssm.metrics.snitch import cell_distance, snitch_cell, snitch_label, top_k_accuracy

__all__ = [
    "Scores",
    "accuracy",
    "ari",
    "bootstrap_interval",
    "cell_distance",
    "color_accuracy",
    "fg_ari",
    "hard_masks",
    "match",
    "mbo",
    "miou",
    "position_iou",
    "psnr",
    "r2",
    "resize_labels",
    "rollout_mse",
    "snitch_cell",
    "snitch_label",
    "split_by_group",
    "squared_error",
    "ssim",
    "top_k_accuracy",
    "white_ball_floor",
]
