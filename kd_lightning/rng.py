"""Private streams of random numbers, so that runs that share a process draw what each would draw alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch


class RngStream:
    """A state of torch's default generators that is swapped in around a block.

    Dropout, stochastic depth and initialisation draw from torch's default generators. Each student of a group owns a
    stream; inside ``with stream:`` the default generators continue that stream, outside they are as they were.

    Args:
        seed: start of the stream.
    """

    def __init__(self, seed: int) -> None:
        self._cpu = torch.Generator().manual_seed(seed).get_state()
        self._seed = seed
        self._cuda: torch.Tensor | None = None
        self._outer: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._paused = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, ``with stream:`` swaps nothing: while a CUDA graph is recorded nobody may set a generator."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __enter__(self) -> RngStream:
        if self._paused:
            return self
        cuda = torch.cuda.is_initialized()  # is_available() looks for the driver anew at each call
        self._outer = (torch.get_rng_state(), torch.cuda.get_rng_state() if cuda else None)
        torch.set_rng_state(self._cpu)
        if cuda:
            if self._cuda is None:
                torch.cuda.manual_seed(self._seed)
            else:
                torch.cuda.set_rng_state(self._cuda)
        return self

    def __exit__(self, *_: object) -> None:
        if self._paused:
            return
        if self._outer is None:
            raise RuntimeError("RngStream left without being entered")
        outer_cpu, outer_cuda = self._outer
        self._cpu = torch.get_rng_state()
        torch.set_rng_state(outer_cpu)
        if outer_cuda is not None:
            self._cuda = torch.cuda.get_rng_state()
            torch.cuda.set_rng_state(outer_cuda)
        self._outer = None

    def state_dict(self) -> dict[str, torch.Tensor | None]:
        """Position in the stream: plain tensors, safe to load with ``weights_only=True``."""
        return {"cpu": self._cpu.clone(), "cuda": None if self._cuda is None else self._cuda.clone()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor | None]) -> None:
        cpu, cuda = state["cpu"], state.get("cuda")
        if cpu is None:
            raise ValueError("the state of a random stream lacks the processor's generator")
        self._cpu = cpu.clone().cpu()
        self._cuda = None if cuda is None else cuda.clone().cpu()
