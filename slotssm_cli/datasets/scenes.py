"""`slotssm generate tabletop` and `slotssm generate snitch`: rendered scenes."""

from typing import Annotated, Any

import typer

from slotssm.errors import InputError
from slotssm_cli.datasets.generate import Out, app, run_generator
from slotssm_cli.terminal import options

Objects = Annotated[
    str | None, typer.Option(help="Number of objects, or a range such as 3-6.", show_default="the preset's")
]
Size = Annotated[int, typer.Option(help="Side of the frame in pixels.")]
Sizes = Annotated[
    str | None, typer.Option(help="Sizes to sample from: small, medium, large.", show_default="the preset's")
]
Colors = Annotated[str | None, typer.Option(help="Colours to sample from.", show_default="the preset's")]
Materials = Annotated[
    str | None, typer.Option(help="Materials to sample from: rubber, metal.", show_default="the preset's")
]
Grounds = Annotated[
    str | None,
    typer.Option(help="Grounds to sample from: plain, gradient, checker.", show_default="the preset's"),
]
GroundColors = Annotated[
    str | None, typer.Option(help="Colours of the ground: gray, or any.", show_default="the preset's")
]
NumLights = Annotated[
    int | None, typer.Option("--lights", help="Lights with shadows, 1 or 2.", show_default="the preset's")
]
Cameras = Annotated[
    str | None,
    typer.Option(help="Cameras to sample from: still, orbit, head (held by a person).", show_default="the preset's"),
]
Viewpoints = Annotated[
    str | None,
    typer.Option(help="First place of the camera: fixed, or on any side.", show_default="the preset's"),
]
Antialias = Annotated[
    int, typer.Option("--antialias", help="Rays for each side of a pixel where colours change; 1 is off.")
]


