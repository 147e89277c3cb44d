"""Devices that are pretended: tensors that say they lie on `pretend:0` or `pretend:1`, and are computed on the CPU.

A GPU refuses what a CPU lets pass: a mask, a weight or a generator that was left on another device. Where no GPU is at
hand, this finds such places in the real code with real numbers. It says nothing about speed, kernels or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = "pretend"
"""The type of device that code asks for: PyTorch's place for other backends, under this name."""

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor}
"""Here a GPU takes indices that lie on the CPU."""


class Placed(Tensor):
    """A tensor on a pretended device; `held` is its value on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor, device: torch.device) -> Placed:
        made = Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=device,
        )
        made.held = real
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Placed({self.held!r}, {self.device})"

    def tolist(self) -> Any:
        """As a GPU's tensors do; those of other subclasses have none."""
        return self.cpu().tolist()

    # A list as an index is made a tensor on this device, below the reach of a mode.
    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_no_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_no_lists(index), value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


@contextmanager
def pretend_devices() -> Iterator[None]:
    """While it is on, `device="pretend:0"`, `"pretend:1"`, ... can be asked for."""
    _register()
    # PyTorch notes on first use which functions `with torch.device(...)` reaches: let it note the real ones, not those
    # put in below. Else `torch.tensor` is out of reach to the end of the process, and transformers, which asks by it
    # whether a model is being made on `meta`, leaves buffers that are in no file unfilled.
    with torch.device("cpu"):
        torch.empty(0)
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else `.to` keeps the shell of the old parameter
    try:
        with (
            torch.autograd.set_multithreading_enabled(False),  # a thread for each device would miss the mode
            patch("torch.tensor", _then_moved(torch.tensor)),
            patch("torch.as_tensor", _then_moved(torch.as_tensor)),
            _Mode(),
        ):
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(replaced)


@cache
def _register() -> None:
    """Once a process: a name, and device guards that do nothing."""
    backend_registration._setup_privateuseone_for_python_backend(DEVICE)


def _then_moved(factory: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` fills its storage below the reach of a mode: made on the CPU, then moved as any tensor is."""

    def make(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made = factory(data, **options)
        return made if device is None else made.to(device)

    return make


class _Mode(TorchDispatchMode):
    """Catches what makes the first tensor on a device: factories and copies of plain tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, refused where a GPU would refuse it for the places of its arguments."""
    leaves = _leaves((args, kwargs))
    if not any(isinstance(leaf, Placed) or (isinstance(leaf, torch.device) and leaf.type == DEVICE) for leaf in leaves):
        return func(*args, **kwargs)
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    device = _one_device(func, args, leaves, asked)
    for generator in (leaf for leaf in leaves if isinstance(leaf, torch.Generator)):
        if device.type != generator.device.type:
            raise RuntimeError(f"{func}: expected a generator on {device}, found one on {generator.device}")
    out = func(*_each(_real, args), **_each(_real, kwargs))
    if device.type != DEVICE:
        return out
    placed = _each(lambda x: Placed(x, device) if isinstance(x, Tensor) and not isinstance(x, Placed) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, placed)


def _no_lists(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_no_lists(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


# PyTorch's own trees know more types than operations take and give, and took half the time of all tests on devices.
def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return _leaves(list(tree.values())) if isinstance(tree, dict) else [tree]


def _each(change: Callable[[Any], Any], tree: Any) -> Any:
    if type(tree) in (tuple, list):
        return type(tree)([_each(change, part) for part in tree])
    if type(tree) is dict:
        return {name: _each(change, part) for name, part in tree.items()}
    return change(tree)


def _real(x: Any) -> Any:
    if isinstance(x, Placed):
        return x.held
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == DEVICE else x


def _one_device(func: Any, args: Any, leaves: list[Any], asked: torch.device | None) -> torch.device:
    """Where the result lies. Raises RuntimeError where the arguments lie apart and may not."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if func in COPIES:
        return args[0].device if func is aten.copy_.default or asked is None else asked
    if func in INDEXED:
        tensors = [t for t in tensors if isinstance(t, Placed)] if isinstance(args[0], Placed) else tensors
    where = {t.device for t in tensors if t.dim() > 0 or isinstance(t, Placed)}
    if len(where) > 1:
        shapes = ", ".join(f"{list(t.shape)} on {t.device}" for t in tensors)
        raise RuntimeError(f"{func}: expected all tensors on one device, found {shapes}")
    if asked is not None:
        return asked
    return where.pop() if where else torch.device("cpu")
