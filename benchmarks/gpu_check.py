"""Whether everything works on this GPU, and how fast: one script, a few minutes, JSON and a table for docs/gpu.md.

Usage:
    python benchmarks/gpu_check.py [--device cuda] [--quick] [--json FILE]

Checks come first: kernels and each launch of autotuning against the reference, flex against masked attention, sequences
against steps, compiled steps against the loop, twenty training steps of every task in float32 and bfloat16, and a run
that is resumed. Then it measures scans, attention and recurrent models side by side, and training steps of the paper's
presets.
With `--device cpu --quick` the script itself is tried where there is no GPU.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slotssm.config import RunConfig
from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.measurement.provenance import machine
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import resume_run, start_run
from slotssm.layers import CausalSlotAttention, Mamba
from slotssm.layers.compiled_steps import switch_compiled_steps
from slotssm.models import RIMs, SAVi, SlotRNN
from slotssm.ops import block_causal, selective_scan
from slotssm.ops.backends import BACKENDS
from slotssm.ops.triton import scan_operator
from slotssm.training.device import numerics
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

SHAPES = [(128 * 6, 80, 80, 16), (128 * 6, 640, 80, 16), (8 * 6, 2560, 80, 16)]
"""Batch times slots, steps L, inner channels E, states N."""
QUICK_SHAPES = [(6, 40, 20, 16)]
ATTENTION = [(128, 80, 6, 64), (32, 640, 6, 64), (8, 2560, 6, 64)]
"""Batch, steps T, slots K, width D of an attention with four heads."""
QUICK_ATTENTION = [(2, 40, 6, 64)]
RECURRENT = {"slot-rnn": SlotRNN, "rim": RIMs, "savi": SAVi}
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
STEPS = 20


def arguments_of(shape: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments of a scan as a Mamba layer makes them, each with a gradient."""
    batch, length, channels, states = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    moving = {
        "x": normal(batch, length, channels),
        "dt": normal(batch, length, channels) - 3,
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "z": normal(batch, length, channels),
    }
    rates = -torch.arange(1, states + 1).float().repeat(channels, 1)
    fixed = {"A": rates, "D": torch.ones(channels), "delta_bias": torch.zeros(channels)}
    found = {name: value.to(device, dtype) for name, value in moving.items()}
    found |= {name: value.to(device) for name, value in fixed.items()}
    return {name: value.requires_grad_() for name, value in found.items()}


def forward_backward(arguments: dict[str, Tensor], backend: str) -> list[Tensor]:
    """The outputs of a scan and the gradients of a function of them."""
    y = selective_scan(**arguments, delta_softplus=True, backend=backend)
    return [y, *torch.autograd.grad(y.float().square().mean(), list(arguments.values()))]


def usable(device: str) -> list[str]:
    """Backends that serve a device, without the reference."""
    found = []
    for name in BACKENDS:
        try:
            selective_scan(**arguments_of((1, 2, 2, 2), device, torch.float32), backend=name)
        except (InputError, RuntimeError):
            continue
        found.append(name)
    return [name for name in found if name != "reference"]


def check_kernels(device: str) -> dict[str, Any]:
    """Largest relative error of every backend against the reference in float64."""
    found: dict[str, Any] = {}
    for dtype, tolerance in TOLERANCES.items():
        arguments = arguments_of((3, 70, 33, 16), device, dtype)
        exact = {name: value.detach().double().requires_grad_() for name, value in arguments.items()}
        expected = forward_backward(exact, "reference")
        for backend in usable(device):
            pairs = zip(forward_backward(arguments, backend), expected, strict=True)
            error = max(
                float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max()) for a, b in pairs
            )
            assert error < tolerance, f"{backend} in {dtype} differs from the reference by {error:.2g}"
            found[f"{backend} {str(dtype).removeprefix('torch.')}"] = error
    return found


