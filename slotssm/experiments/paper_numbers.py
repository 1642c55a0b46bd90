"""Results of the paper (arXiv 2406.12272, sections 7.1 to 7.4), most of them read off its figures.

The bars and curves are not labelled with numbers, so these were measured in the figures, with the stated error; those
of section 7.4 are printed in a table. NC: not converged; OOM: out of memory (as printed in the paper).
"""

LONG_CONTEXT_ERROR = 0.0002
"""Reading error of a bar's height."""
LONG_CONTEXT_ALL_WHITE_ERRORS = {6: 0.0353, 11: 0.0436}
"""Squared error of the all-white baseline at the paper's geometry, by number of frames T."""
_LONG_CONTEXT_MODELS = ("slotssm", "slot-transformer", "single-state-ssm", "slot-rnn", "rim")
_LONG_CONTEXT_ROWS: dict[tuple[str, int], tuple[float | str, ...]] = {
    ("earliest", 80): (0.0096, 0.0099, 0.0154, 0.0133, 0.0438),
    ("earliest", 320): (0.0089, 0.0096, 0.0439, 0.0443, 0.0450),
    ("earliest", 1280): (0.0090, "OOM", 0.0445, "NC", "NC"),
    ("frequent", 80): (0.0095, 0.0088, 0.0166, 0.0189, 0.0436),
    ("frequent", 320): (0.0097, 0.0087, 0.0438, 0.0441, 0.0448),
    ("frequent", 1280): (0.0092, "OOM", 0.0442, "NC", "NC"),
    ("frequent", 160): (0.0097, 0.0095, 0.0203, 0.0194, 0.0505),
    ("frequent", 640): (0.0104, 0.0093, 0.0502, 0.0550, "NC"),
    ("frequent", 2560): (0.0097, "OOM", 0.0501, "NC", "NC"),
}
LONG_CONTEXT = {
    (rule, length, model): value
    for (rule, length), row in _LONG_CONTEXT_ROWS.items()
    for model, value in zip(_LONG_CONTEXT_MODELS, row, strict=True)
}
"""Mean squared error of the rendering by (rule, L, model) (figure 6)."""

VIDEO_PREDICTION_STEPS = (15, 20, 25, 29)
"""Frames of the roll-out, counted from the first context frame, at which figure 4 was read."""
VIDEO_PREDICTION = {
    "slotssm": (0.05, 0.25, 0.59, 0.92),
    "slot-transformer": (0.07, 0.29, 0.65, 1.01),
    "rim": (0.47, 1.22, 1.68, 1.84),
    "split-ssm": (0.38, 1.42, 2.35, 2.78),
    "single-state-ssm": (0.64, 2.03, 2.85, 3.12),
    "transformer": (0.73, 2.08, 2.44, 2.68),
}
"""Error of each model at those frames (figure 4). The unit of that axis is unknown: compare order and ratios."""

OBJECT_CENTRIC_ERROR = 0.002
"""Reading error of a bar's height."""
OBJECT_CENTRIC = {
    "MOVi-A": {"oc-slotssm": (0.684, 0.546), "savi": (0.639, 0.433)},
    "MOVi-B": {"oc-slotssm": (0.440, 0.405), "savi": (0.412, 0.370)},
}
"""FG-ARI and mIoU by data set and model (figure 7)."""

SNITCH = {
    ("direct", "single-state-ssm"): (0.1027, 0.2721),
    ("direct", "slot-transformer"): (0.4109, 0.6224),
    ("direct", "slotssm"): (0.2564, 0.4503),
    ("direct", "oc-slotssm"): (0.6158, 0.8400),
    ("pre-trained", "single-state-ssm"): (0.4115, 0.6570),
    ("pre-trained", "slot-transformer"): (0.4921, 0.7024),
    ("pre-trained", "slotssm"): (0.5473, 0.7442),
    ("pre-trained", "oc-slotssm"): (0.6927, 0.9048),
}
"""Top-1 and top-5 accuracy on CATER by (training, model), as printed in table 1."""
