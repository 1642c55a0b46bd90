"""Metrics as pure functions of arrays; docs/evaluation.md describes their conventions and alternatives."""

from slotssm.metrics.agreement import accuracy, balanced_accuracy, r2, r2_by_column, r2_interval, split_by_group
from slotssm.metrics.contingency import Tables, contingency, hard_masks, resize_labels
from slotssm.metrics.depth import (
    PIXEL_SCORES,
    MeanDepth,
    depth_regions,
    depth_score,
    is_measured,
    mean_of_known,
    pixel_scores,
)
from slotssm.metrics.pixels import (
    all_white_error,
    color_accuracy,
    position_iou,
    psnr,
    rollout_mse,
    squared_error,
    ssim,
)
from slotssm.metrics.scores import Scores, bootstrap_interval
from slotssm.metrics.segmentation import ari, fg_ari, match, mbo, miou
from slotssm.metrics.significance import PairedTest, paired_test
from slotssm.metrics.slot_use import are_weights, identity_switches, mask_entropy, used_slots
from slotssm.metrics.snitch import (
    cell_distance,
    cell_distances,
    cell_gaps,
    last_seen_cells,
    majority_share,
    snitch_cell,
    snitch_label,
    top_k_accuracy,
    top_k_hits,
)

__all__ = [
    "PIXEL_SCORES",
    "MeanDepth",
    "PairedTest",
    "Scores",
    "Tables",
    "accuracy",
    "all_white_error",
    "are_weights",
    "ari",
    "balanced_accuracy",
    "bootstrap_interval",
    "cell_distance",
    "cell_distances",
    "cell_gaps",
    "color_accuracy",
    "contingency",
    "depth_regions",
    "depth_score",
    "fg_ari",
    "hard_masks",
    "identity_switches",
    "is_measured",
    "last_seen_cells",
    "majority_share",
    "mask_entropy",
    "match",
    "mbo",
    "mean_of_known",
    "miou",
    "paired_test",
    "pixel_scores",
    "position_iou",
    "psnr",
    "r2",
    "r2_by_column",
    "r2_interval",
    "resize_labels",
    "rollout_mse",
    "snitch_cell",
    "snitch_label",
    "split_by_group",
    "squared_error",
    "ssim",
    "top_k_accuracy",
    "top_k_hits",
    "used_slots",
]
