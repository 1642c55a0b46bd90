"""`slotssm generate`: generate benchmark videos; `slotssm verify`: check a file against its recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slotssm.errors import InputError, SlotSSMError
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, human_bytes, human_seconds, note, result, result_json
from slotssm_cli.terminal.help import Application, OrderedGroup

_REGISTERED = "KIND"


class _Generators(OrderedGroup):
    """Treats names that are not subcommands as generators registered by plugins."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand, or the one that handles generators of plugins."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, _REGISTERED)


app = Application(
    cls=_Generators, no_args_is_help=True, help="Generate benchmark videos with exact masks and properties."
)

Out = Annotated[Path | None, typer.Option("--out", help="Episode file to write.", show_default="a name under data/")]


@app.command()
def bcb(
    length: Annotated[
        int | None, typer.Option("--len", min=1, help="Sequence length L = (T-1)·P²: 80, 160, 320, 640, 1280, 2560.")
    ] = None,
    rule: Annotated[str, typer.Option(help="Colour rule of the target: earliest or frequent.")] = "earliest",
    frames: Annotated[int | None, typer.Option(min=2, help="T, number of context frames plus the target.")] = None,
    patches: Annotated[
        int | None, typer.Option(min=1, help="P, patches per side of a frame; one patch per step.")
    ] = None,
    balls: Annotated[str, typer.Option(help="Number of balls, or a range such as 2-4.")] = "4",
    size: Annotated[int, typer.Option(help="Side of the frame in pixels.")] = 64,
    radius: Annotated[
        float | None, typer.Option(help="Radius of the balls in pixels.", show_default="5.68 at 64 px")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Speed in pixels per frame.", show_default="3.0 at 64 px")] = None,
    colors: Annotated[int, typer.Option(help="Number of non-white colours, 1 to 5.")] = 5,
    out: Out = None,
    train: options.NumTrain = 1000,
    val: options.NumVal = 100,
    test: options.NumTest = 100,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    part: options.Part = None,
    resume: options.Resume = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Blinking Color Balls (paper, section 7.2): which colour did each ball get, many steps ago?"""
    from generators.bcb import recipe_for_length

    recipe = recipe_for_length(
        length,
        frames,
        patches,
        rule=rule,
        **_balls(*options.whole_range(balls, "--balls")),
        size_px=size,
        radius_px=5.68 * size / 64 if radius is None else radius,
        speed_px_per_frame=3.0 * size / 64 if speed is None else speed,
        num_colors=colors,
    )
    counts = {"num_train": train, "num_val": val, "num_test": test}
    run_generator("bcb", recipe, None, counts, seed, out, workers, resume, force, dry_run, json, part)


def _balls(fewest: int, most: int) -> dict[str, int]:
    """Recipe fields for a number of balls, or for a range."""
    return {"num_balls": most} if fewest == most else {"min_balls": fewest, "num_balls": most}


@app.command()
def bouncing(
    objects: Annotated[
        str | None, typer.Option(help="Number of objects, or a range such as 3-5.", show_default="3-5")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="T, number of frames.")] = 30,
    size: Annotated[int, typer.Option(help="Side of the frame in pixels.")] = 64,
    shapes: Annotated[
        str | None, typer.Option(help="Shapes to sample from.", show_default="circle,square,triangle")
    ] = None,
    colors: Annotated[
        str | None, typer.Option(help="Colours to sample from.", show_default="red,green,blue,yellow,magenta,cyan")
    ] = None,
    distinct_colors: Annotated[
        bool | None, typer.Option("--distinct-colors/--any-colors", help="No two objects of an episode share a colour.")
    ] = None,
    radius: Annotated[
        str | None, typer.Option(help="Range of circumradii of shapes in pixels.", show_default="6-9 at 64 px")
    ] = None,
    speed: Annotated[
        str | None, typer.Option(help="Range of initial speeds in pixels per frame.", show_default="1-3 at 64 px")
    ] = None,
    mass: Annotated[
        str | None, typer.Option(help="Masses: proportional to area, or equal.", show_default="area")
    ] = None,
    contact: Annotated[
        str | None, typer.Option(help="Objects collide, or occlude each other in depth order.", show_default="collide")
    ] = None,
    backgrounds: Annotated[
        str | None,
        typer.Option(
            help="Backgrounds to sample from: plain, gradient, stripes, checker, noise.", show_default="plain"
        ),
    ] = None,
    textures: Annotated[
        str | None,
        typer.Option(help="Object textures to sample from, as for --backgrounds.", show_default="plain"),
    ] = None,
    lighting: Annotated[
        float | None, typer.Option(help="Amplitude of changes in brightness, up to 0.9; 0 is off.", show_default="0")
    ] = None,
    outside: Annotated[
        float | None, typer.Option(help="Distance of the walls outside the frame in pixels.", show_default="0")
    ] = None,
    camera: Annotated[
        float | None,
        typer.Option(help="Largest displacement of the camera along each axis in pixels.", show_default="0"),
    ] = None,
    camera_speed: Annotated[
        float | None, typer.Option(help="Highest camera speed in pixels per frame.", show_default="1 at 64 px")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="easy, medium, hard or white-balls; other options override it.")
    ] = None,
    out: Out = None,
    train: options.NumTrain = 1000,
    val: options.NumVal = 100,
    test: options.NumTest = 100,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    part: options.Part = None,
    resume: options.Resume = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Bouncing coloured shapes: elastic collisions, exact masks, positions, velocities and properties."""
    from generators.bouncing_recipe import bouncing_fields

    if preset is None:
        recipe = _plain_bouncing(frames, size)
    else:
        recipe = bouncing_fields(preset, frames, size)
    if objects is not None:
        recipe["min_objects"], recipe["max_objects"] = options.whole_range(objects, "--objects")
    if radius is not None:
        recipe |= {"radii_px": list(options.number_range(radius, "--radius")), "radius_draw": "range"}
    if speed is not None:
        slowest, fastest = options.number_range(speed, "--speed")
        recipe |= {"min_speed_px_per_frame": slowest, "max_speed_px_per_frame": fastest}
        recipe["joint_speed_px_per_frame"] = None
    lists = {"shapes": shapes, "colors": colors, "backgrounds": backgrounds, "textures": textures}
    recipe |= {name: options.words(text) for name, text in lists.items() if text is not None}
    values = {"mass": mass, "contact": contact, "lighting": lighting, "outside_px": outside, "camera_px": camera}
    values |= {"camera_speed_px_per_frame": camera_speed, "distinct_colors": distinct_colors}
    recipe |= {name: value for name, value in values.items() if value is not None}
    if not recipe.get("camera_px"):
        if camera_speed is not None:
            raise InputError("--camera-speed has no effect without --camera, the largest displacement")
        recipe.pop("camera_speed_px_per_frame", None)
    counts = {"num_train": train, "num_val": val, "num_test": test}
    run_generator("bouncing", recipe, preset, counts, seed, out, workers, resume, force, dry_run, json, part)


@app.command(_REGISTERED)
def registered(
    context: typer.Context,
    plugin: options.Plugin = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Field of the recipe, FIELD=VALUE; repeatable.")
    ] = None,
    out: Out = None,
    train: options.NumTrain = 1000,
    val: options.NumVal = 100,
    test: options.NumTest = 100,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    part: options.Part = None,
    resume: options.Resume = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Data set of a plugin, by the kind of its recipe."""
    from slotssm.documents import parse_assignments
    from slotssm.registry import GENERATORS

    kind = context.info_name or ""
    GENERATORS[kind]  # raises an error that suggests the nearest name
    counts = {"num_train": train, "num_val": val, "num_test": test}
    recipe = parse_assignments(assignments or ())
    run_generator(kind, recipe, None, counts, seed, out, workers, resume, force, dry_run, json, part)


def _plain_bouncing(num_frames: int, size_px: int) -> dict[str, Any]:
    """Fields of `BouncingRecipe` without a preset; lengths scale with the frame."""
    scale = size_px / 64
    return {
        "num_frames": num_frames,
        "size_px": size_px,
        "radii_px": [6 * scale, 9 * scale],
        "min_speed_px_per_frame": scale,
        "max_speed_px_per_frame": 3 * scale,
        "camera_speed_px_per_frame": scale,
    }


def run_generator(
    kind: str,
    recipe: dict[str, Any],
    preset: str | None,
    counts: dict[str, int],
    seed: int,
    out: Path | None,
    workers: int | None,
    resume: bool,
    force: bool,
    dry_run: bool,
    json: bool,
    part: str | None = None,
) -> None:
    """Generate a data set, or with `dry_run` tell its cost.

    Args:
        kind: which generator.
        recipe: fields of its recipe.
        preset: name of the default output; None takes the generator's.
        counts: numbers of episodes, `num_train`, `num_val` and `num_test`.
        seed: seed of the data.
        out: the output; None takes the default under data/.
        workers: number of processes.
        resume: continue an interrupted generation.
        force: overwrite an existing file.
        dry_run: only estimate.
        json: print one JSON document.
        part: which share to make, such as 1/4; None makes the whole data set.
    """
    from generators import writer
    from slotssm.config import RecipeData
    from slotssm.documents import load

    document = {"recipe": {"kind": kind, **recipe}, "seed": seed, **counts}
    config = load(RecipeData, document, f"generate {kind}")
    path = out or writer.default_path(config.recipe, preset)
    if dry_run:
        expected = writer.estimate(config, workers)
        facts = {
            "path": str(path),
            "num_episodes": expected.num_episodes,
            "num_frames": expected.num_frames,
            "stored_bytes": expected.stored_bytes,
            "seconds": round(expected.seconds, 2),
        }
        if json:
            result_json({"dry_run": True, **facts})
        else:
            result(
                f"{path}: {sum(expected.num_episodes.values())} episodes, {expected.num_frames} frames, about "
                f"{human_bytes(expected.stored_bytes)} in {human_seconds(expected.seconds)}"
            )
        return None
    if part is not None:
        return _generate_part(config, path, part, workers, force, json)
    with Meter(f"generate {path}", "episodes") as meter:
        written = writer.generate(config, path, workers, resume, force, meter.update)
    if written.is_new:
        rate = written.num_frames / max(written.seconds, 1e-9)
        note(f"{written.num_frames} frames in {human_seconds(written.seconds)} ({rate:,.0f} frames/s)")
    else:
        note(f"{path} is already complete")
    if json:
        result_json(
            {
                "path": str(path),
                "num_episodes": written.num_episodes,
                "num_frames": written.num_frames,
                "stored_bytes": written.stored_bytes,
                "seconds": round(written.seconds, 3),
            }
        )
    else:
        counts_text = ", ".join(f"{split} {count}" for split, count in written.num_episodes.items())
        result(f"{path}  {human_bytes(written.stored_bytes)}  ({counts_text})")


def _generate_part(config: Any, path: Path, part: str, workers: int | None, force: bool, json: bool) -> None:
    from generators.writer import generate_part

    if force:
        raise InputError(
            "--force would remove what other parts have made; leave out --part, or remove the file yourself"
        )
    share = options.share(part, "--part")
    with Meter(f"generate {path}, part {part}", "episodes") as meter:
        num_episodes = generate_part(config, path, share, workers, meter.update)
    if json:
        result_json({"path": str(path), "part": list(share), "num_episodes": num_episodes})
    else:
        result(f"{path}, part {part}: {num_episodes} episodes")


def verify(
    data: Annotated[Path, typer.Argument(help="Episode file.")],
    check_all: Annotated[bool, typer.Option("--all", help="Check every episode instead of a sample.")] = False,
    plugin: options.Plugin = None,
    json: options.Json = False,
) -> None:
    """Regenerate episodes from the recipe in the file and compare every field."""
    from generators.writer import verify as verify_file

    with Meter(f"verify {data}", "episodes") as meter:
        found = verify_file(data, check_all, meter.update)
    if json:
        result_json(
            {
                "path": str(data),
                "num_checked": found.num_checked,
                "num_episodes": found.num_episodes,
                "mismatches": found.mismatches,
            }
        )
    elif not found.mismatches:
        result(f"{data}: {found.num_checked} of {found.num_episodes} episodes regenerated, all equal")
    if found.mismatches:
        note(
            f"slotssm: {data} differs from its recipe at {found.mismatches[0]} "
            f"({len(found.mismatches)} differences in {found.num_checked} episodes)"
        )
        raise typer.Exit(SlotSSMError.exit_code)
