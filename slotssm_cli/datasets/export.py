"""`slotssm export`: convert episode files to formats that other projects read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, human_bytes, human_seconds, note, result, result_json

MOST_EPISODES = 10_000_000


def export(
    data: Annotated[Path, typer.Argument(help="Episode file.")],
    to: Annotated[str, typer.Option("--to", help="Format: webdataset, folder, numpy or zarr.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write.", show_default="beside the episode file")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Splits, comma-separated.", show_default="all")] = None,
    episodes: Annotated[
        str | None, typer.Option(help="Episodes of each split, for example 0-99,120.", show_default="all")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Largest number of episodes of each split.")] = None,
    fields: Annotated[
        str | None,
        typer.Option(help="Fields or groups, for example frames,masks,objects/color or objects.", show_default="all"),
    ] = None,
    frames_as: Annotated[
        str | None,
        typer.Option(
            help="Frames as npy or png (webdataset), or as png or lossy mp4 (folder).",
            show_default="npy (webdataset), png (folder)",
        ),
    ] = None,
    shard_mb: Annotated[
        float | None, typer.Option(help="Size of a webdataset shard in MiB.", show_default="256")
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Export an episode file for other projects: WebDataset shards, images, NumPy arrays or Zarr."""
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
        note("MP4 frames are lossy; masks and properties are exact")
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
            raise InputError(f"--episodes {word}: no file has that many; --limit sets the largest number to export")
        numbers += range(first, last + 1)
    if not numbers:
        raise InputError(f"--episodes {text!r}: expected numbers or ranges, for example 0-99,120")
    return numbers
