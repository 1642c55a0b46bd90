"""How fast the selective scan is on this CPU, beside other implementations and the machine's own limits.

Usage:
    python benchmarks/scan.py [--repeats R] [--quick] [--json]

Implementations take turns within every repeat, so that a disturbance of the machine meets all of them; a turn is one
run, or the median of three short ones, and what takes seconds has one turn. Everything runs in one process with as
many threads as torch chooses, but for the peak memory, which is the growth of the resident set in a process of its
own. Peers: `pscan` is mamba.py's parallel scan (the package mambapy), `transformers` the loop of its Mamba layer
without CUDA kernels. Both are written for a whole layer; here `pscan` gets the same inputs and computes the same
outputs as our scan, and `transformers` is measured as a layer.
"""

import argparse
import ctypes
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from ceiling import limits
from mambapy.mamba import MambaBlock
from mambapy.mamba import MambaConfig as MambapyConfig
from mambapy.pscan import pscan
from torch import Tensor, nn
from transformers import MambaConfig as TransformersConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from slotssm.experiments.measurement.provenance import machine
from slotssm.layers import Mamba, SlotMixer
from slotssm.models.composition import SlotLayer
from slotssm.ops import causal_convolve, selective_scan
from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES

Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [(12, 80, 80, 16), (12, 640, 80, 16), (12, 2560, 80, 16), (48, 2560, 80, 16), (4, 1024, 512, 16)]
"""Batch times slots, steps L, inner channels E, states N."""
QUICK: list[Shape] = SHAPES[:2]
LENGTHS = (320, 640, 1280, 2560, 5120, 10240)
SHORT_S = 0.2
"""What takes less runs three times in a row at each turn, of which the median counts."""
SLOW_S = 2.0
"""What takes longer is measured once, after a first run."""
VERY_SLOW_S = 8.0
"""What takes longer runs but once."""
LONGEST_TRANSFORMERS = 640
"""Its loop over time keeps the whole sequence for every step of its backward pass: time grows with L squared."""
WIDTH, EXPAND, SLOTS = 64, 1.25, 6
"""Of the layers: D, E / D and K."""
LAST = "fused, both, gradient at the last step alone"
"""Such a gradient decays below the smallest normal number on its way back."""


# --- the scans --------------------------------------------------------------------------------------------


def scan_inputs(shape: Shape) -> dict[str, Tensor]:
    """Inputs x, dt (positive step sizes), A, B and C as a trained layer might have them."""
    batch, length, channels, states = shape
    rng = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(batch, length, channels, generator=rng),
        "dt": torch.rand(batch, length, channels, generator=rng) * 0.1,
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": torch.randn(batch, length, states, generator=rng),
        "C": torch.randn(batch, length, states, generator=rng),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def run_pscan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same scan by mamba.py's parallel scan, as its layer calls it."""
    decays = torch.exp(dt.unsqueeze(-1) * A)
    states = pscan(decays, dt.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1))
    return (states @ C.unsqueeze(-1)).squeeze(3)


SCANS: dict[str, Callable[..., Tensor]] = {
    "fused": lambda **inputs: selective_scan(**inputs, backend="fused"),
    "chunked": lambda **inputs: selective_scan(**inputs, backend="chunked"),
    "pscan": run_pscan,
    "reference": lambda **inputs: selective_scan(**inputs, backend="reference"),
}


def scan_jobs(shape: Shape) -> dict[str, Callable[[], None]]:
    """Forward and forward + backward of every scan."""
    inputs = scan_inputs(shape)
    weights = torch.randn(shape[:3])
    jobs = {}
    for name, scan in SCANS.items():
        jobs[f"{name} forward"] = forward_of(scan, inputs)
        jobs[f"{name} both"] = both_of(scan, inputs, weights)
    last = torch.zeros(shape[:3])
    last[:, -1] = weights[:, -1]
    jobs[LAST] = both_of(SCANS["fused"], inputs, last)
    return jobs


