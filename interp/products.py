"""Products with a model's weights by oneDNN where PyTorch would ask MKL and MKL is the slower of the two.

MKL keeps its fastest code for Intel's processors. On others with AVX2 or AVX-512 the same product in oneDNN, which
PyTorch brings along, takes about half the time (`experiments/benchmarks/decode.py --part product`). Both are float32;
the sums are in another order, so the last bits differ, as they do between batch shapes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp.standin import replaced

WORTH = 2**21
"""Multiplications from which a call of oneDNN pays for itself; rows below `ROWS` are bound by reading the weights."""
ROWS = 4


@cache
def worthwhile() -> bool:
    """Whether this processor is one on which oneDNN is the faster, and this PyTorch can ask it."""
    if "GenuineIntel" in _processor() or platform.machine() not in ("x86_64", "AMD64"):
        return False
    x, weight, bias = torch.ones(3, 4), torch.ones(2, 4), torch.ones(2)
    try:
        return bool((_onednn(x, weight, bias) == 5).all())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # not this PyTorch's way to ask
        return False


@contextmanager
def faster(hf: PreTrainedModel) -> Iterator[None]:
    """While open, the model's linear layers are computed the faster way. Only without gradients."""
    with ExitStack() as stack:
        for module in hf.modules():
            forward = linear(module)
            if forward is not None:
                stack.enter_context(replaced(module, forward))
        yield


def linear(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A faster forward of a linear layer, or None where there is none or the module already has a stand-in."""
    if type(module) not in (nn.Linear, Conv1D) or "forward" in module.__dict__ or not worthwhile():
        return None
    weight = module.weight
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    return partial(_product, module, type(module).forward)


def _product(module: Any, plain: Callable[[Any, Tensor], Tensor], x: Float[Tensor, "*batch width"]) -> Tensor:
    weight = module.weight  # looked up at each call: an edit may have replaced it
    rows = x.numel() // x.shape[-1]
    if rows < ROWS or rows * weight.numel() < WORTH or x.dtype != torch.float32 or torch.is_grad_enabled():
        return plain(module, x)
    return _onednn(x, weight.T if isinstance(module, Conv1D) else weight, module.bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _processor() -> str:
    """The processor's maker and name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
