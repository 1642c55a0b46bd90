"""How fast SlotTransformer's attention is on this CPU, beside the other ways that torch offers to compute it.

Usage:
    python benchmarks/attention.py [--lengths 640,2560] [--repeats R] [--json]

Every slot reads all slots of its own and of earlier steps. `ours` walks over chunks of queries; `mask` gives torch's
fused kernel the whole mask, which is L·K x L·K; `flex` is torch's compiled flex attention, where it compiles;
`is_causal` is the kernel's own causal order, which is wrong here (slots of one step do not all see each other) but
shows what the fastest kernel of torch needs for as many scores. Implementations take turns within every repeat.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from slotssm.experiments.measurement.provenance import machine
from slotssm.layers.time_mixers.causal_attention import block_causal_attention

BATCH, HEADS, SLOTS, WIDTH = 6, 4, 6, 64
LARGEST_MASK_BYTES = 4 << 30
"""A mask that is larger is left out."""


def variants(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Implementations by name."""
    rows = q.shape[2]
    found: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: block_causal_attention(q, k, v, SLOTS),
        "is_causal": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    if 4 * rows**2 <= LARGEST_MASK_BYTES:
        step = torch.arange(rows) // SLOTS
        mask = torch.zeros(rows, rows).masked_fill_(step[None] > step[:, None], float("-inf"))
        found["mask"] = lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    try:
        found["flex"] = compiled_flex(q, k, v)
    except Exception as error:
        print(f"flex attention does not run here: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    return found


def compiled_flex(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Torch's flex attention with the block mask, compiled and run once."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    rows = q.shape[2]
    mask = create_block_mask(lambda b, h, i, j: j // SLOTS <= i // SLOTS, None, None, rows, rows, device="cpu")
    compiled = torch.compile(flex_attention)
    job = lambda: compiled(q, k, v, block_mask=mask)  # noqa: E731 - a table of functions
    expected = block_causal_attention(q, k, v, SLOTS)
    torch.testing.assert_close(job().transpose(1, 2).flatten(2), expected, rtol=1e-3, atol=1e-4)
    return job


def measure(length: int, repeats: int) -> dict[str, float]:
    """Median seconds of every implementation, forward."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, BATCH, HEADS, length * SLOTS, WIDTH // HEADS)
    jobs = variants(q, k, v)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, job in jobs.items():
                began = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - began)
    # the first run touches memory for the first time
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="640,2560")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    lengths = [int(word) for word in arguments.lengths.split(",")]
    times = {length: measure(length, arguments.repeats) for length in lengths}
    if arguments.json:
        print(json.dumps({"machine": machine(), "seconds": times}, indent=2))
        return
    facts = machine()
    print(f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}")
    print(f"attention of {SLOTS} slots a step, batch {BATCH}, width {WIDTH}, {HEADS} heads, forward:")
    for length, found in times.items():
        shown = ", ".join(f"{name} {value * 1e3:.0f} ms" for name, value in found.items())
        print(f"L = {length:>5}  {shown}")


if __name__ == "__main__":
    main()
