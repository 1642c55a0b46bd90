"""Configuration documents: validation with one-line errors, overrides, reading and printing.

Independent of what is configured, which `slotssm.config` defines.
"""

import difflib
import json
import textwrap
import tomllib
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from slotssm.errors import InputError

COMMENT_WIDTH = 80
"""Width of the comments that describe the keys of a configuration."""
DESCRIBED_HEAD = "A key that is commented out, such as `#train.initial.run =`, has no value (None)."


class Config(BaseModel):
    """Base class of all configurations: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def replace(self, **changes: Any) -> Self:
        """A validated copy in which some fields have other values."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(values | changes)


class Choice(ABC):
    """In `Annotated[Base, choice]`: a field whose value determines the class that validates it."""

    @abstractmethod
    def config_class(self, document: Any) -> type[Config]:
        """The class for a value that has not been validated yet.

        Raises:
            ValueError: the value does not determine a class.
        """

    @abstractmethod
    def takes(self, config: Config) -> bool:
        """Whether an already validated configuration is a permitted value."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> Config:
            if not isinstance(value, Config):
                return self.config_class(value).model_validate(value)
            if not self.takes(value):
                raise ValueError(f"a configuration of type {type(value).__name__} is not permitted here")
            return value

        def serialize(value: Config, info: core_schema.SerializationInfo) -> dict[str, Any]:
            return value.model_dump(mode=info.mode)

        return core_schema.no_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(serialize, info_arg=True),
        )


AnyConfig = typing.TypeVar("AnyConfig", bound=Config)


def load(config_class: type[AnyConfig], document: Any, source: str) -> AnyConfig:
    """Validate `document`; the error names `source`, the key, and for an unknown key the nearest valid one."""
    try:
        return config_class.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{source}: {_first_fault(config_class, document, error)}") from None


def override(config: AnyConfig, changes: Mapping[str, Any], source: str) -> AnyConfig:
    """Return `config` with a nested mapping of changes applied.

    A change of `kind` replaces that part as a whole, since the fields of another kind do not carry over.
    """
    return load(type(config), merged(config.model_dump(mode="json"), changes), source)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `["train.num_steps=10", ...]` into a nested mapping; values are JSON, lists and tables of TOML, or text."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(f"`assignments` {assignment}: expected KEY.PATH=VALUE, for example train.num_steps=100")
        target, value = changes, _assigned(text.strip(), assignment)
        *parents, leaf = path.strip().split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(f"`assignments` {assignment}: {parent} was already set to a value")
        target[leaf] = value
    return changes


def _assigned(text: str, assignment: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if not text.startswith(("[", "{")):
            return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        raise InputError(f"`assignments` {assignment}: {text} is a list or table neither in JSON nor in TOML") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of changes to a preset (or a whole configuration)."""
    try:
        # some editors on Windows write a byte order mark before the text
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"configuration file {path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"configuration file {path} is not readable TOML: {error}") from None


def merged(old: Any, new: Any) -> Any:
    """Apply nested changes to a document; a change of `kind` replaces that part as a whole."""
    if not (isinstance(old, dict) and isinstance(new, Mapping)):
        return new
    if "kind" in new and new["kind"] != old.get("kind"):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def nearest(name: str, known: Iterable[str]) -> str:
    """What a message suggests for an unknown name: the nearest known one, or the list of all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"


def _first_fault(config_class: type[Config], document: Any, error: ValidationError) -> str:
    """One line about the first error: unknown keys before missing ones, since a typo causes both."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        found = _class_at(config_class, document, path[:-1])
        return f"unknown key {'.'.join(path)}; {nearest(path[-1], found.model_fields if found else ())}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {message}" if path else message


def _class_at(config_class: type[Config], document: Any, path: Sequence[str]) -> type[Config] | None:
    """The class of the part of a document at a path; None if that part is not a configuration."""
    found: type[Config] | None = config_class
    for name in path:
        if name.isdecimal() and isinstance(document, list | tuple):
            document = document[int(name)]
            continue
        field = found.model_fields.get(name) if found is not None else None
        document = document.get(name) if isinstance(document, Mapping) else getattr(document, name, None)
        found = _class_of(field, document) if field is not None else None
    return found


def _class_of(field: FieldInfo, value: Any) -> type[Config] | None:
    """The class that validates a field's value: determined by the value, or given by the annotation."""
    for marker in field.metadata:
        if isinstance(marker, Choice):
            try:
                return marker.config_class(value)
            except ValueError:
                return None
    annotations = (field.annotation, *typing.get_args(field.annotation))
    return next((each for each in annotations if isinstance(each, type) and issubclass(each, Config)), None)


def as_toml(config: Config) -> str:
    """The configuration as TOML with dotted keys, as `read_toml` reads it."""
    return "\n".join(_toml_lines(config.model_dump(mode="json"), ""))


def as_described_toml(config: Config) -> str:
    """The configuration as TOML in which a comment describes every key.

    Keys without a value, which TOML cannot express, are commented out: `#train.initial.run =`.
    """
    lines = [*_comment(DESCRIBED_HEAD), "", *_described_lines(config, "")]
    kept = [line for before, line in zip(["", *lines], lines, strict=False) if line or before]
    return "\n".join(kept).rstrip("\n")


def _toml_lines(document: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _toml_lines(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(each)}" for key, each in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)


def _described_lines(config: Config, prefix: str) -> Iterator[str]:
    document = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            # a part has a paragraph of its own
            yield ""
            yield from _comment(field.description)
            yield from _described_lines(value, f"{prefix}{name}.")
            yield ""
            continue
        yield from _comment(summary(type(config)) if name == "kind" else field.description)
        if value is None:
            yield from _left_out_lines(field, f"{prefix}{name}")
        else:
            yield from _toml_lines({name: document[name]}, prefix)


def _left_out_lines(field: FieldInfo, path: str) -> Iterator[str]:
    part = _class_of(field, None)
    if part is None:
        yield f"#{path} ="
        return
    for name, inner in part.model_fields.items():
        yield from _comment(inner.description)
        default = "" if inner.is_required() else f" {json.dumps(inner.default)}"
        yield f"#{path}.{name} ={default}"


def _comment(text: str | None) -> list[str]:
    return textwrap.wrap(" ".join((text or "").split()), COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ")


def summary(config_class: type[Config]) -> str:
    """The first line of the docstring of a configuration."""
    return (config_class.__doc__ or "").partition("\n")[0]