def forward_of(function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Callable[[], None]:
    """A job that computes outputs alone."""

    def job() -> None:
        with torch.no_grad():
            function(**inputs)

    return job


def both_of(function: Callable[..., Tensor], inputs: dict[str, Tensor], weights: Tensor) -> Callable[[], None]:
    """A job that computes outputs and the gradients of all inputs."""

    def job() -> None:
        torch.autograd.grad(function(**inputs), list(inputs.values()), weights)

    return job


# --- layers -----------------------------------------------------------------------------------------------


def layer_jobs(length: int) -> dict[str, Callable[[], None]]:
    """Forward + backward of whole layers on 12 sequences, of ours also by part."""
    torch.manual_seed(0)
    mamba = Mamba(WIDTH, expand=EXPAND)
    channels, batch = mamba.d_inner, 2 * SLOTS
    u, inner = torch.randn(batch, length, WIDTH), torch.randn(batch, length, channels)
    layer = SlotLayer(WIDTH, None, Mamba(WIDTH, expand=EXPAND), SlotMixer(WIDTH, 4, 4.0))
    slots = torch.randn(2, length, SLOTS, WIDTH)

    def mix(slots: Tensor) -> Tensor:
        return layer.slot_mixer(slots.flatten(0, 1)).view_as(slots)

    def convolve(u: Tensor) -> Tensor:
        past = u.new_zeros(batch, channels, mamba.d_conv)
        return causal_convolve(u, past, mamba.conv1d.weight[:, 0], mamba.conv_bias)[0]

    def project(u: Tensor) -> Tensor:
        x, _ = mamba.in_proj(u).chunk(2, -1)
        dt = mamba.x_proj(x)[..., : mamba.dt_rank]
        return mamba.out_proj(mamba.dt_proj(dt))

    jobs = {
        "SlotSSM layer": gradient_of(lambda slots: layer.mix_time(mix(slots), None)[0], slots, layer),
        "  its slot mixer": gradient_of(mix, slots, layer.slot_mixer),
        "Mamba block": gradient_of(lambda u: mamba(u)[0], u, mamba),
        "  its scan, with bias, softplus, D and gate": whole_scan(mamba, batch, length),
        "  its convolution and SiLU": gradient_of(convolve, inner, mamba.conv1d),
        "  its linear maps": gradient_of(project, u, mamba),
        "mambapy block": of_module(mambapy_block(mamba), u),
    }
    transformers = transformers_block(mamba)
    jobs["Mamba block, forward alone"] = forward_of(mamba, {"u": u})
    jobs["transformers block, forward alone"] = forward_of(transformers, {"hidden_states": u})
    if length <= LONGEST_TRANSFORMERS:
        jobs["transformers block"] = of_module(transformers, u)
    return jobs


def whole_scan(mamba: Mamba, batch: int, length: int) -> Callable[[], None]:
    """Forward + backward of the scan of a layer, with everything that is fused into it."""
    inputs = scan_inputs((batch, length, mamba.d_inner, mamba.d_state))
    inputs["D"], inputs["delta_bias"] = mamba.D, mamba.dt_proj.bias
    inputs["z"] = torch.randn(batch, length, mamba.d_inner, requires_grad=True)

    def scan(**inputs: Tensor) -> Tensor:
        return selective_scan(**inputs, delta_softplus=True)

    return both_of(scan, inputs, torch.randn(batch, length, mamba.d_inner))


def mambapy_block(mamba: Mamba) -> nn.Module:
    """The same layer in mamba.py."""
    config = MambapyConfig(d_model=WIDTH, n_layers=1, d_state=mamba.d_state)
    config.d_inner = mamba.d_inner
    block = MambaBlock(config)
    block.load_state_dict(mamba.state_dict())
    return block


def transformers_block(mamba: Mamba) -> Any:
    """The same layer in transformers."""
    config = TransformersConfig(hidden_size=WIDTH, state_size=mamba.d_state, num_hidden_layers=1, use_bias=False)
    config.intermediate_size = mamba.d_inner
    mixer = MambaMixer(config, 0)
    mixer.load_state_dict(mamba.state_dict())
    return mixer


def of_module(module: nn.Module, u: Tensor) -> Callable[[], None]:
    """A job that computes outputs and all gradients of a layer."""
    return gradient_of(module, u, module)


def gradient_of(function: Callable[[Tensor], Tensor], u: Tensor, module: nn.Module) -> Callable[[], None]:
    """A job that computes outputs and the gradients of the input and of what parameters take part."""
    inputs = [u.clone().requires_grad_(), *module.parameters()]

    def job() -> None:
        y = function(inputs[0])
        torch.autograd.grad(y, inputs, torch.ones_like(y), allow_unused=True)

    return job


# --- measuring --------------------------------------------------------------------------------------------


def measure(jobs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of every job."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            # by its second run, since the first one compiles and touches memory
            if (repeat >= 2 and seconds[name][-1] > SLOW_S) or (repeat >= 1 and seconds[name][0] > VERY_SLOW_S):
                continue
            turn = [timed(job)]
            # what is short suffers from what the one before it left in the caches
            if turn[0] < SHORT_S:
                turn += [timed(job), timed(job)]
            seconds[name].append(statistics.median(turn))
    return {name: statistics.median(values[1:] or values) for name, values in seconds.items()}


def timed(job: Callable[[], None]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def exponent(repeats: int) -> tuple[dict[int, float], float]:
    """Forward + backward of `fused` over L, and the slope of log time over log L."""
    times = {}
    for length in LENGTHS:
        inputs = scan_inputs((12, length, 80, 16))
        job = both_of(SCANS["fused"], inputs, torch.randn(12, length, 80))
        times[length] = measure({"fused": job}, repeats)["fused"]
    return times, float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def peak_memory(name: str, shape: Shape) -> float:
    """Growth of the resident set in forward + backward, outputs and gradients included, over the inputs' size."""
    command = [sys.executable, __file__, "--memory-of", name, *map(str, shape)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(name: str, shape: Shape) -> None:
    """What `peak_memory` reads from its own process."""
    small = (2, 40, shape[2], shape[3])
    both_of(SCANS[name], scan_inputs(small), torch.randn(small[:3]))()
    inputs = scan_inputs(shape)
    job = both_of(SCANS[name], inputs, torch.ones(()).expand(shape[:3]))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # 5 resets the peak
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    job()
    print((resident("VmHWM") - before) / sum(tensor.nbytes for tensor in inputs.values()))


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


# --- reporting --------------------------------------------------------------------------------------------


def results(shapes: list[Shape], repeats: int) -> dict[str, Any]:
    """All measurements."""
    document: dict[str, Any] = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "vector_bytes": VECTOR_BYTES,
        "repeats": repeats,
        "limits": limits(),
        "scans": [],
        "layers": [],
    }
    for shape in shapes:
        note(f"scans at {shape}")
        seconds = measure(scan_jobs(shape), repeats)
        document["scans"].append({"shape": shape, "seconds": seconds})
        gc.collect()
    if sys.platform == "linux":
        for entry in document["scans"]:
            note(f"memory at {entry['shape']}")
            names = SCANS if math.prod(entry["shape"]) < 1e8 else ("fused", "chunked")
            entry["memory"] = {name: peak_memory(name, entry["shape"]) for name in names if name != "reference"}
    for length in sorted({shape[1] for shape in shapes if shape[2] == 80}):
        note(f"layers at L = {length}")
        document["layers"].append({"length": length, "seconds": measure(layer_jobs(length), repeats)})
    if shapes != QUICK:
        note("growth with L")
        times, slope = exponent(repeats)
        document["growth"] = {"seconds": times, "exponent": slope}
    return document


def note(text: str) -> None:
    """Say on stderr what is measured now."""
    print(text, file=sys.stderr, flush=True)


def report(document: dict[str, Any]) -> str:
    """The tables that a person reads."""
    facts, limit = document["machine"], document["limits"]
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {document['threads']} threads, vectors of "
        f"{document['vector_bytes']} bytes; Python {facts['python']}, torch {document['torch']}, "
        f"numba {document['numba']}; medians of {document['repeats']}",
        f"limits: {limit['exp2_fma_per_ns']:.1f} billion exp2 + multiply-add a second in registers, "
        f"copying {limit['bandwidth_gb_per_s']:.1f} GB/s; `both` is forward + backward",
        "of ceiling: exponentials a second (one an update forward, two for both) over that limit; of bandwidth: "
        "inputs, outputs and gradients, each once, over copying",
    ]
    for entry in document["scans"]:
        lines += scan_lines(entry, limit)
    for entry in document["layers"]:
        whole = entry["seconds"]["Mamba block"]
        lines += [
            "",
            f"layers, 12 sequences, L = {entry['length']}, forward + backward",
            f"{'':46}{'ms':>10}{'ratio':>8}",
        ]
        lines += [f"{name:46}{s * 1e3:>10.2f}{s / whole:>8.2f}" for name, s in entry["seconds"].items()]
    if growth := document.get("growth"):
        points = ", ".join(f"{length}: {s * 1e3:.1f} ms" for length, s in growth["seconds"].items())
        lines += ["", f"fused, forward + backward over L: {points}; exponent {growth['exponent']:.3f}"]
    return "\n".join(lines)


def scan_lines(entry: dict[str, Any], limit: dict[str, float]) -> list[str]:
    """One table: times, ratio to pscan, state updates a second, shares of the limits, memory."""
    seconds, memory = entry["seconds"], entry.get("memory", {})
    batch, length, channels, states = entry["shape"]
    updates = math.prod(entry["shape"]) / 1e9
    # forward: x, dt, B, C, y; backward: these again (y as its gradient) and the gradients of x, dt, B and C
    once = 4e-9 * batch * length * (3 * channels + 2 * states)
    twice = once + once + 4e-9 * batch * length * (2 * channels + 2 * states)
    columns = f"{'forward':>14}{'both':>14}{'both, x pscan':>15}{'G updates/s':>15}{'of ceiling':>13}"
    lines = [
        "",
        f"scan at (batch x slots, L, E, N) = {tuple(entry['shape'])}",
        f"{'':12}{columns}{'of bandwidth':>14}{'memory':>9}",
    ]
    for name in SCANS:
        forward, both = seconds[f"{name} forward"], seconds[f"{name} both"]
        rates = f"{updates / forward:.2f} / {updates / both:.2f}"
        ceiling_per_ns, bandwidth_per_s = limit["exp2_fma_per_ns"], limit["bandwidth_gb_per_s"]
        shares = f"{updates / forward / ceiling_per_ns:.0%} / {2 * updates / both / ceiling_per_ns:.0%}"
        moved = f"{once / forward / bandwidth_per_s:.0%} / {twice / both / bandwidth_per_s:.0%}"
        used = f"{memory[name]:.1f} x" if name in memory else "-"
        lines.append(
            f"{name:12}{forward * 1e3:>11.2f} ms{both * 1e3:>11.2f} ms{seconds['pscan both'] / both:>15.1f}"
            f"{rates:>15}{shares:>13}{moved:>14}{used:>9}"
        )
    return [*lines, f"{LAST}: {seconds[LAST] * 1e3:.2f} ms"]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="repeats to take the median of")
    parser.add_argument("--quick", action="store_true", help="the two shortest shapes only")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    parser.add_argument("--memory-of", nargs=5, metavar=("SCAN", "B", "L", "E", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        name, *shape = arguments.memory_of
        print_peak_memory(name, tuple(map(int, shape)))  # type: ignore[arg-type]
        return
    document = results(QUICK if arguments.quick else SHAPES, arguments.repeats)
    print(json.dumps(document, indent=2) if arguments.json else report(document))


if __name__ == "__main__":
    main()
