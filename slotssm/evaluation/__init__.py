"""Scores of a trained model, or of a predictions file, on an episode file."""

from slotssm.evaluation.evaluate import Report, Result, evaluate
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.pairing import compare, write_scores
from slotssm.evaluation.sources import FileSource, Source, TaskSource

__all__ = [
    "FileSource",
    "Report",
    "Result",
    "ScoringOptions",
    "Source",
    "TaskSource",
    "compare",
    "evaluate",
    "write_scores",
]
