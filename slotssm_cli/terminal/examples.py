"""Examples in the help of each command."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "slotssm demo": (
        "slotssm demo",
        "slotssm demo --seed 1 --out demo-1",
        "slotssm demo --pretrained --preset cpu-oc-tabletop-a",
    ),
    "slotssm generate bcb": (
        "slotssm generate bcb --len 80",
        "slotssm generate bcb --len 2560 --train 100 --dry-run",
        "slotssm generate bcb --len 80 --part 2/8 --out data/shared.h5",
    ),
    "slotssm generate bouncing": (
        "slotssm generate bouncing --preset medium",
        "slotssm generate bouncing --objects 4-6 --contact occlude --out data/mine.h5",
    ),
    "slotssm generate tabletop": (
        "slotssm generate tabletop --preset a --size 64",
        "slotssm generate tabletop --preset moving --antialias 3 --out data/depth.h5",
    ),
    "slotssm generate snitch": (
        "slotssm generate snitch --size 64 --train 5500",
        "slotssm generate snitch --ending 0.2,0,0.4,0.4 --hidden 60 --out data/hidden.h5",
    ),
    "slotssm import": (
        "slotssm import movi movi_a/128x128/1.0.0 --out data/movi-a.h5",
        "slotssm import folder clips --val 20 --test 0.2",
        "slotssm import rgbd rgbd_dataset_freiburg1_desk --clip-len 16 --size 80x60",
    ),
    "slotssm export": (
        "slotssm export data/mine.h5 --to webdataset",
        "slotssm export data/mine.h5 --to numpy --split test --fields frames,masks",
    ),
    "slotssm inspect": ("slotssm inspect data/mine.h5", "slotssm inspect runs/tiny-oc-001"),
    "slotssm verify": ("slotssm verify data/mine.h5 --all",),
    "slotssm presets": ("slotssm presets", "slotssm presets cpu-oc > mine.toml"),
    "slotssm train": (
        "slotssm train --preset cpu-oc",
        "slotssm train --preset cpu-oc --data data/mine.h5 --set model.num_slots=7",
        "slotssm train --config mine.toml --out runs/mine --resume",
    ),
    "slotssm eval": (
        "slotssm eval runs/tiny-oc-001 --metric fg-ari,miou",
        "slotssm eval --predictions P.h5 --data data/mine.h5 --conventions all",
        "slotssm eval --compare a.json b.json",
    ),
    "slotssm visualize": (
        "slotssm visualize runs/tiny-oc-001 --episodes 3,4,5 --out slots.gif",
        "slotssm visualize runs/tiny-oc-001 --episodes 3 --out slots.pdf",
        "slotssm visualize data/mine.h5",
    ),
    "slotssm predict": (
        "slotssm predict runs/tiny-oc-001 --video clip.mp4 --out clip.h5 --overlay overlay.mp4",
        "slotssm predict runs/tiny-oc-001 --data data/mine.h5 --split test --out predictions.h5",
    ),
    "slotssm report": (
        "slotssm report runs/tiny-oc-001 --out report.html",
        "slotssm report runs/a runs/b runs/c --out seeds.html",
        "slotssm report data/mine.h5 --out data.html",
    ),
    "slotssm runs": ("slotssm runs", "slotssm runs runs sweeps/cpu-oc"),
    "slotssm table": (
        "slotssm table runs/a runs/b runs/c",
        "slotssm table sweeps/cpu-oc --by model.num_slots --csv slots.csv",
    ),
    "slotssm sweep": (
        "slotssm sweep --preset cpu-oc --set model.num_slots=3,4 --seeds 0,1,2",
        "slotssm sweep --preset cpu-oc --seeds 0,1,2,3 --jobs 2",
    ),
    "slotssm status": ("slotssm status reproductions/object-centric-cpu",),
    "slotssm reproduce": (
        "slotssm reproduce object-centric --dry-run",
        "slotssm reproduce long-context --models slotssm,rim --seeds 0",
        "slotssm reproduce depth --data data/tum.h5 --data data/davis.h5 --out reproductions/real",
        "slotssm reproduce object-centric --executor slurm --slurm partition=gpu --slurm gpus-per-node=1",
    ),
    "slotssm doctor": ("slotssm doctor",),
}
"""Complete command lines by the path of their command."""
