"""`slotssm predict`."""

from pathlib import Path
from typing import Annotated

import typer

from slotssm.errors import InputError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, note, result, result_json


def predict(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run directory or checkpoint folder.", show_default="the newest in runs/"),
    ] = None,
    data: options.Data = None,
    split: options.Split = "test",
    video: Annotated[
        Path | None,
        typer.Option("--video", help="Video file, or folder of pictures, to predict instead of a data set."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Predictions file to write (.h5).")] = Path("predictions.h5"),
    overlay: Annotated[
        Path | None, typer.Option(help="Also write the video with the masks painted over it (.mp4).")
    ] = None,
    contours: Annotated[bool, typer.Option(help="Outline the slots in the overlay.")] = True,
    fps: Annotated[
        float | None,
        typer.Option(min=0.1, help="Frames per second of the overlay.", show_default="the video's, otherwise 10"),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="Outputs to write, comma-separated.",
            show_default="masks, slots, frames, depth and logits, as far as the model gives them",
        ),
    ] = None,
    hard_masks: Annotated[
        bool, typer.Option("--hard-masks", help="Write masks as labels instead of weights, in much smaller files.")
    ] = False,
    plugin: options.Plugin = None,
    device: options.Device = "auto",
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write the masks, slots and frames that a run predicts for a data set or a video, for eval --predictions."""
    from slotssm.experiments import predictions
    from slotssm.experiments.runs import data_of
    from slotssm.experiments.trained_model import load
    from slotssm.training.run import RunDirectory, newest_run

    if data is not None and video is not None:
        raise InputError("--data and --video exclude each other; leave out one")
    names = tuple(options.words(outputs or ""))
    target = predictions.Target(out, overlay, names, hard_masks, contours, fps, force)
    path = newest_run().path if run is None else run
    model = load(path, device)
    if video is not None:
        with Meter("predict", "frames") as meter:
            written = predictions.predict_video(model, video, split, target, meter.update, note)
    else:
        with Meter("predict", "episodes") as meter:
            if data is None and not RunDirectory(path).record.exists():
                raise InputError(f"{path} is a checkpoint; say what to predict with --data or --video")
            source = data or data_of(RunDirectory(path))
            written = predictions.predict_data(model, source, split, target, meter.update)
    if json:
        result_json({"run": str(path), **written.document()})
        return
    result(written.predictions)
    if written.overlay:
        result(written.overlay)
