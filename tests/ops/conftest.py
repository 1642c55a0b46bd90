"""Fixtures of the tests of `slotssm.ops`; this file's folder holds `scan_cases`, which all of them import."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from slotssm.ops import backends
from slotssm.ops.cpu import availability


# a process where annotations are not checked: torch.compile cannot look through the checks
@pytest.fixture(scope="module")
def as_users():
    """Calls a function as users do, in a process that lives as long as the module's tests."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result(timeout=120)


@pytest.fixture
def nothing_chosen(monkeypatch):
    """Backends are chosen, and kernels compiled, as for the first time."""
    monkeypatch.setattr(backends, "_automatic", {})
    monkeypatch.setattr(availability, "_failures", {})
