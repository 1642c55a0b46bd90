"""Compilation of the kernels: for all sizes, for any processor, and from the cache on disk."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scan_cases import LAYOUTS, random_convolution, random_scan, run

import slotssm
from slotssm.ops import causal_convolve
from slotssm.ops.cpu import convolution_operator, scan_operator

KERNELS = [scan_operator._forward_kernel, scan_operator._backward_kernel]
KERNELS += [convolution_operator._forward_kernel, convolution_operator._backward_kernel]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_version_of_a_kernel_serves_all_sizes_and_strides(kernel, dtype):
    for layout in LAYOUTS.values():
        for length, channels, states in ((1, 1, 1), (40, 17, 5)):
            arguments = random_scan(length, channels, states, dtype=getattr(torch, dtype))
            run({name: layout(value) for name, value in arguments.items()})[0].sum().backward()
            inputs = [layout(value.to(getattr(torch, dtype))) for value in random_convolution(length, channels)]
            causal_convolve(*inputs)[0].sum().backward()
    assert len(kernel(dtype).signatures) == 1
    assert not kernel(dtype)._can_compile


def _cache_use():
    """How often kernels were found in the cache, and how often not."""
    for module in (scan_operator, convolution_operator):
        for dtype in ("float32", "float64"):
            module.prepare(dtype)
    stats = [kernel("float32").stats for kernel in KERNELS]
    return [sum(each.cache_hits.values()) for each in stats], [sum(each.cache_misses.values()) for each in stats]


def test_a_second_process_compiles_nothing(as_users):
    _cache_use()
    assert as_users(_cache_use) == ([1] * 4, [0] * 4)


def test_the_compiler_is_not_loaded_with_the_package(environment):
    code = "import sys, slotssm.ops; print({'numba', 'llvmlite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.slow
def test_a_kernel_is_compiled_anew_when_the_code_that_it_is_built_from_changes(tmp_path, environment):
    shutil.copytree(
        Path(slotssm.__file__).parent, tmp_path / "slotssm", ignore=shutil.ignore_patterns("__pycache__", "*.nb?")
    )
    code = "import torch; from slotssm.ops.cpu.convolution_operator import convolve; "
    code += "print(float(convolve(*(torch.ones(s) for s in ((1, 3, 2), (1, 4, 2), (2, 4), (2,)))).abs().sum()))"
    command = {"args": [sys.executable, "-c", code], "cwd": tmp_path, "env": environment, "text": True}
    assert float(subprocess.run(**command, check=True, capture_output=True).stdout) > 1
    with (tmp_path / "slotssm/ops/cpu/codegen/vector_functions.py").open("a") as functions:
        functions.write("\n\ndef sigmoid(x):\n    return x.builder.as_vector(0.0)\n")
    assert float(subprocess.run(**command, check=True, capture_output=True).stdout) == 0


SCAN_ON_ANOTHER_PROCESSOR = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from scan_cases import random_scan, relative_error
from slotssm.ops import selective_scan
from slotssm.ops.cpu import scan_operator
from slotssm.ops.cpu.codegen import simd

arguments, found = random_scan(65, channels=21, states=7, dtype=torch.float32), {}
for backend in ("fused", "reference"):
    y, final = selective_scan(**arguments, delta_softplus=True, return_final_state=True, backend=backend)
    gradients = torch.autograd.grad(y.square().sum() + final.sum(), list(arguments.values()))
    found[backend] = [y.detach(), final.detach(), *gradients]
assert max(map(relative_error, found["fused"], found["reference"])) < 1e-5
hits = scan_operator._forward_kernel("float32").stats.cache_hits
print(simd.VECTOR_BYTES, sum(hits.values()))
"""


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    """A folder for the cache, as in a home that machines with different processors share."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("features", "width"), [("+avx,+avx2,+fma", 32), ("", 16)])
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="features of another architecture")
def test_narrower_registers_give_the_same_results_from_code_of_their_own(features, width, shared_cache, environment):
    settings = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(shared_cache)}
    command = [sys.executable, "-c", SCAN_ON_ANOTHER_PROCESSOR, str(Path(__file__).parent.parent)]
    done = subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == [str(width), "0"], done.stderr


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, 16),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx2,-avx512f"}, 32),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx2,+avx512f"}, 64),
        ({"NUMBA_ENABLE_AVX": "0"}, 16),
    ],
)
def test_vectors_are_as_wide_as_the_registers_that_numba_compiles_for(settings, width, environment):
    command = [sys.executable, "-c", "from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES; print(VECTOR_BYTES)"]
    done = subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(width), done.stderr
