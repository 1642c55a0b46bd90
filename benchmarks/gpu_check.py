"""Whether everything works on this GPU, and how fast: one script, a few minutes, JSON and a table for docs/gpu.md.

Usage:
    python benchmarks/gpu_check.py [--device cuda] [--quick] [--only NAME,...] [--json FILE]

Checks come first: kernels and each launch of autotuning against the reference, flex against masked attention, sequences
against steps, compiled against plain layers, steps of every kind of model and task that neither wait for the device nor
differ when repeated, twenty training steps of every task in float32 and bfloat16, and runs that are resumed. Then it
measures scans, attention and recurrent models side by side, and training steps of the paper's presets. What fails is
reported at the end, and the file is written after every part, so that a part that fails costs no other.
With `--device cpu --quick` the script itself is tried where there is no GPU.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gpu_measure
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
from torch import Tensor

from slotssm.documents import override, parse_assignments
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.measurement.provenance import machine
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import resume_run, start_run
from slotssm.layers import Mamba, Mamba2
from slotssm.layers.compiled_steps import switch_compiled_steps
from slotssm.ops import convolution
from slotssm.ops.triton import convolution_operator, scan_operator
from slotssm.training.device import numerics
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
STEPS = 20
TASKS = ("tiny-oc", "tiny-bcb", "tiny-balls", "tiny-depth", "tiny-snitch")
SMALL = ("model.slot_dim=16", "model.num_heads=2")
MODELS = {
    **{f"{mixer} mixer": ("tiny-bcb", f"model.time_mixer.kind={mixer}") for mixer in ("mamba", "mamba2", "s4d", "s5")},
    **{
        kind: ("tiny-bcb", f"model.kind={kind}", f"model.num_slots={num_slots}", *SMALL)
        for num_slots, kinds in {
            6: ("slot-transformer", "split-ssm", "slot-rnn", "rim"),
            1: ("transformer", "single-state-ssm"),
        }.items()
        for kind in kinds
    },
    "savi": ("tiny-oc", "model.kind=savi", "model.num_slots=3", *SMALL),
    **{name: (name,) for name in TASKS},
}
"""A preset with changes for every kind of time mixer, model and task."""


def relative_error(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest error of any tensor, relative to its largest value."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ours, theirs, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def check_kernels(device: str) -> dict[str, Any]:
    """Largest relative error of every backend against the reference in float64."""
    backends, found = usable(device), {}
    assert device != "cuda" or "triton" in backends, "Triton's kernels do not serve this GPU; the log says why"
    for dtype, tolerance in TOLERANCES.items():
        arguments = arguments_of((3, 70, 33, 16), device, dtype)
        exact = {name: value.detach().double().requires_grad_() for name, value in arguments.items()}
        expected = forward_backward(exact, "reference")
        for backend in backends:
            error = relative_error(forward_backward(arguments, backend), expected)
            assert error < tolerance, f"{backend} in {dtype} differs from the reference by {error:.2g}"
            found[f"{backend} {str(dtype).removeprefix('torch.')}"] = error
    return found


def check_convolution(device: str) -> dict[str, float]:
    """Largest relative error of Triton's convolution, with its gradients, against plain torch in float64."""
    if device != "cuda":
        return {}
    assert convolution._triton_serves(device, "float32"), "Triton's convolution does not serve this GPU"
    generator, found = torch.Generator().manual_seed(0), {}
    numbers = [torch.randn(size, generator=generator) for size in ((3, 70, 80), (3, 4, 80), (80, 4), (80,))]
    for dtype, tolerance in TOLERANCES.items():
        given = [number.to(device, dtype if index < 2 else torch.float32) for index, number in enumerate(numbers)]
        ours, exact = (
            [each.to(kind or each.dtype).requires_grad_() for each in given] for kind in (None, torch.double)
        )
        outputs = convolution_operator.convolve(*ours), convolution._in_plain_torch(*exact)
        pairs = [
            [y, *torch.autograd.grad(y.float().square().mean(), inputs)]
            for y, inputs in zip(outputs, (ours, exact), strict=True)
        ]
        error = relative_error(*pairs)
        assert error < tolerance, f"the convolution in {dtype} differs from plain torch by {error:.2g}"
        found[str(dtype).removeprefix("torch.")] = error
    return found


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


def check_attention(device: str) -> dict[str, float]:
    """Error of flex attention against masked attention in chunks, if it serves here."""
    layer, slots = attention_of((2, 70, 6, 64), device)
    if not flex_serves(slots):
        assert device != "cuda", "flex attention does not serve this GPU; the log says why"
        return {}
    found = {}
    for name, precision in (("float32", None), ("bfloat16", torch.bfloat16)):
        with torch.autocast(device, precision, enabled=precision is not None):
            error = relative_error(attended(layer, slots, True), attended(layer, slots, False))
        assert error < TOLERANCES[precision or torch.float32] * 2, f"flex attention in {name} differs by {error:.2g}"
        found[name] = error
    return found


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


