"""What a GPU takes for scans, attention, recurrent models and training steps; used by `gpu_check.py`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_subjects import (
    RECURRENT,
    arguments_of,
    attended,
    attention_of,
    flex_serves,
    forward_backward,
    recurrent,
    run_recurrent,
    usable,
)

from slotssm.config import RunConfig
from slotssm.data.loader import Loader
from slotssm.documents import override, parse_assignments
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.presets import preset
from slotssm.layers.compiled_steps import switch_compiled_steps
from slotssm.training.batches import phases_of
from slotssm.training.device import numerics
from slotssm.training.run import RunDirectory
from slotssm.training.trainer import Trainer

SHAPES = [(128 * 6, 80, 80, 16), (128 * 6, 640, 80, 16), (8 * 6, 2560, 80, 16)]
"""Batch times slots, steps L, inner channels E, states N."""
QUICK_SHAPES = [(6, 40, 20, 16)]
ATTENTION = [(128, 80, 6, 64), (32, 640, 6, 64), (8, 2560, 6, 64)]
"""Batch, steps T, slots K, width D of an attention with four heads."""
QUICK_ATTENTION = [(2, 40, 6, 64)]
TIMED_STEPS, QUICK_STEPS = 30, 3
"""Training steps that are timed; more than are read ahead."""


def seconds_of(work: Callable[[], Any], device: str, repeats: int) -> float:
    """Median seconds of a function, after one call off the clock."""
    work()
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def copying(device: str, numel: int) -> float:
    """Bytes a second that are read and written by copying."""
    source = torch.ones(numel, device=device)
    target = torch.empty_like(source)
    return 8 * numel / seconds_of(lambda: target.copy_(source), device, 5)


def measure_scans(device: str, quick: bool) -> list[dict[str, Any]]:
    """Forward and backward of each backend, with the share of the bandwidth that its inputs and outputs need."""
    bandwidth = copying(device, 2**20 if quick else 2**27)
    rows = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        arguments = arguments_of(shape, device, torch.float32)
        # inputs, outputs and gradients, each once
        num_bytes = 4 * (2 * sum(value.numel() for value in arguments.values()) + 2 * arguments["x"].numel())
        for backend in usable(device):
            seconds = seconds_of(lambda a=arguments, b=backend: forward_backward(a, b), device, 3 if quick else 5)
            rows.append(
                {"shape": shape, "backend": backend, "seconds": seconds, "bandwidth": num_bytes / seconds / bandwidth}
            )
    return rows


def measure_attention(device: str, quick: bool) -> list[dict[str, Any]]:
    """Forward and backward of SlotTransformer's attention, by flex attention where it serves and in chunks."""
    rows = []
    for shape in QUICK_ATTENTION if quick else ATTENTION:
        layer, slots = attention_of(shape, device)
        for name in ("flex", "chunks"):
            if name == "flex" and not flex_serves(slots):
                continue
            seconds = seconds_of(lambda n=name, x=(layer, slots): attended(*x, n == "flex"), device, 5)
            rows.append({"shape": shape, "path": name, "seconds": seconds})
    return rows


def measure_recurrent(device: str, quick: bool) -> list[dict[str, Any]]:
    """Forward and backward of recurrent models, with and without compiled steps."""
    rows = []
    for kind in RECURRENT:
        model, tokens = recurrent(kind, device, *((10, 2) if quick else (80, 32)))
        for name in ("loop", "compiled steps"):
            switch_compiled_steps(model, name != "loop")
            seconds = seconds_of(lambda x=(model, tokens): run_recurrent(*x), device, 3)
            rows.append({"model": kind, "path": name, "seconds": seconds})
    return rows


