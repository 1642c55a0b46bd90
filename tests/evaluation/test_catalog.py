"""Every result states each convention that changes it."""

import inspect

import pytest

from slotssm import metrics
from slotssm.evaluation.catalog import METRICS
from slotssm.evaluation.options import ScoringOptions

# what the metric functions take, beside the pixels to leave out and what is an option of its own name
FUNCTIONS = {"fg-ari": metrics.fg_ari, "ari": metrics.ari, "miou": metrics.miou}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_those_of_the_function(name):
    keywords = {
        parameter.name
        for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    } - {"valid"}
    # with the background FG-ARI becomes ARI, which is another function
    expected = keywords | ({"include_background"} if name == "fg-ari" else set())
    assert set(METRICS[name].options) == expected


def test_mbo_is_miou_without_the_choice_of_matching():
    assert set(METRICS["mbo"].options) == set(METRICS["miou"].options) - {"matching"}


def test_every_stated_option_exists():
    for metric in METRICS.values():
        ScoringOptions().chosen(*metric.options)
