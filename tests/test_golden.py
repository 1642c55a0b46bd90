"""What must not change unnoticed; `make golden` rewrites it, and the difference is reviewed."""

import importlib.util
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load(TESTS / "golden" / "rewrite.py")


@pytest.mark.parametrize("file", ["cli.txt", "parameters.txt"])
def test_surface_and_sizes(file):
    assert (TESTS / "golden" / file).read_text() == golden.GOLDEN[file]()


def test_first_losses_to_the_accuracy_of_another_machine():
    def parse(text):
        return {line.split()[0]: [float(word) for word in line.split()[1:]] for line in text.splitlines()}

    expected, found = parse((TESTS / "golden" / "losses.txt").read_text()), parse(golden.first_losses())
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=2e-3)


@pytest.mark.parametrize("builder", ["build_cli_reference.py", "build_configuration_reference.py"])
def test_generated_pages_are_up_to_date(builder):
    page = load(TESTS.parent / "docs" / builder)
    assert page.TARGET.read_text(encoding="utf-8") == page.reference(), "run `make docs`"
