"""The data set of a run: an existing file, or one generated from a recipe and reused."""

import hashlib
import json
import time
from pathlib import Path

import generators  # noqa: F401  registers the generators of recipes
from generators.writer import ProgressCallback, generate
from slotssm.config import DataConfig, FileData, RunConfig
from slotssm.data.contents import known_content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.data.generator import generator_of
from slotssm.data.spec import DataSpec, read_spec, spec_from_layout
from slotssm.errors import BusyError, InputError

DATA = Path("data")


def spec_of(data: DataConfig) -> DataSpec:
    """Specification of a data set, from the file or, without generating any episode, from the recipe."""
    if isinstance(data, FileData):
        return spec_of_file(Path(data.path))
    generator = generator_of(data.recipe)
    return spec_from_layout(generator.layout(), generator.attributes())


def spec_of_file(path: Path) -> DataSpec:
    """Specification of an episode file."""
    with EpisodeFile(path) as episodes:
        return read_spec(episodes)


def own_data_path(config: RunConfig, folder: Path = DATA) -> Path:
    """Path of the data set of a configuration.

    The name of a generated file contains a hash of recipe, numbers of episodes and seed.
    """
    if isinstance(config.data, FileData):
        return Path(config.data.path)
    content = json.dumps(config.data.model_dump(mode="json"), sort_keys=True)
    return folder / f"{config.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.h5"


def ensure_own_data(
    config: RunConfig, folder: Path = DATA, on_progress: ProgressCallback = lambda done, total: None
) -> Path:
    """Path of the data set of a configuration, which is generated from its recipe unless the file exists.

    An interrupted generation is resumed; if another process is generating the file, this call waits for it.

    Raises:
        InputError: the file that the configuration names is missing or has other content.
    """
    path = own_data_path(config, folder)
    if isinstance(config.data, FileData):
        check_is_named(config.data)
        return path
    while not path.exists():
        try:
            generate(config.data, path, resume=True, on_progress=on_progress)
        except BusyError:
            time.sleep(0.5)
        except InputError:
            if not path.exists():  # else another process has just finished it
                raise
    return path


def file_data(path: Path, **counts: int | None) -> FileData:
    """Data configuration of an existing file, with its content hash."""
    return FileData(path=str(path.resolve()), sha256=known_content_hash(path), **counts)


def check_is_named(data: FileData) -> None:
    """Refuse a file whose content hash differs from the configuration."""
    path = Path(data.path)
    if data.sha256 and known_content_hash(path) != data.sha256:
        raise InputError(f"{path} is not the data set that data.sha256 names: its content hash differs")
