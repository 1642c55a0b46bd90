"""`slotssm export`: episode files in forms that other projects read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli import options
from slotssm_cli.terminal.console import Meter, human_bytes, human_seconds, note, result, result_json

MOST_EPISODES = 10_000_000


def export(
    data: Annotated[Path, typer.Argument(help="Episode file.")],
    to: Annotated[str, typer.Option("--to", help="webdataset, folder, numpy or zarr.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to make; by default beside DATA.")] = None,
    split: Annotated[str | None, typer.Option(help="Splits, comma-separated; all.")] = None,
    episodes: Annotated[str | None, typer.Option(help="Episodes of these splits, for example 0-99,120; all.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many episodes of each split.")] = None,
    fields: Annotated[
        str | None, typer.Option(help="Fields, for example frames,masks,objects/color, or groups: objects; all.")
    ] = None,
    frames_as: Annotated[
        str | None, typer.Option(help="npy or png in webdataset, png or mp4 (lossy) in folder; the first.")
    ] = None,
    shard_mb: Annotated[float | None, typer.Option(help="MiB of a shard of webdataset; 256.")] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Export an episode file for other projects: tar shards, pictures, arrays or Zarr."""
    from slotssm.data import exporters

    if shard_mb is not None and not shard_mb > 0:
        raise InputError(f"--shard-mb {shard_mb}: must be above 0")
    choices: dict[str, Any] = {
        "splits": None if split is None else options.words(split),
        "numbers": None if episodes is None else _numbers(episodes),
        "limit": limit,
        "fields": None if fields is None else options.words(fields),
        "frames_as": frames_as,
        "shard_bytes": None if shard_mb is None else int(shard_mb * 2**20),
    }
    target = out or exporters.default_folder(data, to)
    if dry_run:
        expected = exporters.estimate(data, to, **choices)
        facts = {"num_episodes": expected.num_episodes, "stored_bytes": expected.stored_bytes}
        if json:
            result_json({"dry_run": True, "path": str(target), **facts, "seconds": round(expected.seconds, 2)})
        else:
            result(
                f"{target}: {sum(expected.num_episodes.values())} episodes, about {human_bytes(expected.stored_bytes)} "
                f"in {human_seconds(expected.seconds)}"
            )
        return
    with Meter(f"export {target}", "episodes") as meter:
        done = exporters.export(data, to, target, **choices, force=force, on_progress=meter.update)
    if frames_as == "mp4":
        note("frames in MP4 are lossy; masks and properties are exact")
    if json:
        result_json(
            {
                "path": str(done.path),
                "form": to,
                "num_episodes": done.num_episodes,
                "num_files": done.num_files,
                "stored_bytes": done.stored_bytes,
                "seconds": round(done.seconds, 3),
            }
        )
    else:
        counts = ", ".join(f"{name} {count}" for name, count in done.num_episodes.items())
        result(f"{done.path}  {human_bytes(done.stored_bytes)} in {done.num_files} files  ({counts})")


def _numbers(text: str) -> list[int]:
    """`0-99,120` as whole numbers."""
    numbers: list[int] = []
    for word in options.words(text):
        first, last = options.whole_range(word, "--episodes")
        if last < first:
            raise InputError(f"--episodes {word}: the range ends before it begins")
        if last - first > MOST_EPISODES:
            raise InputError(f"--episodes {word}: no file has so many; --limit takes at most so many of what there is")
        numbers += range(first, last + 1)
    if not numbers:
        raise InputError(f"--episodes {text!r}: expected numbers or ranges, for example 0-99,120")
    return numbers
