"""Pictures of data and predictions."""

from slotssm.evaluation.pictures.storyboards import (
    FIRST_EPISODES,
    as_bytes,
    count_slots,
    draw_data,
    draw_predictions,
)

__all__ = ["FIRST_EPISODES", "as_bytes", "count_slots", "draw_data", "draw_predictions"]
