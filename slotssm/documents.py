"""Configuration documents: validated with one clear line, overlaid, read and printed.

Knows nothing of what is configured; `slotssm.config` does.
"""

import difflib
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from slotssm.errors import InputError


class Config(BaseModel):
    """Base of all configurations: immutable, and no unknown key passes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


AnyConfig = typing.TypeVar("AnyConfig", bound=Config)


def load(config_class: type[AnyConfig], document: Any, source: str) -> AnyConfig:
    """Validate `document`; the error names `source`, the key, and for an unknown key the nearest valid one."""
    try:
        return config_class.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{source}: {_first_fault(config_class, error)}") from None


def override(config: AnyConfig, changes: Mapping[str, Any], source: str) -> AnyConfig:
    """Return `config` with a nested mapping of changes laid over it.

    A change of `kind` starts that part afresh, since the fields of another kind do not carry over.
    """
    return load(type(config), merged(config.model_dump(mode="json"), changes), source)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `["train.num_steps=10", ...]` into a nested mapping; values are JSON where they parse as JSON."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(f"`assignments` {assignment}: expected KEY.PATH=VALUE, for example train.num_steps=100")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        target = changes
        *parents, leaf = path.strip().split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(f"`assignments` {assignment}: {parent} was set to a value before")
        target[leaf] = value
    return changes


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of changes to a preset (or a whole configuration)."""
    try:
        # some editors of Windows put a byte order mark before the text
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"configuration file {path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"configuration file {path} is not readable TOML: {error}") from None


def merged(old: Any, new: Any) -> Any:
    """Lay nested changes over a document; a change of `kind` starts that part afresh."""
    if not (isinstance(old, dict) and isinstance(new, Mapping)):
        return new
    if "kind" in new and new["kind"] != old.get("kind"):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def _first_fault(config_class: type[Config], error: ValidationError) -> str:
    """One line for the first fault: unknown keys before missing ones, since a typo causes both."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        names = _field_names(config_class, path[:-1])
        near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"valid names: {', '.join(names)}"
        return f"unknown key {'.'.join(_without_tags(config_class, path))}; {hint}"
    where = ".".join(_without_tags(config_class, path))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _parts(config_class: type[Config], path: Sequence[str]) -> list[tuple[str, type[Config] | None]]:
    """Walk an error path; each step gives its name ("" for a union's tag) and the class it leads to."""
    steps: list[tuple[str, type[Config] | None]] = []
    options: list[type[Config]] = [config_class]
    for name in path:
        tagged = [
            option
            for option in options
            if option.model_fields.get("kind") and option.model_fields["kind"].default == name
        ]
        if tagged and len(options) > 1:
            options = tagged
            steps.append(("", tagged[0]))
            continue
        field = next((option.model_fields[name] for option in options if name in option.model_fields), None)
        options = _config_classes(field.annotation) if field else []
        steps.append((name, options[0] if len(options) == 1 else None))
    return steps


def _config_classes(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _config_classes(argument)]


def _without_tags(config_class: type[Config], path: Sequence[str]) -> list[str]:
    return [name for name, _ in _parts(config_class, path) if name]


def _field_names(config_class: type[Config], path: Sequence[str]) -> list[str]:
    steps = _parts(config_class, path)
    found = steps[-1][1] if steps else config_class
    return list(found.model_fields) if found else []


def as_toml(config: Config) -> str:
    """The configuration as TOML with dotted keys, as `read_toml` reads it."""
    return "\n".join(f"{path} = {value}" for path, value in _toml_lines(config.model_dump(mode="json"), ""))


def _toml_lines(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _toml_lines(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", json.dumps(value)
