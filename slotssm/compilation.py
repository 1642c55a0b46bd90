"""numba's `njit` with a cache on disk where possible, and without a cache otherwise.

numba's own `cache=True` fails at import if no cache folder is writable (a read-only installation without a home
folder), and at the first call if the disk is full or a cache file is damaged. Here, each of these only costs the time
to compile again, and one warning on the logger `slotssm` says so.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba

# Private API of numba, checked with 0.62 to 0.68 (llvmlite 0.45 to 0.50): `FunctionCache` with `_impl_class`,
# `_index_key`, `load_overload`, `save_overload` and `flush`; `CompileResultCacheImpl` with `_locator_classes` and
# `get_filename_base`; `UserWideCacheLocator.from_function`; `Dispatcher._cache`; `codegen.get_host_cpu_features`.
# There is no public way to choose what a cache depends on, or to continue without one.
from numba.core import codegen, config, sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator

_log = logging.getLogger("slotssm")
# an environment variable, so that worker processes inherit it
_WARNED = "SLOTSSM_WARNED_OF_CACHE"


def cached_njit(key: Hashable = (), **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function with `numba.njit`, and cache its machine code on disk if possible.

    Args:
        key: what the machine code depends on besides the processor, the function's source file and the others in its
            folder, whose functions may be compiled into it.
        **options: options of `numba.njit` other than `cache`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        # with NUMBA_DISABLE_JIT, njit returns the function itself
        if dispatcher is not function:
            try:
                dispatcher._cache = _Cache(function, (key, _digest_of(Path(function.__code__.co_filename).parent)))
            except (OSError, RuntimeError) as error:
                _note(error)
        return dispatcher

    return decorate


@functools.cache
def _digest_of(folder: Path) -> str:
    """A digest of the source files in a folder; empty if they cannot be read."""
    try:
        return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))).hexdigest()
    except OSError:
        return ""


def target_processor() -> tuple[str, str]:
    """Name and features (as `+avx2,-avx512f,...`) of the processor that numba compiles for.

    This is the host processor unless NUMBA_CPU_NAME, NUMBA_CPU_FEATURES or NUMBA_ENABLE_AVX says otherwise.
    """
    name = llvm.get_host_cpu_name() if config.CPU_NAME is None else config.CPU_NAME
    features = codegen.get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return name, features


def _note(error: Exception) -> None:
    """Warn once, however many functions and worker processes are affected."""
    if not os.environ.get(_WARNED):
        os.environ[_WARNED] = "1"
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        _log.warning(
            "compiled functions cannot be cached on disk (%s): each process compiles them again, which takes a few "
            "seconds; set the environment variable NUMBA_CACHE_DIR to a writable folder",
            reason,
        )


class _HomeCacheLocator(UserWideCacheLocator):
    """The user's cache folder; without a home folder, numba would create a folder named `~` in the current one."""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Any:
        if os.name == "posix" and not os.environ.get("XDG_CACHE_HOME") and os.path.expanduser("~") == "~":
            return None
        return super().from_function(py_func, py_file)


class _CacheFiles(CompileResultCacheImpl):
    """Locations and names of the cache files.

    Each processor type has its own files: numba's index distinguishes processors, but the numbered data files that it
    refers to may be overwritten by another machine that compiles into the same home folder at the same time.
    """

    _locator_classes = [  # noqa: RUF012
        _HomeCacheLocator if locator is UserWideCacheLocator else locator
        for locator in CompileResultCacheImpl._locator_classes
    ]

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        processor = hashlib.sha256(repr(target_processor()).encode()).hexdigest()[:8]
        return f"{super().get_filename_base(fullname, abiflags)}-{processor}"


class _Cache(FunctionCache):
    """numba's cache of a function, in which every failure counts as a cache miss."""

    _impl_class = _CacheFiles

    def __init__(self, function: Callable[..., Any], key: Hashable) -> None:
        super().__init__(function)
        self._key = key

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(signature, codegen), self._key)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(signature, target_context)
        # unpickling a damaged file may raise anything
        except Exception as error:
            _note(error)
            self._clear()
            return None
        # processes that compile several signatures at the same time may overwrite each other's data files
        wanted = sigutils.normalize_signature(signature)[0]
        return found if found is not None and tuple(found.signature.args) == tuple(wanted) else None

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        # the function is compiled and can run even if saving it failed
        except Exception as error:
            _note(error)

    def _clear(self) -> None:
        """Empty the index, so that the next save replaces the unreadable entry."""
        try:
            self.flush()
        except OSError as error:
            _note(error)