def relative_error(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest error of any tensor, relative to its largest value."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ours, theirs, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def check_launches(device: str) -> dict[str, float]:
    """Error of each launch that autotuning chooses from against the reference, where Triton's kernels serve."""
    if "triton" not in usable(device):
        return {}
    arguments = arguments_of((3, 70, 80, 16), device, torch.float32)
    exact = {name: value.detach().double().requires_grad_() for name, value in arguments.items()}
    expected, found = forward_backward(exact, "reference"), {}
    for name in ("_forward_launches", "_backward_launches"):
        launches = getattr(scan_operator, name)
        for launch in launches(80, 16):
            setattr(scan_operator, name, lambda *sizes, launch=launch: (launch,))
            error = relative_error(forward_backward(arguments, "triton"), expected)
            assert error < TOLERANCES[torch.float32], f"{name} {launch} differs from the reference by {error:.2g}"
            found[f"{name.strip('_')} {tuple(launch)}"] = error
        setattr(scan_operator, name, launches)
    return found


def attended(layer: CausalSlotAttention, slots: Tensor, by_flex: bool) -> list[Tensor]:
    """Outputs and gradients of an attention over slots and steps."""
    serves = block_causal.serves
    if not by_flex:
        block_causal.serves = lambda q: False
    try:
        y, _ = layer(slots)
        return [y, *torch.autograd.grad(y.float().square().mean(), [slots, *layer.parameters()])]
    finally:
        block_causal.serves = serves


def flex_serves(slots: Tensor) -> bool:
    """Whether flex attention serves four heads of these slots."""
    batch, _, _, width = slots.shape
    return block_causal.serves(slots.new_empty(batch, 4, 1, width // 4))


def attention_of(shape: tuple[int, int, int, int], device: str) -> tuple[CausalSlotAttention, Tensor]:
    """A layer and slots of a shape."""
    torch.manual_seed(0)
    layer = CausalSlotAttention(shape[-1], 4).to(device)
    return layer, torch.randn(shape, device=device, requires_grad=True)


def check_attention(device: str) -> dict[str, float]:
    """Error of flex attention against masked attention in chunks, if it serves here."""
    layer, slots = attention_of((2, 70, 6, 64), device)
    if not flex_serves(slots):
        return {}
    found = {}
    for name, precision in (("float32", None), ("bfloat16", torch.bfloat16)):
        with torch.autocast(device, precision, enabled=precision is not None):
            error = relative_error(attended(layer, slots, True), attended(layer, slots, False))
        assert error < TOLERANCES[precision or torch.float32] * 2, f"flex attention in {name} differs by {error:.2g}"
        found[name] = error
    return found


def recurrent(kind: str, device: str, steps: int, batch: int) -> tuple[torch.nn.Module, Tensor]:
    """A recurrent model of the size of the paper's baselines, and tokens."""
    torch.manual_seed(0)
    model = RECURRENT[kind](num_slots=6, slot_dim=64, num_heads=4).to(device)
    return model, torch.randn(batch, steps, 16, 64, device=device, requires_grad=True)


def run_recurrent(model: torch.nn.Module, tokens: Tensor) -> list[Tensor]:
    """Slots and gradients of a recurrent model."""
    slots = model(tokens).slots
    gradients = torch.autograd.grad(
        slots.square().mean(), [tokens, *model.parameters()], allow_unused=True, materialize_grads=True
    )
    return [slots, *gradients]


def check_compiled_steps(device: str) -> dict[str, float]:
    """Error of recurrent models with compiled steps against the same models without."""
    found = {}
    for kind in RECURRENT:
        model, tokens = recurrent(kind, device, 12, 4)
        expected = run_recurrent(model, tokens)
        switch_compiled_steps(model, True)
        found[kind] = relative_error(run_recurrent(model, tokens)[:2], expected[:2])
        assert found[kind] < 1e-3, f"compiled steps of {kind} differ by {found[kind]:.2g}"
    return found


def check_steps(device: str) -> float:
    """Largest difference between a sequence and the steps of a Mamba layer."""
    torch.manual_seed(0)
    layer, x = Mamba(48).to(device), torch.randn(4, 30, 48, device=device)
    with torch.no_grad():
        whole, _ = layer(x)
        first, state = layer(x[:, :10])
        parts = [first]
        for t in range(10, 30):
            y, state = layer.step(x[:, t], state)
            parts.append(y[:, None])
    error = float((torch.cat(parts, 1) - whole).abs().max())
    assert error < 1e-3, f"steps differ from the sequence by {error:.2g}"
    return error


def check_training(device: str, folder: Path) -> dict[str, float]:
    """Last loss of a few steps of every task in both precisions, each of them also resumed in the middle."""
    found = {}
    for name in ("tiny-oc", "tiny-bcb", "tiny-balls"):
        for precision in ("no", "bf16"):
            settings = [f"train.num_steps={STEPS}", f"train.precision={precision}", "train.log_every_steps=1"]
            settings += ["train.checkpoint_every_steps=10", f"train.eval_every_steps={STEPS}"]
            config = override(preset(name), parse_assignments(settings), "gpu check")
            data = ensure_own_data(config, folder)
            run = RunDirectory(folder / f"{name}-{precision}")
            start_run(config, spec_of(config.data), data, run, device, lambda report: None)
            losses = [line["loss"] for line in read_lines(run.metrics) if line["split"] == "train"]
            (run.checkpoints / f"step-{STEPS:08d}").rename(folder / f"whole-{name}-{precision}")
            resume_run(run, device, lambda report: None, data)
            again = [line["loss"] for line in read_lines(run.metrics) if line["split"] == "train"]
            difference = max(abs(a - b) / abs(a) for a, b in zip(losses, again, strict=True))
            assert difference < 0.05, f"{name} {precision} resumed differs by {difference:.2g}"
            found[f"{name} {precision}"] = losses[-1]
    return found


# --- measurements -----------------------------------------------------------------------------------------


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
            waited, count = 0.0, 3 if quick else 8
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with trainer.loader, numerics(chosen.train, device):
                batches = trainer.loader.batches(0)
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
    """The measurements as tables for docs/gpu.md."""
    lines = [
        f"{found['device']}, torch {torch.__version__}",
        "",
        "| scan (batch, L, E, N) | backend | forward + backward | bandwidth |",
    ]
    lines += ["|---|---|---|---|"]
    for row in found["scans"]:
        shown = f"{1e3 * row['seconds']:.2f} ms | {row['bandwidth']:.0%}"
        lines.append(f"| {tuple(row['shape'])} | `{row['backend']}` | {shown} |")
    lines += ["", "| attention (B, T, K, D) | path | forward + backward |", "|---|---|---|"]
    lines += [
        f"| {tuple(row['shape'])} | {row['path']} | {1e3 * row['seconds']:.2f} ms |" for row in found["attention"]
    ]
    lines += ["", "| recurrent model | path | forward + backward |", "|---|---|---|"]
    lines += [f"| `{row['model']}` | {row['path']} | {1e3 * row['seconds']:.2f} ms |" for row in found["recurrent"]]
    lines += [
        "",
        "| training step | precision | time | frames a second | waiting for data | memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["training"]:
        memory = "–" if row["memory_gib"] is None else f"{row['memory_gib']:.1f} GiB"
        shown = f"{1e3 * row['seconds']:.0f} ms | {row['frames_per_s']:,.0f} | {row['waiting']:.0%} | {memory}"
        lines.append(f"| {row['run']} | {row['precision']} | {shown} |")
    return "\n".join(lines)


def main() -> int:
    """Check, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch finds no CUDA GPU here")
        return 0
    device, began = options.device, time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            "machine": machine(),
            "kernels": check_kernels(device),
            "launches": check_launches(device),
            "flex": check_attention(device),
            "compiled_steps": check_compiled_steps(device),
            "steps": check_steps(device),
            "losses": check_training(device, folder),
            "scans": measure_scans(device, options.quick),
            "attention": measure_attention(device, options.quick),
            "recurrent": measure_recurrent(device, options.quick),
            "training": measure_training(device, folder, options.quick),
        }
    found["seconds"] = time.perf_counter() - began
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, error in found["kernels"].items():
        print(f"{name:<24} differs from the reference by {error:.1e}")
    for name in ("launches", "flex", "compiled_steps"):
        for case, error in found[name].items():
            print(f"{name + ' ' + case:<40} differs by {error:.1e}")
    print(f"{'sequence and steps':<24} differ by {found['steps']:.1e}")
    print(table(found))
    print(f"all checks passed in {found['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
