"""What a GPU would have to be waited for, refused on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
ASK = {
    *(aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.argwhere),
    *(aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive),
    *(aten.bincount, aten._coalesce),
}
"""A value, or a size that depends on values."""
BY_INDEX = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
READ = {Tensor.tolist, Tensor.numpy, Tensor.cpu}


class Waited(AssertionError):
    """A step asked for what only a finished computation knows."""


class _Operators(TorchDispatchMode):
    def __init__(self, on_host: Sequence[Tensor]) -> None:
        super().__init__()
        self._on_host = {tensor.data_ptr() for tensor in on_host}

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        asks = packet in ASK and args[0].data_ptr() not in self._on_host
        if packet in BY_INDEX:
            asks = any(index is not None and index.dtype == torch.bool for index in args[1])
        if packet is aten.repeat_interleave:
            asks = kwargs.get("output_size") is None
        if asks:
            raise Waited(str(func))
        return func(*args, **kwargs)


class _Reads(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in READ:
            raise Waited(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(on_host: Sequence[Tensor] = ()) -> Iterator[None]:
    """Raises `Waited` where a GPU would have to be waited for.

    Args:
        on_host: Tensors that lie on the host whatever the device is.
    """
    with _Reads(), _Operators(on_host):
        yield
