"""Registries of time mixers, models, tasks and generators, from this package and from plugins.

An entry has a name, a configuration class and code. Configurations of runs are validated against the registered
entries, so that a plugin's entries (`slotssm.plugins`) are named in them like built-in ones.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from slotssm.documents import Choice, Config, load, nearest
from slotssm.errors import InputError

Code = TypeVar("Code")
Registered = TypeVar("Registered")


@dataclass(frozen=True)
class Entry(Generic[Code]):
    """Something that a configuration can name.

    Attributes:
        name: the value of `kind` in its configuration.
        config_class: its configuration.
        code: the class or function that makes it; see the functions `register_*`.
        plugin: the plugin that registered it; None for built-in entries.
    """

    name: str
    config_class: type[Config]
    code: Code
    plugin: str | None


class Registry(Choice, Generic[Code]):
    """Entries of one type by name; `Annotated[Base, registry]` is a field for the configuration of any of them.

    Args:
        noun: what an entry is, for messages.
        package: the package whose modules register the entries that come with slotssm; it is imported at the first
            look-up, so that reading no configuration costs no import.
        default: the entry of a configuration without `kind`; None makes `kind` required.
    """

    def __init__(self, noun: str, package: str, default: str | None = None) -> None:
        self.noun, self._package, self._default = noun, package, default
        self._entries: dict[str, Entry[Code]] = {}
        self._is_package_loaded = False

    def add(self, name: str, config_class: type[Config], code: Code) -> None:
        """Register an entry.

        Raises:
            InputError: the name is taken, or the configuration class does not have it as its `kind`.
        """
        field = config_class.model_fields.get("kind")
        if field is None or field.default != name:
            raise InputError(f"{self.noun} {name}: {config_class.__name__} needs the field kind: Literal[{name!r}]")
        plugin, known = _plugin_of(code), self._entries.get(name)
        if known is not None and known.plugin != plugin:
            raise InputError(
                f"{self.noun} {name} is already registered by {known.plugin or 'slotssm'}; choose another name"
            )
        self._entries[name] = Entry(name, config_class, code, plugin)

    def __getitem__(self, name: str) -> Entry[Code]:
        entries = self.entries()
        if name not in entries:
            raise InputError(f"{self.noun} {name!r} is unknown; {nearest(name, entries)}")
        return entries[name]

    def entries(self) -> Mapping[str, Entry[Code]]:
        """All entries by name."""
        if not self._is_package_loaded:
            self._is_package_loaded = True
            import_module(self._package)
        return self._entries

    def known(self) -> Mapping[str, Entry[Code]]:
        """Entries registered so far, without importing anything."""
        return self._entries

    def takes(self, config: Config) -> bool:
        """Whether a configuration belongs to an entry."""
        return any(type(config) is entry.config_class for entry in self.entries().values())

    def config_class(self, document: Any) -> type[Config]:
        """The class of a configuration that is given as a mapping.

        Raises:
            ValueError: it is not a mapping, or does not name an entry.
        """
        if not isinstance(document, Mapping):
            raise ValueError(f"a {self.noun} is a table with the key kind")
        names = self.entries()
        kind = document.get("kind", self._default)
        if kind is None:
            raise ValueError(f"kind is missing; there are {', '.join(names)}")
        if not isinstance(kind, str) or kind not in names:
            raise ValueError(f"kind {kind!r} is unknown; {nearest(str(kind), names)}")
        return names[kind].config_class


TIME_MIXERS: Registry[Callable[..., Any]] = Registry("time mixer", "slotssm.layers", default="mamba")
MODELS: Registry[Callable[..., Any]] = Registry("model", "slotssm.models")
TASKS: Registry[Any] = Registry("task", "slotssm.tasks")
GENERATORS: Registry[Any] = Registry("generator", "generators")
REGISTRIES: tuple[Registry[Any], ...] = (TIME_MIXERS, MODELS, TASKS, GENERATORS)

_OWN_PACKAGES = ("slotssm", "generators")
_loading: str | None = None


@contextmanager
def registering_for(plugin: str) -> Iterator[None]:
    """Attribute entries that are registered within this context to the named plugin."""
    global _loading
    before, _loading = _loading, plugin
    try:
        yield
    finally:
        _loading = before


def _plugin_of(code: Any) -> str | None:
    """The plugin that registers `code`; None for built-in code, even while a plugin imports it."""
    module = str(code.__module__)
    return None if module.split(".")[0] in _OWN_PACKAGES else _loading or module


def register_time_mixer(name: str, config_class: type[Config]) -> Callable[[Registered], Registered]:
    """Decorate a class or function that makes a time mixer (see `slotssm.layers.TimeMixer`).

    It is called with the width of a slot and all fields of its configuration except `kind`:
    `Mamba(dim, d_state=16, ...)`.

    Args:
        name: the value of `model.time_mixer.kind`.
        config_class: a `slotssm.config.TimeMixerConfig`.
    """
    return _decorator(TIME_MIXERS, name, config_class)


def register_model(name: str, config_class: type[Config]) -> Callable[[Registered], Registered]:
    """Decorate a class or function that makes a model (see `slotssm.models.SlotModel`) from its configuration.

    Afterwards it can also be called with the fields of its configuration as keywords:
    `OCSlotSSM(num_slots=4, slot_dim=32)`.

    Args:
        name: the value of `model.kind`.
        config_class: a `slotssm.config.ModelConfig`.
    """

    def decorate(code: Any) -> Any:
        taking, is_class = _taking_fields(code, config_class), inspect.isclass(code)
        made: Any = code if is_class else taking
        MODELS.add(name, config_class, made)
        if is_class:
            made.__init__ = taking
        return made

    return decorate


def register_task(name: str, config_class: type[Config]) -> Callable[[Registered], Registered]:
    """Decorate a `slotssm.tasks.Task`, which is called with (config, model, model_config, data).

    Args:
        name: the value of `task.kind`.
        config_class: a `slotssm.config.TaskConfig`.
    """
    return _decorator(TASKS, name, config_class)


def register_generator(name: str, config_class: type[Config]) -> Callable[[Registered], Registered]:
    """Decorate a `slotssm.data.generator.Generator`, which makes the episodes of a recipe.

    Args:
        name: the value of `data.recipe.kind`.
        config_class: a `slotssm.config.Recipe`.
    """
    return _decorator(GENERATORS, name, config_class)


def _decorator(registry: Registry[Any], name: str, config_class: type[Config]) -> Callable[[Registered], Registered]:
    def decorate(code: Registered) -> Registered:
        registry.add(name, config_class, code)
        return code

    return decorate


def _taking_fields(code: Any, config_class: type[Config]) -> Callable[..., Any]:
    """A function, or the `__init__` of a class, that takes a configuration or its fields as keywords."""
    is_class = inspect.isclass(code)
    original = code.__init__ if is_class else code
    known = list(inspect.signature(original).parameters.values())
    owner = known[:is_class]
    names = [each.name for each in known[len(owner) :] if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    position = names[0] if names else "config"
    fields = {name: field for name, field in config_class.model_fields.items() if name not in ("kind", position)}

    @functools.wraps(original)
    def taking(*arguments: Any, **values: Any) -> Any:
        given = arguments[len(owner) :]
        if position in values and position not in config_class.model_fields:
            given += (values.pop(position),)
        return original(*arguments[: len(owner)], _config_of(code.__name__, config_class, given, values))

    shown = [inspect.Parameter(position, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)]
    for name, field in fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        shown.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
    taking.__signature__ = inspect.Signature([*owner, *shown])  # type: ignore[attr-defined]
    return taking


def _config_of(name: str, config_class: type[Config], given: tuple[Any, ...], fields: Mapping[str, Any]) -> Config:
    """The configuration that a model is called with: an object, or its fields."""
    if not given:
        return load(config_class, fields, name)
    config = given[0]
    if len(given) > 1 or not isinstance(config, Config):
        raise InputError(
            f"{name} takes a {config_class.__name__} or its fields as keywords, such as num_slots=4, not "
            f"{', '.join(type(each).__name__ for each in given)}"
        )
    if fields:
        raise InputError(
            f"{name} takes a configuration or its fields, not both: write config.replace({next(iter(fields))}=...)"
        )
    return config


def entries_of(config: Config) -> list[Entry[Any]]:
    """The entries that a configuration names, at any depth."""
    known = {entry.config_class: entry for registry in REGISTRIES for entry in registry.known().values()}
    found = [known[type(config)]] if type(config) in known else []
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            found += entries_of(value)
    return found
