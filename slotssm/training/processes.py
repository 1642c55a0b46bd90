"""The processes of a launcher that train one run together: who they are, what they average, and how they agree.

`torchrun`, and `accelerate launch`, which uses it, tell every process its place in environment variables. Tensors are
averaged through NCCL on CUDA and gloo on the CPU; decisions are made in a second group, which uses gloo on every
device, so that no decision waits for a GPU. This is not torch's DistributedDataParallel, which orders its buckets anew
after the first step, so that a resumed run would round its sums differently, and refuses parameters that some steps do
not use.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from slotssm.errors import InputError, SlotSSMError

T = TypeVar("T")

_LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for the first one, which may be generating data."""

_LAST_WORDS = timedelta(seconds=20)
"""How long processes wait for another one to say why it ends."""


class FailedElsewhere(SlotSSMError):
    """Another process of the training failed, and says why; this one ends with the same exit code."""

    is_told = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this training has ended")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Processes:
    """The processes that train a run together, seen from one of them.

    Methods that communicate must be called by all processes in the same order.

    Attributes:
        rank: index of this process.
        size: number of processes.
        decisions: the group in which decisions are made; None for one process.
    """

    rank: int = 0
    size: int = 1
    decisions: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.decisions)
        return found

    def from_first(self, compute: Callable[[], T]) -> T:
        """The result of a function that only the first process calls; if it fails, all fail."""
        result = self.together(compute if self.is_first else lambda: None)
        return result if self.size == 1 else self.gather(result)[0]  # type: ignore[return-value]

    def first_before_others(self, compute: Callable[[], T]) -> T:
        """The result of a function that the first process calls before the others, which find what it has cached."""
        if self.size == 1:
            return compute()
        early = self.together(lambda: [compute()] if self.is_first else [])
        late = self.together(lambda: [] if self.is_first else [compute()])
        return (early or late)[0]

    def together(self, compute: Callable[[], T]) -> T:
        """The result of a function that every process calls; if it fails in one of them, all fail.

        The first process in which it fails raises its error, the others raise `FailedElsewhere`.
        """
        if self.size == 1:
            return compute()
        error: BaseException | None = None
        result: Any = None
        try:
            result = compute()
        except BaseException as raised:
            error = raised
        codes = self.gather(None if error is None else _exit_code(error))
        failed = {rank: code for rank, code in enumerate(codes) if code is not None}
        if error is not None and min(failed) == self.rank:
            raise error
        if failed:
            raise FailedElsewhere(failed[min(failed)])
        return result

    def voiced(self, error: SlotSSMError) -> SlotSSMError:
        """An error that all processes raise: itself in the first, which tells it, and a silent one in the others."""
        return error if self.is_first else FailedElsewhere(error.exit_code)

    def agreed_signal(self, name: str) -> str:
        """Name of a signal that any process has received, or an empty string.

        Args:
            name: name of the signal that this process has received; empty if it has not.
        """
        if self.size == 1:
            return name
        number = torch.tensor([signal.Signals[name].value if name else 0])
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self.decisions)
        agreed = int(number)
        return signal.Signals(agreed).name if agreed else ""

    def mean(self, scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means of scalars over all processes; they stay on their device, and nothing waits for it."""
        if self.size == 1:
            return dict(scalars)
        together = torch.stack([value.float() for value in scalars.values()]) / self.size
        dist.all_reduce(together)
        return dict(zip(scalars, together.unbind(), strict=True))

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give the tensors of all processes, such as weights, the values that they have in the first one."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their means over all processes.

        They travel in one buffer, always in the same order: sums are rounded alike before and after an interruption. A
        parameter without a gradient keeps none, unless another process has one.
        """
        if self.size == 1:
            return
        has_gradient = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX, group=self.decisions)
        used = [parameter for parameter, is_used in zip(parameters, has_gradient.tolist(), strict=True) if is_used]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in used if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients]).div_(self.size)
        dist.all_reduce(together)
        parts = together.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(
            gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        )


ALONE = Processes()
"""The only process of a training."""


def launched_processes() -> int:
    """Number of processes that a launcher started to train together; 1 without one.

    Variables of schedulers, such as those of MPI, are ignored: their processes may be independent runs.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if "TORCHELASTIC_RUN_ID" in os.environ and size.isdecimal() else 1


def refuse_several_processes() -> None:
    """Refuse to run as one of several processes of a launcher, which would all do the same work."""
    size = launched_processes()
    if size > 1:
        raise InputError(
            f"this is done by one process, but the launcher started {size}; only the training of a single run is shared"
        )


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that a launcher started; without one this is the only process.

    Args:
        device: `cpu` or `cuda`, of which each process of a machine takes its own.

    Raises:
        InputError: the device cannot be shared out, or has too few GPUs.
    """
    if launched_processes() == 1:
        yield ALONE
        return
    if not dist.is_available() or device not in ("cpu", "cuda"):
        raise InputError(f"`device` {device}: several processes train on CPUs or on CUDA GPUs only")
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(
                f"process {local} of this machine has no GPU: torch finds {torch.cuda.device_count()}; start one "
                "process on each"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        decisions = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
        processes = Processes(dist.get_rank(), dist.get_world_size(), decisions)
        if not processes.is_first:
            logging.getLogger("slotssm").setLevel(logging.ERROR)
        with _losses_explained():
            yield processes
    except FailedElsewhere:
        # a launcher ends all processes when one has ended, and the other has yet to say why
        with suppress(RuntimeError):
            dist.barrier(group=decisions, async_op=True).wait(_LAST_WORDS)
        raise
    except SlotSSMError:
        # the connection stays open until the error is told
        raise
    except BaseException:
        dist.destroy_process_group()
        raise
    else:
        dist.destroy_process_group()


@contextmanager
def _losses_explained() -> Iterator[None]:
    """Explain errors of the communication, which mean that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise SlotSSMError(
            "another process of this training has ended or cannot be reached; the last checkpoint is kept, and "
            f"`resume` continues from it ({str(error).splitlines()[0]})"
        ) from None


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 3
    return error.exit_code if isinstance(error, SlotSSMError) else 1


def refuse_unequal(values: Sequence[Any], what: str) -> None:
    """Refuse values of several processes that should be equal, such as the hashes of their files."""
    if any(value != values[0] for value in values):
        ranks = ", ".join(str(rank) for rank, value in enumerate(values) if value != values[0])
        raise InputError(f"{what} of process {ranks} differs from that of process 0")
