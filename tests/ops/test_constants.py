"""The mark that torch.compile understands."""

import torch

from slotssm.ops.operators.constants import constant_when_compiled


def test_the_mark_is_that_of_torch():
    def ours() -> int:
        return 1

    def theirs() -> int:
        return 1

    assert constant_when_compiled(ours) is ours
    assert vars(ours) == vars(torch.compiler.assume_constant_result(theirs)) != {}
