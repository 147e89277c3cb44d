"""Products with a model's weights by oneDNN where PyTorch would ask MKL and MKL is the slower of the two.

MKL keeps its AVX-512 code for Intel's processors. On an AMD EPYC that has AVX-512 the same product in oneDNN, which
PyTorch brings along, takes about half the time; on one with AVX2 alone MKL is the faster by a tenth to a fifth
(`experiments/benchmarks/decode.py --part product`). Both are float32; the sums are in another order, so the last bits
differ, as they do between batch shapes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from interp.standin import replaced

LARGE = 2**19
"""Numbers in a weight from which it is worth it: on the demo's model it gained 3 % and took a third more memory."""


@cache
def worthwhile() -> bool:
    """Whether this processor is one on which oneDNN is the faster, and this PyTorch can ask it."""
    if "GenuineIntel" in processor() or platform.machine() not in ("x86_64", "AMD64") or platform.system() == "Darwin":
        return False
    # With AVX2 MKL is at its best on any processor.
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and possible()


def possible() -> bool:
    """Whether this PyTorch has both libraries, and oneDNN can be asked."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    x, weight, bias = torch.ones(3, 4), torch.ones(2, 4), torch.ones(2)
    try:
        return bool((onednn(x, weight, bias) == 5).all())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # not this PyTorch's way to ask
        return False


def processor() -> str:
    """The processor's maker and name, as far as the system tells; speed depends on it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    told = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    said = {key.strip(): value.strip() for key, value in told.items()}
    return " ".join(said[key] for key in ("vendor_id", "model name") if key in said)


@contextmanager
def faster(hf: PreTrainedModel) -> Iterator[None]:
    """While open, the model's linear layers are computed the faster way. Only without gradients and autocast."""
    with ExitStack() as stack:
        for module in hf.modules():
            forward = linear(module)
            if forward is not None:
                stack.enter_context(replaced(module, forward))
        yield


def linear(module: nn.Module) -> Callable[..., Tensor] | None:
    """A faster forward of a large linear layer, or None where there is none or the module already has a stand-in."""
    if type(module) not in (nn.Linear, Conv1D) or "forward" in module.__dict__ or not worthwhile():
        return None
    weight: Any = module.weight
    plain = type(weight) is nn.Parameter and type(weight.data) is Tensor  # what quantises may look like float32
    if not plain or weight.numel() < LARGE or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    return partial(_product, module, type(module).forward)


def _product(module: Any, plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    # Looked up at each call: an edit may have replaced it.
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    if len(args) != 1 or kwargs or not _faster(args[0], weight):
        return plain(module, *args, **kwargs)
    return onednn(args[0], weight, module.bias)


def _faster(x: Tensor, weight: Tensor) -> bool:
    plain = (
        x.shape[-1] == weight.shape[1]
        and x.numel() > 0
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
    return plain and torch.backends.mkldnn.enabled and not torch.compiler.is_compiling()


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The linear layer by oneDNN, float32, without gradients."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
