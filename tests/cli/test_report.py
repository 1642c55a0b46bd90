"""`slotssm report`."""

import json

import pytest


def test_it_says_what_is_on_the_page(home, tmp_path, slotssm):
    out = tmp_path / "r.html"
    done = slotssm("report", "runs/tiny-oc-001", "--out", out, "--episodes", 2, "--metric", "mse", "--json")
    found = json.loads(done.out)
    assert (found["report"], found["bytes"], found["kind"]) == (str(out), out.stat().st_size, "runs")
    assert found["runs"][0]["metric"] == "mse" and len(found["runs"][0]["episodes"]) == 2
    text = out.read_text(encoding="utf-8")
    assert "slotssm train --config tiny-oc-seed0.toml --out runs/tiny-oc-001-again" in text
    again = slotssm("report", "runs/tiny-oc-001", "--out", out)
    assert again.code == 2 and "--force" in again.err
    assert slotssm("report", next((home / "data").glob("tiny-oc*.h5")), "--out", out, "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["data"], "neither a run"),
        (["runs/tiny-oc-001", "data"], "neither a run"),
        (["runs/tiny-oc-001", "--out", "report.pdf"], "must end in .html"),
        (["runs/tiny-oc-001", "--metric", "mes"], "did you mean mse?"),
        (["runs/tiny-oc-001", "--metric", "color-accuracy"], "possible: fg-ari"),
        (["runs/tiny-oc-001", "--split", "tset"], "has no split 'tset'"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(home, tmp_path, slotssm, arguments, message):
    extra = [] if "--out" in arguments else ["--out", tmp_path / "r.html"]
    done = slotssm("report", *arguments, *extra)
    assert done.code == 2 and len(done.error_lines) == 1 and message in done.err
    assert not (tmp_path / "r.html").exists()
