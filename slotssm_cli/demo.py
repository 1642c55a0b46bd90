"""`slotssm demo`."""

from pathlib import Path
from typing import Annotated

import typer

from slotssm_cli.evaluate import print_report
from slotssm_cli.terminal import options
from slotssm_cli.terminal.console import Meter, note, result, result_json
from slotssm_cli.train import step_callback


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for data, run and pictures.")] = Path("demo"),
    preset: Annotated[
        str,
        typer.Option(
            help="Object-centric preset to train; with --pretrained, a checkpoint: demo, cpu-oc-easy, "
            "cpu-oc-tabletop-a or cpu-depth."
        ),
    ] = "demo",
    seed: options.Seed = 0,
    pretrained: Annotated[
        bool,
        typer.Option("--pretrained", help="Show a model that comes with slotssm on new videos, without training."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Generate bouncing shapes, train OC-SlotSSM, score it and draw its slots; about four minutes on two cores."""
    from slotssm.experiments.demo import run_demo

    if pretrained:
        _show_pretrained(out, preset, seed, json)
        return
    if preset == "demo":
        note("demo: bouncing shapes → OC-SlotSSM → FG-ARI → a GIF of the slots")
    with Meter("generate", "episodes") as data, Meter("train", "steps") as steps, Meter("test", "episodes") as test:
        made = run_demo(out, seed, preset, data.update, step_callback(steps), test.update)
    if json:
        document = made.report.document(str(made.run))
        result_json({**document, "animation": str(made.animation), "curves": str(made.curves)})
        return
    print_report(made.report, str(made.run))
    result("")
    result(f"slots             {made.animation}")
    result(f"training curves   {made.curves}")
    result(f"scores            {made.run / 'eval' / 'test.json'}")
    result(f"more episodes     slotssm visualize {made.run} --episodes 3,4,5")


def _show_pretrained(out: Path, name: str, seed: int, json: bool) -> None:
    from slotssm.experiments.demo import show_pretrained

    shown = show_pretrained(out, seed, name)
    if json:
        result_json({**shown.report.document(str(shown.checkpoint)), "animation": str(shown.animation)})
        return
    print_report(shown.report, f"the trained model {shown.checkpoint.name}")
    result("")
    result(f"slots             {shown.animation}")
    result(f"in Python         slotssm.load(slotssm_zoo.checkpoint({name!r}))")
