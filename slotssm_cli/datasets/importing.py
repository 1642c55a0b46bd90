"""`slotssm import`: convert public data sets to episode files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, human_bytes, human_seconds, note, result, result_json


def import_data(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="movi, cater, clevrer, rnem, kubric, multi-object, rgbd, images or folder."
        ),
    ],
    src: Annotated[Path, typer.Argument(metavar="SRC", help="Downloaded file or folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Episode file to write.", show_default="a name under data/")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Size in pixels: 64, or 96x64 (width x height).", show_default="as in the source"),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Frames per episode: 24; 24/2 with a stride of 2; /2 for all at that stride.", show_default="all"
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(help="Part to keep before resizing: center, 16:9, or X,Y,W,H in pixels.", show_default="all"),
    ] = None,
    clip_length: Annotated[
        int | None,
        typer.Option("--clip-len", min=1, help="Cut videos into episodes of this many frames.", show_default="off"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Frames from the start of a clip to the next.", show_default="the length of a clip"),
    ] = None,
    clips: Annotated[str, typer.Option(help="Clips to take of each video: all or first.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Import only this many episodes of each split.")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split to import, or OURS=THEIRS to rename it; repeatable.", show_default="all"),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(help="Episodes (10) or share (0.1) for val, if the source has no splits.", show_default="0.1"),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Episodes (10) or share (0.1) for test, if the source has no splits.", show_default="0.1"),
    ] = None,
    seed: options.Seed = 0,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out damaged episodes, and list them, instead of stopping.")
    ] = False,
    depth: Annotated[bool, typer.Option("--depth", help="Also import depth maps (movi, kubric, folder).")] = False,
    depth_scale: Annotated[
        float | None,
        typer.Option("--depth-scale", help="Stored depth of a metre (rgbd, folder).", show_default="by the layout"),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks, or JSON annotations (folder, images, rgbd).", show_default="SRC/masks"),
    ] = None,
    binary_masks: Annotated[
        bool, typer.Option("--binary-masks", help="All values of a mask but 0 are one object (folder, images, rgbd).")
    ] = False,
    per_frame_ids: Annotated[
        bool, typer.Option("--per-frame-ids", help="Object ids in the masks are not stable over time (folder, rgbd).")
    ] = False,
    max_objects: Annotated[
        int | None,
        typer.Option(
            "--max-objects", min=1, help="Leave out scenes with more objects (multi-object).", show_default="all"
        ),
    ] = None,
    fixed_camera: Annotated[
        bool, typer.Option("--fixed-camera", help="The camera does not move: project positions (cater).")
    ] = False,
    workers: options.Workers = None,
    resume: options.Resume = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Import public data sets, videos, RGB-D sequences or images, with masks and properties, as an episode file."""
    from slotssm.data import importers
    from slotssm.data.sharding import usable_processors
    from slotssm.documents import load

    num_frames, step = _frames(frames)
    document = {
        "kind": _kind(kind, importers.KINDS),
        "size": _size(size),
        "num_frames": num_frames,
        "stride": step,
        "crop": crop,
        "clip_len": clip_length,
        "clip_stride": stride,
        "clips": clips,
        "limit": limit,
        "splits": [name for text in split or [] for name in options.words(text)],
        "val": _count(val, "--val"),
        "test": _count(test, "--test"),
        "seed": seed,
        "skip_damaged": skip_damaged,
        "depth": depth,
        "depth_scale": depth_scale,
        "masks": None if masks is None else str(masks),
        "binary_masks": binary_masks,
        "per_frame_ids": per_frame_ids,
        "max_objects": max_objects,
        "fixed_camera": fixed_camera,
    }
    asked = load(importers.ImportOptions, document, f"import {kind}")
    path = out or importers.default_path(src, kind)
    if dry_run:
        _print_result(importers.estimate(src, path, asked), json, dry_run=True)
        return
    with Meter(f"import {path}", "episodes") as meter:
        written = importers.import_data(src, path, asked, resume, force, meter.update, workers or usable_processors())
    if written.is_new:
        rate = written.num_frames / max(written.seconds, 1e-9)
        note(f"{written.num_frames} frames in {human_seconds(written.seconds)} ({rate:,.0f} frames/s)")
    else:
        note(f"{path} is already complete")
    _print_result(written, json, dry_run=False)


def _print_result(found: Any, json: bool, dry_run: bool) -> None:
    """Print the result, or with `dry_run` the estimate."""
    for line in found.notes:
        note(f"note: {line}")
    if json:
        document = {
            "path": str(found.path),
            "num_episodes": found.num_episodes,
            "num_frames": found.num_frames,
            "stored_bytes": found.stored_bytes,
            "seconds": round(found.seconds, 3),
            "notes": found.notes,
        }
        result_json({"dry_run": True, **document} if dry_run else document)
        return
    counts = ", ".join(f"{split} {count}" for split, count in found.num_episodes.items())
    if dry_run:
        result(
            f"{found.path}: {sum(found.num_episodes.values())} episodes ({counts}), {found.num_frames} frames, about "
            f"{human_bytes(found.stored_bytes)} in {human_seconds(found.seconds)}"
        )
    else:
        result(f"{found.path}  {human_bytes(found.stored_bytes)}  ({counts})")


def _kind(kind: str, kinds: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    if kind not in kinds:
        near = get_close_matches(kind, kinds, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}"
        raise InputError(f"import {kind}: unknown kind; {hint}")
    return kind


def _size(text: str | None) -> tuple[int, int] | None:
    """`64` or `96x64` as width and height."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height or width)
    except ValueError:
        raise InputError(f"--size {text}: expected pixels such as 64, or width x height such as 96x64") from None


def _frames(text: str | None) -> tuple[int | None, int]:
    """`24`, `24/2` or `/2` as number of frames and stride."""
    if text is None:
        return None, 1
    number, slash, stride = text.partition("/")
    try:
        found = (int(number) if number else None), (int(stride) if slash else 1)
    except ValueError:
        found = None, 0
    if found[1] < 1 or found[0] == 0 or not text.strip("/"):
        raise InputError(f"--frames {text}: expected a number such as 24, or number/stride such as 24/2")
    return found


def _count(text: str | None, option: str) -> int | float | None:
    """A number of episodes, or a share."""
    if text is None:
        return None
    try:
        value = int(text) if text.isdigit() else float(text)
    except ValueError:
        value = -1
    if value < 0 or (isinstance(value, float) and not value <= 1):
        raise InputError(f"{option} {text}: expected a number of episodes such as 10, or a share such as 0.1")
    return value
