"""Object-centric learning (paper, section 7.3): OC-SlotSSM and SAVi compared by segmentation and property probes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from slotssm.config import RunConfig
from slotssm.experiments import paper_numbers
from slotssm.experiments.datasets import file_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import Cell, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare, validation_curve
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale, run_name, trained_for
from slotssm.experiments.reproductions.matched import OBJECT_MODELS, with_model
from slotssm.plotting import write_bars, write_line_panels

SCORED = ("fg-ari", "miou", "mse", "probe", "slots-used", "mask-entropy", "identity-switches")
"""Metrics that are computed on the test split."""
SHOWN: Mapping[str, str] = MappingProxyType(
    {
        "fg-ari": "FG-ARI",
        "miou": "mIoU",
        "mse": "MSE",
        "probe/position": "position R²",
        "probe/position@mlp": "position R², network",
        "probe/velocity": "velocity R²",
        "probe/radius": "radius R²",
        "probe/color": "colour accuracy",
        "probe/shape": "shape accuracy",
        "slots-used": "slots used",
        "mask-entropy": "mask entropy",
        "identity-switches": "switches a video",
    }
)
"""Results that the table shows, with their row headings."""
NETWORK_PROBES = ("position",)
"""Properties that are probed by networks with a hidden layer too, as in the paper."""
DRAWN = {"fg-ari": "FG-ARI of whole videos", "miou": "mIoU of whole videos"}
"""Metrics that have a figure, with the label of its axis."""
DATA: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "cpu": {
            "easy": "cpu-oc-easy",
            "medium": "cpu-oc-medium",
            "tabletop a": "cpu-oc-tabletop-a",
            "tabletop b": "cpu-oc-tabletop-b",
        },
        "paper": {"hard": "paper-oc"},
        "tiny": {"tiny": "tiny-oc"},
    }
)
"""Data sets of each scale, with the preset that is trained on each."""
LONGER: Mapping[str, Mapping[str, int]] = MappingProxyType({"cpu": {"tabletop a": 4}})
"""Data sets of each scale on which models are also trained so many times as long, to see whether they stay stable."""


class ObjectCentric(Experiment):
    """Unsupervised segmentation and property probes on data of increasing difficulty."""

    name = "object-centric"
    models = OBJECT_MODELS
    takes_files = True
    scales = MappingProxyType(
        {
            scale: Scale(next(iter(presets.values())), (0,) if scale == "tiny" else (0, 1, 2))
            for scale, presets in DATA.items()
        }
    )

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every data set, length of the training, model and seed."""
        return [
            TrainingCell(
                f"{run_name(name)}-{model}-s{seed}",
                model,
                setting,
                with_model(base, model).replace(seed=seed),
                SCORED,
                network_probes=tuple(name for name in NETWORK_PROBES if f"objects/{name}" in spec_of(base.data).fields),
            )
            for name, (setting, base) in _settings(choice).items()
            for model in choice.models or self.models
            for seed in choice.seeds or self.scales[choice.scale].seeds_of(model)
        ]

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """Models on every data set; the paper's values are on other data and quoted in the notes only."""
        return compare(records, tuple(SHOWN))

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """Segmentation, probes and slot diagnostics, with a column for every model and data set."""
        lines = [
            ("parameters", *(f"{row.parameters:,}" if row.parameters else "–" for row in rows)),
            *((heading, *(str(row.metrics[name]) for row in rows)) for name, heading in SHOWN.items()),
            ("seeds", *(row.seeds("fg-ari") for row in rows)),
        ]
        columns = ("", *(f"{_title(row)}: {row.model}" for row in rows))
        return Table(f"Object-centric learning, scale {choice.scale}", columns, lines, _NOTES)

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """FG-ARI and mIoU of both models on every data set, and over the training where that is longer."""
        drawn = []
        for name, label in DRAWN.items():
            bars = [row.bar(name, _title(row).replace(", ", "\n")) for row in rows]
            drawn.append(folder / f"{name}.png")
            write_bars(bars, drawn[-1], "object-centric learning", "data", label)
        for title in dict.fromkeys(_title(row) for row in rows if "training" in row.setting):
            shown = [row for row in rows if _title(row) == title]
            panels = {label: [validation_curve(row, name, row.model) for row in shown] for name, label in DRAWN.items()}
            drawn.append(folder / f"{run_name(title)}.png")
            write_line_panels(panels, drawn[-1], f"{title}: validation during training", "optimiser step")
        return drawn


def _bases(choice: Choice) -> dict[str, RunConfig]:
    """Runs by name of the data set: those of the scale, or its first preset on each given file."""
    presets = DATA[choice.scale]
    if not choice.data:
        return {data: preset(name) for data, name in presets.items()}
    first = preset(next(iter(presets.values())))
    return {path.stem: first.replace(name=run_name(path.stem), data=file_data(path)) for path in choice.data}


def _settings(choice: Choice) -> dict[str, tuple[Setting, RunConfig]]:
    """Settings and runs by name: every data set, and those on which the training is longer as well."""
    found: dict[str, tuple[Setting, RunConfig]] = {}
    for data, base in _bases(choice).items():
        setting: Setting = {"data": data, "size_px": spec_of(base.data).width}
        found[data] = setting, base
        times = LONGER.get(choice.scale, {}).get(data, 1)
        if times > 1 and not choice.data:
            longer = trained_for(base, times * base.train.num_steps)
            found[f"{data} x{times}"] = {**setting, "training": f"{times} times as long"}, longer
    return found


def _title(row: Row) -> str:
    """Name of the setting of a row, for people."""
    return ", ".join(str(row.setting[name]) for name in ("data", "training") if name in row.setting)


def _paper_note() -> str:
    quoted = "; ".join(
        f"{data}: " + ", ".join(f"{model} {fg_ari:.3f} / {miou:.3f}" for model, (fg_ari, miou) in by_model.items())
        for data, by_model in paper_numbers.OBJECT_CENTRIC.items()
    )
    return (
        f"paper: FG-ARI / mIoU on {quoted} (± {paper_numbers.OBJECT_CENTRIC_ERROR}); rendered videos of 128 px, its "
        "own training, one seed. The data here is different: compare the order, not the numbers."
    )


_NOTES = (
    "Masks: argmax of the decoder's alphas over whole test videos; mean ± standard deviation over seeds (ddof = 1), or "
    "with one seed the 95 % bootstrap interval over episodes.",
    "Probes: linear, and for the position a network with a hidden layer too, on frozen slots matched to objects by "
    "mask IoU, fitted and scored in folds of whole test videos; their baselines and coverage are in the cells' "
    "records.",
    "tabletop: both models have a canvas, which counts as one of the masks, and a foreground weight; neither is in the "
    "paper.",
    "n times as long: trained for n times the steps, with a learning rate that decays over all of them.",
    "slots used: slots that own at least one pixel per frame, mean over videos; mask entropy: 0 if one slot owns a "
    "pixel, 1 if all share it equally; switches: how often objects change slots in a video.",
    _paper_note(),
)
