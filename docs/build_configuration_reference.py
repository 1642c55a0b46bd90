"""Write docs/configuration.md from the configuration classes: `python docs/build_configuration_reference.py`."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from slotssm.config import FileData, InitialConfig, ModelConfig, PhaseConfig, RecipeData, RunConfig, TrainConfig
from slotssm.documents import Config, summary
from slotssm.registry import GENERATORS, MODELS, TASKS, TIME_MIXERS, Registry

TARGET = Path(__file__).parent / "configuration.md"
HEAD = """# Configuration

This page is generated from the configuration classes (`make docs`).

A run is described by a preset, a TOML file, `--set`, or several of them, in this order of precedence: a file overrides
the preset, and `--set` overrides both. A complete configuration is saved in `run.json`, and a run depends on nothing
else but its data.

```console
$ slotssm presets                         # lists the presets
$ slotssm presets cpu-oc > mine.toml      # all keys with their descriptions, to edit
$ slotssm train --config mine.toml --set train.num_steps=4000 --set model.time_mixer.kind=s5
```

Keys are written with dots, in the file as well as after `--set`. Values of `--set` are JSON; text needs no quotes. A
change of `kind` replaces that part as a whole. An unknown key is refused, and the error suggests the nearest valid one.
Keys of [plugins](extending.md) are used in the same way.

In the tables, a dash marks a key without a default, which must be given, and `None` stands for no value: leave such a
key out of a TOML file; after `--set` it is `null`. A preset has values of its own for many of the keys.
"""
WORDS = {
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def table(config_class: type[Config], prefix: str, without: type[Config] | None = None) -> str:
    """The keys of a configuration as a Markdown table, except those that `without` has in the same form."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in config_class.model_fields.items():
        if name == "kind" or has_part(field):
            continue
        if (
            without is not None
            and name in without.model_fields
            and described(field) == described(without.model_fields[name])
        ):
            continue
        lines.append(f"| `{prefix}{name}` | {' | '.join(described(field))} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else "No further keys.\n"


def described(field: FieldInfo) -> tuple[str, str, str]:
    """Values, default and meaning of a key."""
    meaning = " ".join((field.description or "").split()).replace("|", "or")
    return shown_values(field), shown_default(field), meaning


def has_part(field: FieldInfo) -> bool:
    """Whether the value of a field is a configuration, which has a section of its own."""
    if typing.get_origin(field.annotation) is tuple:
        return False
    annotations = (field.annotation, *typing.get_args(field.annotation))
    return any(isinstance(each, type) and issubclass(each, Config) for each in annotations)


def shown_values(field: FieldInfo) -> str:
    """The values that a field may have, in words."""
    inside = [each for each in typing.get_args(field.annotation) if each is not type(None)]
    is_optional = type(None) in typing.get_args(field.annotation)
    words = shown_type(inside[0] if is_optional else field.annotation)
    limits = {
        sign: getattr(each, name) for each in field.metadata for name, sign in SIGNS.items() if hasattr(each, name)
    }
    # limits of 32 or 64 bits are those of the storage
    bounds = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if limit < 2**31)
    return " ".join(filter(None, (words, bounds, "or None" if is_optional else "")))


def shown_type(annotation: Any, is_several: bool = False) -> str:
    """A type in words, in the plural if there are several."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return shown_type(inside[0], is_several)
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin is tuple:
        count = "" if inside[-1] is Ellipsis else f"{len(inside)} "
        return f"list{'s' * is_several} of {count}{shown_type(inside[0], is_several=True)}"
    if origin is dict:
        return f"table of {shown_type(inside[1], is_several=True)}"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "tables" if is_several else "table"
    return WORDS[annotation][is_several]


def shown_default(field: FieldInfo) -> str:
    """The default as it is written in a TOML file."""
    if field.default is PydanticUndefined:
        return "–"
    return "None" if field.default is None else f"`{json.dumps(field.default)}`"


def entries(registry: Registry[Any], prefix: str, without: type[Config] | None = None) -> Iterator[str]:
    """A section for each entry that comes with slotssm."""
    for name, entry in sorted(registry.entries().items()):
        if entry.plugin is None:
            head = f'### {prefix}kind = "{name}"\n\n{summary(entry.config_class)}\n\n'
            yield head + table(entry.config_class, prefix, without)


def reference() -> str:
    """The whole page."""
    data = "## Data: `data`\n\nA data set is generated from a recipe, or is a file.\n\n### A recipe\n\n"
    models = "## Models: `model`\n\nAll models have these keys:\n\n"
    mixers = "SlotSSM, OC-SlotSSM, Single State SSM and Split SSM have a time mixer."
    sections = [
        HEAD,
        f"## The run\n\n{table(RunConfig, '')}",
        data + table(RecipeData, "data."),
        f"### A file\n\n{table(FileData, 'data.')}",
        "## Recipes: `data.recipe`\n",
        *entries(GENERATORS, "data.recipe."),
        "## Tasks: `task`\n",
        *entries(TASKS, "task."),
        models + table(ModelConfig, "model."),
        *entries(MODELS, "model.", ModelConfig),
        f"## Time mixers: `model.time_mixer`\n\n{mixers}\n",
        *entries(TIME_MIXERS, "model.time_mixer."),
        f"## Training: `train`\n\n[Training](training.md) explains many of them.\n\n{table(TrainConfig, 'train.')}",
        f"### Phases: `train.phases`\n\n{table(PhaseConfig, 'train.phases[].')}",
        f"### Initial weights: `train.initial`\n\n{table(InitialConfig, 'train.initial.')}",
    ]
    return "\n".join(sections)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