def measured_runs(quick: bool) -> dict[str, RunConfig]:
    """The paper's presets at their lengths, with enough data for a few batches."""
    few = ["data.num_train=256", "data.num_val=0", "data.num_test=0", "train.eval_every_steps=0"]
    if quick:
        return {"tiny-bcb": override(preset("tiny-bcb"), parse_assignments(["train.eval_every_steps=0"]), "gpu check")}
    runs = {}
    for length, patches, batch in ((80, 4, 128), (640, 8, 128), (2560, 16, 16)):
        frames = length // patches**2 + 1
        settings = [*few, f"data.recipe.num_frames={frames}", f"data.recipe.patches_per_side={patches}"]
        settings += [f"train.batch_size={batch}"]
        runs[f"paper-bcb, L = {length}, batch {batch}"] = override(
            preset("paper-bcb"), parse_assignments(settings), "gpu check"
        )
    runs["paper-oc, batch 32"] = override(preset("paper-oc"), parse_assignments(few), "gpu check")
    return runs


def measure_training(device: str, folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Seconds, memory and waiting for data of training steps."""
    rows = []
    for name, config in measured_runs(quick).items():
        for precision in ("no", "bf16"):
            chosen = override(config, {"train": {"precision": precision}}, "gpu check")
            data = ensure_own_data(chosen, folder)
            trainer = Trainer(chosen, spec_of(chosen.data), data, RunDirectory(folder / "unused"), device)
            # as if the data were larger than memory: every batch is decompressed
            loader = Loader(
                data,
                "train",
                trainer.task.fields,
                phases=phases_of(chosen.train),
                seed=0,
                cache_bytes=0,
                pin=device == "cuda",
            )
            waited, count = 0.0, QUICK_STEPS if quick else TIMED_STEPS
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with trainer.loader, loader, numerics(chosen.train, device):
                batches = loader.batches(0)
                for _ in range(2):
                    trainer._take_step(next(batches)[1])
                synchronize(device)
                began = time.perf_counter()
                for _ in range(count):
                    asked = time.perf_counter()
                    batch = next(batches)[1]
                    waited += time.perf_counter() - asked
                    trainer._take_step(batch)
                synchronize(device)
                seconds = (time.perf_counter() - began) / count
            frames = (chosen.train.clip_len or trainer.spec.num_frames) * chosen.train.batch_size
            rows.append(
                {
                    "run": name,
                    "precision": precision,
                    "seconds": seconds,
                    "frames_per_s": frames / seconds,
                    "waiting": waited / count / seconds,
                    "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
                }
            )
    return rows


def table(found: dict[str, Any]) -> str:
    """The measurements as tables for docs/gpu.md, with the goals of scans and training steps beside them."""
    lines = [f"{found['device']}, torch {torch.__version__}", ""]
    lines += ["| scan (batch, L, E, N) | backend | forward + backward | bandwidth | relative to `chunked` |"]
    lines += ["|---|---|---|---|---|"]
    scans = found.get("scans", [])
    chunked = {tuple(row["shape"]): row["seconds"] for row in scans if row["backend"] == "chunked"}
    for row in scans:
        gain = chunked.get(tuple(row["shape"]), float("nan")) / row["seconds"]
        shown = f"{1e3 * row['seconds']:.2f} ms | {row['bandwidth']:.0%} | {gain:.1f} times as fast"
        lines.append(f"| {tuple(row['shape'])} | `{row['backend']}` | {shown} |")
    lines += ["", "| attention (B, T, K, D) | path | forward + backward |", "|---|---|---|"]
    lines += [
        f"| {tuple(row['shape'])} | {row['path']} | {1e3 * row['seconds']:.2f} ms |"
        for row in found.get("attention", [])
    ]
    lines += ["", "| recurrent model | path | forward + backward |", "|---|---|---|"]
    lines += [
        f"| `{row['model']}` | {row['path']} | {1e3 * row['seconds']:.2f} ms |" for row in found.get("recurrent", [])
    ]
    lines += ["", "| training step | precision | time | frames a second | waiting for data | memory |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in found.get("training", []):
        memory = "–" if row["memory_gib"] is None else f"{row['memory_gib']:.1f} GiB"
        shown = f"{1e3 * row['seconds']:.0f} ms | {row['frames_per_s']:,.0f} | {row['waiting']:.0%} | {memory}"
        lines.append(f"| {row['run']} | {row['precision']} | {shown} |")
    return "\n".join(lines)
