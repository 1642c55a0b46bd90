"""A program that writes the small data set over and over, and is stopped before each of its file operations in turn.

`crash.py FOLDER SIGNAL FORCE` prints one JSON list: for every operation what was found after it and after the repair.
File operations are Python's audit events, so that what HDF5 does through a Python file is seen when that is opened.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from small_work import Make, small_work

from slotssm.data.contents import content_hash
from slotssm.data.sharding import write_episodes
from slotssm.errors import Interrupted
from slotssm.interrupts import Stopped, raise_signals

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
OLD, NEW = Make(seed=1), Make(seed=2)
SIZES = {"num_train": 5, "num_val": 0}


def write(out: Path, make: Make, **how: Any) -> bool:
    return write_episodes(small_work(make, **SIZES), out, **how)


def stopped_child(out: Path, number: int, count: int, force: bool) -> int:
    """Write in a process that gets the signal before operation `count`; gives its exit code."""
    child = os.fork()
    if child == 0:
        seen = 0

        def on_event(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in EVENTS and (seen or str(arguments[0]).endswith(".parts")):
                seen += 1
                if seen == count:
                    os.kill(os.getpid(), number)

        sys.addaudithook(on_event)
        code = 1
        try:
            raise_signals()  # as the command line does
            write(out, NEW, force=force)
            code = 0
        except (Interrupted, Stopped):
            code = 3
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            # a child that was not stopped has fewer operations than that
            os._exit(code if seen >= count else 100 + code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(out: Path) -> str:
    """Hash of the output, or what is wrong with it."""
    return content_hash(out) if out.exists() else "absent"


def main() -> None:
    folder, number, force = Path(sys.argv[1]), signal.Signals[sys.argv[2]], bool(int(sys.argv[3]))
    hashes = {}
    for name, make in (("old", OLD), ("new", NEW)):
        write(folder / f"{name}.h5", make)
        hashes[content_hash(folder / f"{name}.h5")] = name
    found: list[dict[str, Any]] = []
    for count in range(1, 1000):
        out = folder / str(count) / "d.h5"
        out.parent.mkdir()
        if force:
            shutil.copy(folder / "old.h5", out)
        code = stopped_child(out, number, count, force)
        if code >= 100:
            break
        after = hashes.get(state(out), state(out))
        is_new = write(out, NEW, resume=True, force=force)
        repaired = hashes.get(state(out), state(out))
        rest = sorted(path.name for path in out.parent.iterdir())
        found.append({"code": code, "after": after, "is_new": is_new, "repaired": repaired, "rest": rest})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
