"""Time and peak memory of one model at one length, in a process of its own whose memory growth is the model's.

Usage:
    python -m slotssm.experiments.measurement.efficiency JSON
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from slotssm.config import ModelConfig
from slotssm.documents import load
from slotssm.models import SlotModel, build_model
from slotssm.registry import MODELS
from slotssm.training.device import resolve_device, return_freed_memory

try:
    import resource
except ImportError:  # not available on Windows, which reports the peak through psutil
    resource = None  # type: ignore[assignment]

REPEATS, SPENT_S = 7, 10.0
"""Largest number of repeats, and the time after which no further repeat starts."""
STREAMED_STEPS = 100
"""Number of single steps that are timed early and late in the sequence."""
EARLY = 2
"""Number of inputs before an early step."""
WARM_UP = 80
"""Inputs of the call that compiles and loads kernels, at least so many that those of long sequences are loaded."""


def measure(config: ModelConfig, length: int, batch: int, tokens: int, limit_s: float, device: str) -> Any:
    """Measure latency, training step, streamed steps and memory.

    Args:
        config: the model.
        length: L.
        batch: number of sequences.
        tokens: tokens per step.
        limit_s: a training step that is expected to take longer is left out.
        device: device to run on.

    Returns:
        JSON-ready: `values` (medians over repeats), and `repeats` with all times.
    """
    torch.manual_seed(0)
    where = resolve_device(device)
    model = build_model(config).to(where).eval()
    inputs = torch.randn(batch, length, tokens, config.slot_dim, device=where)
    with torch.inference_mode():
        model(inputs[:, :WARM_UP])
        inference_bytes, first = _peak_growth(lambda: _timed(lambda: model(inputs), where), where)
        latencies = [first, *_repeated(lambda: model(inputs), where, first)]
        early_steps, steps = _streamed(model, inputs, where)
    repeats = {"latency_s": latencies, "streamed_step_s": steps, "early_step_s": early_steps}
    values = {"inference_bytes": float(inference_bytes)}
    if 4 * min(latencies) < limit_s:
        weights = torch.randn(batch, config.num_slots, config.slot_dim, device=where)
        model.train()
        _training_step(model, inputs[:, :WARM_UP], weights)
        training_bytes, first = _peak_growth(
            lambda: _timed(lambda: _training_step(model, inputs, weights), where), where
        )
        again = _repeated(lambda: _training_step(model, inputs, weights), where, first)
        repeats["training_step_s"] = [first, *again]
        values["training_bytes"] = float(training_bytes)
    values |= {name: statistics.median(times) for name, times in repeats.items()}
    return {"values": values, "repeats": repeats}


def _training_step(model: SlotModel, inputs: Tensor, weights: Tensor) -> None:
    """Forward and backward pass of a loss on the last step, as in Blinking Color Balls, with fresh gradients."""
    model.zero_grad(set_to_none=True)
    (model(inputs).slots[:, -1] * weights).sum().backward()


def _streamed(model: SlotModel, inputs: Tensor, where: str) -> tuple[list[float], list[float]]:
    """Seconds of single steps early and late in the sequence, alternating so that noise affects both equally."""
    states = model(inputs[:, :EARLY]).state, model(inputs).state
    times: tuple[list[float], list[float]] = [], []
    for _ in range(STREAMED_STEPS):
        for state, found in zip(states, times, strict=True):
            found.append(_timed(functools.partial(model.step, inputs[:, -1], state), where))
    return times


def _repeated(work: Callable[[], Any], where: str, first: float) -> list[float]:
    times: list[float] = []
    while len(times) < REPEATS and first + sum(times) < SPENT_S:
        times.append(_timed(work, where))
    return times


def _timed(work: Callable[[], Any], where: str) -> float:
    began = time.perf_counter()
    work()
    if where == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _peak_growth(work: Callable[[], float], where: str) -> tuple[int, float]:
    """Peak memory growth of the process (or of GPU memory) in bytes, and the return value of `work`."""
    if where == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = work()
        return torch.cuda.max_memory_allocated() - before, seconds
    return_freed_memory()  # so that using it again counts
    before = _resident_bytes()
    seconds = work()
    return max(0, _peak_bytes() - before), seconds


def _resident_bytes() -> int:
    """Current resident memory; where the system allows it, the recorded peak is reset first."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return _peak_bytes()
    return _status("VmRSS")


def _peak_bytes() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        if resource is None:
            return int(psutil.Process().memory_info().peak_wset)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def main() -> None:
    """Measure the case that the argument describes as JSON, and print the result as JSON."""
    request = json.loads(sys.argv[1])
    document = request.pop("config")
    config = load(MODELS.config_class(document), document, "config")
    assert isinstance(config, ModelConfig)
    print(json.dumps(measure(config, **request)))


if __name__ == "__main__":
    main()