def check_compiled_layers(device: str) -> dict[str, float]:
    """Error of compiled Mamba layers, whose scan or matrix products must be one graph, against plain ones."""
    found = {}
    for kind in (Mamba, Mamba2):
        torch.manual_seed(0)
        layer, x = kind(64).to(device), torch.randn(4, 70, 64, device=device)
        compiled = torch.compile(layer, fullgraph=True)
        with torch.no_grad():
            found[kind.__name__] = relative_error([compiled(x)[0]], [layer(x)[0]])
        assert found[kind.__name__] < 1e-3, f"compiled {kind.__name__} differs by {found[kind.__name__]:.2g}"
    return found


@contextmanager
def no_waiting(device: str):
    """Raise an error where the processor waits for a GPU."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def check_repeated_steps(device: str, folder: Path) -> dict[str, float]:
    """Last loss of three steps of each kind of model and task, which do not wait, and are the same twice."""
    found = {}
    for name, (base, *changes) in MODELS.items():
        settings = [*changes, "train.deterministic=true", "train.log_every_steps=100", "train.num_steps=100"]
        config = override(preset(base), parse_assignments(settings), "gpu check")
        data, losses = ensure_own_data(config, folder), []
        for _ in range(2):
            trainer = Trainer(config, spec_of(config.data), data, RunDirectory(folder / "unused"), device)
            with trainer.loader, numerics(config.train, device):
                batches = [trainer._to_device(trainer.loader.batch(step)) for step in range(3)]
                trainer._take_step(batches[0])  # compiles kernels
                with no_waiting(device):
                    taken = [trainer._take_step(batch)["loss"] for batch in batches[1:]]
            losses.append([float(loss) for loss in taken])
        assert losses[0] == losses[1], f"deterministic steps of {name} differ: {losses}"
        found[name] = losses[0][-1]
    return found


def check_training(device: str, folder: Path) -> dict[str, float]:
    """Last loss of a few steps of every task in both precisions, each of them also resumed in the middle."""
    found = {}
    for name in TASKS:
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


PARTS: dict[str, Callable[[str, Path, bool], Any]] = {
    "kernels": lambda device, folder, quick: check_kernels(device),
    "convolution": lambda device, folder, quick: check_convolution(device),
    "launches": lambda device, folder, quick: check_launches(device),
    "flex": lambda device, folder, quick: check_attention(device),
    "compiled_layers": lambda device, folder, quick: check_compiled_layers(device),
    "compiled_steps": lambda device, folder, quick: check_compiled_steps(device),
    "steps": lambda device, folder, quick: {"mamba": check_steps(device)},
    "repeated_steps": lambda device, folder, quick: check_repeated_steps(device, folder),
    "losses": lambda device, folder, quick: check_training(device, folder),
    "scans": lambda device, folder, quick: gpu_measure.measure_scans(device, quick),
    "attention": lambda device, folder, quick: gpu_measure.measure_attention(device, quick),
    "recurrent": lambda device, folder, quick: gpu_measure.measure_recurrent(device, quick),
    "training": lambda device, folder, quick: gpu_measure.measure_training(device, folder, quick),
}
"""Parts in order, each from device, a folder for data and runs, and whether to be quick."""


def main() -> int:
    """Check, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch finds no CUDA GPU here")
        return 0
    device, failures = options.device, {}
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "machine": machine(),
        "seconds": {},
        "failures": failures,
    }
    with tempfile.TemporaryDirectory() as place:
        for name in options.only.split(",") if options.only else PARTS:
            began = time.perf_counter()
            try:
                found[name] = PARTS[name](device, Path(place), options.quick)
            except Exception as error:  # whatever fails costs no other part
                traceback.print_exc()
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            found["seconds"][name] = time.perf_counter() - began
            print(f"{name}: {found['seconds'][name]:.1f} s{', failed' if name in failures else ''}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name in ("kernels", "convolution", "launches", "flex", "compiled_layers", "compiled_steps", "steps"):
        for case, error in found.get(name, {}).items():
            print(f"{name + ' ' + case:<40} differs by {error:.1e}")
    print(gpu_measure.table(found))
    for name, reason in failures.items():
        print(f"FAILED {name}: {reason}")
    seconds = sum(found["seconds"].values())
    print(
        f"{len(failures)} parts failed, after {seconds:.0f} s" if failures else f"all checks passed in {seconds:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
