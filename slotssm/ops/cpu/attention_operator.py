"""Attention with few queries and keys as a torch operator: `attention_kernels`, run in threads."""

from typing import Any

import torch
from torch import Tensor

from slotssm.ops.cpu import threads
from slotssm.ops.cpu.tiling import as_array
from slotssm.ops.operators.dtypes import dtype_name
from slotssm.ops.operators.registration import Computation, DifferentiableOperator


def _forward_kernel(dtype: str) -> Any:
    from slotssm.ops.cpu import attention_kernels
    from slotssm.ops.cpu.codegen import compiler

    return compiler.compile_kernel(attention_kernels.forward, (1, 3, 3, 3, 3), dtype)


def _backward_kernel(dtype: str) -> Any:
    from slotssm.ops.cpu import attention_kernels
    from slotssm.ops.cpu.codegen import compiler

    return compiler.compile_kernel(attention_kernels.backward, (1, 3, 3, 3, 3, 3, 3, 3), dtype)


def prepare(dtype: str) -> None:
    """Compile the kernels for float32 or float64, or load them from the cache on disk."""
    _forward_kernel(dtype)
    _backward_kernel(dtype)


def _run(kernel: Any, query: Tensor, key_value: Tensor, num_heads: int, arrays: list[Any]) -> None:
    from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES

    rows, num_queries, dim = query.shape
    scale = torch.full((1,), (dim // num_heads) ** -0.5, dtype=query.dtype)
    keys, values = key_value.chunk(2, dim=2)
    inputs = [scale.numpy(), *(as_array(tensor) for tensor in (query, keys, values))]
    num_groups = -(-rows * query.element_size() // VECTOR_BYTES)
    work = 8 * rows * num_queries * key_value.shape[1] * dim // 16
    threads.run(kernel, num_groups, work, num_heads, *inputs, *arrays)


def _forward(query: Tensor, key_value: Tensor, num_heads: int) -> Tensor:
    y = query.new_empty(query.shape)
    _run(_forward_kernel(dtype_name(query.dtype)), query, key_value, num_heads, [y.numpy()])
    return y


def _allocate(query: Tensor, key_value: Tensor, num_heads: int) -> Tensor:
    return query.new_empty(query.shape)


def _backward(query: Tensor, key_value: Tensor, num_heads: int, grad_y: Tensor) -> tuple[Tensor, Tensor]:
    grad_query, grad_key_value = query.new_empty(query.shape), key_value.new_empty(key_value.shape)
    gradients = [tensor.numpy() for tensor in (grad_query, *grad_key_value.chunk(2, dim=2))]
    kernel = _backward_kernel(dtype_name(query.dtype))
    _run(kernel, query, key_value, num_heads, [as_array(grad_y), *gradients])
    return grad_query, grad_key_value


def _allocate_gradients(query: Tensor, key_value: Tensor, num_heads: int, grad_y: Tensor) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key_value.new_empty(key_value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key_value, ctx.num_heads = inputs
    ctx.save_for_backward(query, key_value)


def _differentiate(ctx: Any, backward: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return *backward(*ctx.saved_tensors, ctx.num_heads, grad_y), None


_INPUTS = "Tensor query, Tensor key_value, int num_heads"
small_attention = DifferentiableOperator(
    "small_attention",
    forward=Computation(f"({_INPUTS}) -> Tensor", _forward, _allocate),
    backward=Computation(f"({_INPUTS}, Tensor grad_y) -> (Tensor, Tensor)", _backward, _allocate_gradients),
    save=_save,
    differentiate=_differentiate,
    dispatch_key="cpu",
)


def attend(query: Tensor, key_value: Tensor, num_heads: int) -> Tensor:
    """Attention of queries [B, Q, D] to keys and values [B, M, 2 D]; both float32 or both float64."""
    return small_attention(query, key_value, num_heads)
