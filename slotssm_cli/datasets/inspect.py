"""`slotssm inspect` and `slotssm doctor`."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import SlotSSMError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import human_bytes, note, number, result, result_facts, result_json, result_table


def inspect(
    path: Annotated[Path, typer.Argument(help="Episode file or run directory.")],
    plugin: options.Plugin = None,
    with_hash: Annotated[
        bool, typer.Option("--hash", help="Also print the SHA-256 of the content (reads the whole file).")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print every field of an episode file with shape, dtype, unit and statistics, or describe a run."""
    if path.is_dir():
        _inspect_run(path, json)
    else:
        _inspect_data(path, with_hash, json)


def _inspect_data(path: Path, with_hash: bool, json: bool) -> None:
    from slotssm.data.contents import describe

    facts = describe(path, with_hash)
    if json:
        result_json(facts)
        return
    attributes = {name: _parsed(value) for name, value in facts["attrs"].items()}
    result_facts(attributes | ({"content sha256": facts["content_sha256"]} if with_hash else {}))
    result("")
    rows = [
        (
            f"{field['split']}/{field['name']}",
            "×".join(map(str, field["shape"])),
            field["dtype"],
            field["unit"],
            f"{field['compression']}, {human_bytes(field['stored_bytes'])}",
            _statistics(field),
        )
        for field in facts["fields"]
    ]
    result_table("", ("field", "shape", "dtype", "unit or categories", "stored", "min / mean / max, or shares"), rows)


def _statistics(field: dict[str, Any]) -> str:
    if field["shares"] is not None:
        return ", ".join(f"{name} {share:.1%}" for name, share in field["shares"].items())
    if field["minimum"] is None and not field["num_non_finite"]:
        return "–"
    text = " / ".join(number(field[key]) for key in ("minimum", "mean", "maximum"))
    return text + (f" ({field['num_non_finite']} not finite)" if field["num_non_finite"] else "")


def _parsed(attribute: Any) -> Any:
    """The content of an attribute that is a JSON document."""
    if not (isinstance(attribute, str) and attribute.startswith(("{", "["))):
        return attribute
    try:
        return jsonlib.loads(attribute)
    except ValueError:
        return attribute


def _inspect_run(path: Path, json: bool) -> None:
    from slotssm.documents import as_toml
    from slotssm.experiments.runs import describe_run
    from slotssm.training.run import RunDirectory

    run = RunDirectory(path)
    facts = describe_run(run)
    if json:
        result_json(facts)
        return
    result_facts({name: value for name, value in facts.items() if name != "config"})
    result("")
    result(as_toml(run.config()))


def doctor(json: options.Json = False) -> None:
    """Check that everything slotssm needs works on this machine."""
    from slotssm.experiments.measurement.checkup import check_machine

    findings: list[Any] = check_machine()
    if json:
        result_json([{"check": item.name, "ok": item.ok, "detail": item.detail} for item in findings])
    else:
        rows = [("ok" if item.ok else "FAILED", item.name, item.detail) for item in findings]
        result_table("", ("", "check", "detail"), rows)
    failed = [item.name for item in findings if not item.ok]
    if failed:
        note(f"slotssm: these checks failed: {', '.join(failed)}")
        raise typer.Exit(SlotSSMError.exit_code)
