"""Plugins: Python files that are named explicitly, and installed packages with the entry point `slotssm.plugins`.

A plugin is a Python file or module that calls `slotssm.registry.register_*` when it is imported. Runs and checkpoints
record which plugins they need, and cannot be read without them.
"""

import importlib.util
import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from slotssm.documents import Config
from slotssm.errors import InputError
from slotssm.registry import REGISTRIES, entries_of, registering_for

GROUP = "slotssm.plugins"
"""Entry point group of installed packages: each entry is a name and a module to import."""

_loaded: dict[str, Path | None] = {}


def load_plugin(path: Path) -> None:
    """Run a plugin file; a file that is already loaded is not run again.

    Raises:
        InputError: the file does not exist, or it raises an exception.
    """
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"plugin {path} is not a Python file")
    where = path.resolve()
    if _loaded.get(path.name) == where:
        return
    if path.name in _loaded:
        raise InputError(f"plugin {path}: another file of this name is loaded, {_loaded[path.name]}; rename one")
    name = f"slotssm_plugin_{path.stem}"
    found = importlib.util.spec_from_file_location(name, where)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        with registering_for(path.name):
            found.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        sys.modules.pop(name, None)
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"plugin {path} fails: {type(error).__name__}: {reason}") from error
    _loaded[path.name] = where


def loaded_plugins() -> list[Path]:
    """Plugin files that were loaded, for worker processes that must load them too."""
    return [path for path in _loaded.values() if path is not None]


def load_installed_plugins() -> None:
    """Import the plugins of installed packages; one that fails is skipped with a warning."""
    for point in entry_points(group=GROUP):
        if point.name in _loaded:
            continue
        _loaded[point.name] = None
        try:
            with registering_for(point.name):
                point.load()
        except Exception as error:
            logging.getLogger("slotssm").warning(
                "the installed plugin %s cannot be loaded: %s: %s", point.name, type(error).__name__, error
            )


def needed_plugins(config: Config) -> list[dict[str, str]]:
    """The plugin entries that a configuration names, each as `{"plugin", "registers"}`."""
    registered = {
        id(entry): f"{registry.noun} {name}" for registry in REGISTRIES for name, entry in registry.known().items()
    }
    found = [entry for entry in entries_of(config) if entry.plugin is not None]
    return [{"plugin": str(entry.plugin), "registers": registered[id(entry)]} for entry in found]


def refuse_missing(plugins: Any, source: Path) -> None:
    """Refuse to read a run or checkpoint that needs a plugin which is not loaded.

    Args:
        plugins: what `needed_plugins` returned when `source` was written.
        source: the file, for messages.

    Raises:
        InputError: names the plugin, or `plugins` is not what was written.
    """
    there = {f"{registry.noun} {name}" for registry in REGISTRIES for name in registry.known()}
    for each in plugins if isinstance(plugins, list) else []:
        registers = each.get("registers") if isinstance(each, dict) else None
        if not isinstance(registers, str):
            raise InputError(f"{source} is damaged: plugins has the wrong type")
        if registers not in there:
            raise InputError(f"{source} needs the plugin {each.get('plugin')} ({registers}); load it with `plugin`")