@app.command()
def tabletop(
    preset: Annotated[str, typer.Option(help="a, b or moving; other options override it.")] = "a",
    objects: Objects = None,
    frames: Annotated[int, typer.Option(min=1, help="T, number of frames.")] = 24,
    size: Size = 128,
    shapes: Annotated[
        str | None,
        typer.Option(help="Shapes to sample from: cube, sphere, cylinder, cone.", show_default="the preset's"),
    ] = None,
    sizes: Sizes = None,
    colors: Colors = None,
    materials: Materials = None,
    grounds: Grounds = None,
    ground_colors: GroundColors = None,
    lights: NumLights = None,
    cameras: Cameras = None,
    viewpoints: Viewpoints = None,
    distance: Annotated[
        float | None,
        typer.Option(help="Distance of the camera from the middle of the table in world units.", show_default="9.2"),
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(help="Range of initial speeds in world units per frame.", show_default="0.08-0.32"),
    ] = None,
    gravity: Annotated[
        float | None,
        typer.Option(help="Gravity in world units per frame², which sets the friction.", show_default="0.014"),
    ] = None,
    antialias: Antialias = 1,
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
    """Rendered objects that slide, collide and come to rest, with masks, depth and camera (the role of MOVi)."""
    from generators.scenes.scene_recipe import preset_fields
    from generators.scenes.tabletop import TABLETOP_PRESETS

    recipe = preset_fields(TABLETOP_PRESETS, preset)
    recipe |= {"num_frames": frames, "size_px": size, "samples_per_side": antialias}
    recipe |= _chosen(
        objects, _looks(sizes, colors, materials, grounds, ground_colors, lights, cameras, viewpoints, distance)
    )
    if shapes is not None:
        recipe["shapes"] = options.words(shapes)
    if speed is not None:
        recipe["min_speed"], recipe["max_speed"] = options.number_range(speed, "--speed")
    if gravity is not None:
        recipe["gravity"] = gravity
    counts = {"num_train": train, "num_val": val, "num_test": test}
    name = f"tabletop-{preset}"
    run_generator("tabletop", recipe, name, counts, seed, out, workers, resume, force, dry_run, json, part)


@app.command()
def snitch(
    preset: Annotated[str, typer.Option(help="still, moving, easy or hard; other options override it.")] = "still",
    objects: Objects = None,
    frames: Annotated[int, typer.Option(min=1, help="T, number of frames.")] = 300,
    size: Size = 128,
    cones: Annotated[
        str | None,
        typer.Option(help="Number of cones among the objects, or a range; they contain.", show_default="2-4"),
    ] = None,
    sizes: Sizes = None,
    colors: Colors = None,
    materials: Materials = None,
    grounds: Grounds = None,
    ground_colors: GroundColors = None,
    lights: NumLights = None,
    cameras: Cameras = None,
    viewpoints: Viewpoints = None,
    distance: Annotated[
        float | None,
        typer.Option(help="Distance of the camera from the middle of the table in world units.", show_default="11.4"),
    ] = None,
    max_moving: Annotated[
        int | None, typer.Option(help="Largest number of objects that act at once.", show_default="4")
    ] = None,
    containment: Annotated[
        float | None,
        typer.Option(help="Probability that a cone covers an object when it can.", show_default="the preset's"),
    ] = None,
    preference: Annotated[
        float | None,
        typer.Option(help="Probability that it chooses the snitch when it can.", show_default="the preset's"),
    ] = None,
    release: Annotated[
        float | None,
        typer.Option(help="Probability that a full cone leaves its content behind.", show_default="the preset's"),
    ] = None,
    ending: Annotated[
        str | None,
        typer.Option(
            help="Shares of episodes in which the snitch ends visible, occluded, contained, carried, such as "
            "0.2,0,0.4,0.4.",
            show_default="what happens",
        ),
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(
            help="Smallest number of frames for which a snitch that ends contained has been so.",
            show_default="the preset's",
        ),
    ] = None,
    antialias: Antialias = 1,
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
    """Objects that move, cover and carry away each other: where is the snitch at the end (the role of CATER)?"""
    from generators.scenes.scene_recipe import preset_fields
    from generators.scenes.snitch import SNITCH_PRESETS

    recipe = preset_fields(SNITCH_PRESETS, preset)
    recipe |= {"num_frames": frames, "size_px": size, "samples_per_side": antialias}
    recipe |= _chosen(
        objects, _looks(sizes, colors, materials, grounds, ground_colors, lights, cameras, viewpoints, distance)
    )
    if cones is not None:
        recipe["min_cones"], recipe["max_cones"] = options.whole_range(cones, "--cones")
    if ending is not None:
        recipe["ending_shares"] = _shares(ending)
    numbers = {"max_moving": max_moving, "containment": containment, "preference": preference, "release": release}
    numbers["min_hidden_frames"] = hidden
    recipe |= {name: value for name, value in numbers.items() if value is not None}
    counts = {"num_train": train, "num_val": val, "num_test": test}
    name = f"snitch-{preset}"
    run_generator("snitch", recipe, name, counts, seed, out, workers, resume, force, dry_run, json, part)


def _looks(
    sizes: str | None,
    colors: str | None,
    materials: str | None,
    grounds: str | None,
    ground_colors: str | None,
    lights: int | None,
    cameras: str | None,
    viewpoints: str | None,
    distance: float | None,
) -> dict[str, Any]:
    """Fields that both data sets share, None for options that were not given."""
    lists = {"sizes": sizes, "colors": colors, "materials": materials, "grounds": grounds, "cameras": cameras}
    fields: dict[str, Any] = {name: None if text is None else options.words(text) for name, text in lists.items()}
    fields |= {"ground_colors": ground_colors, "num_lights": lights, "viewpoints": viewpoints}
    return fields | {"camera_distance": distance}


def _chosen(objects: str | None, looks: dict[str, Any]) -> dict[str, Any]:
    """The fields of the options that were given."""
    fields = {name: value for name, value in looks.items() if value is not None}
    if objects is not None:
        fields["min_objects"], fields["max_objects"] = options.whole_range(objects, "--objects")
    return fields


def _shares(text: str) -> list[float]:
    try:
        return [float(word) for word in options.words(text)]
    except ValueError:
        raise InputError(f"--ending {text}: expected four shares, for example 0.2,0,0.4,0.4") from None
