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
    preset: Annotated[str, typer.Option(help="Object-centric preset to train.")] = "cpu-oc",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Generate bouncing shapes, train OC-SlotSSM, score it and draw its slots; about five minutes on two cores."""
    from slotssm.experiments.demo import run_demo

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
