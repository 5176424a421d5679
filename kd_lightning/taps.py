"""Named layers of a model -> features: what intermediate-layer methods look at, without changing the model's code."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.calling import ask, unwrapped
from kd_lightning.errors import NoSuchLayer, UserError
from kd_lightning.layout import channels_first, split_layout
from kd_lightning.outputs import ModelOutput, as_model_output

INPUT = ":input"


class Taps:
    """Captures the outputs of named layers while a model runs, and adds them to its output as features.

    ``Taps(model, {"hint": "stages.2"})`` hooks the layer that ``model.named_modules()`` calls ``stages.2``;
    ``taps(model, inputs)`` then runs the model and returns its ModelOutput with ``features["hint"]``. Between two
    calls nothing is held: no feature, and so no autograd graph, outlives the step.

    ``"classifier:input"`` captures what goes into a layer instead of what comes out. A layer that runs several times in
    one forward gives its last output; one that returns a tuple gives the tuple's first tensor. Maps with their channels
    behind (N, H, W, C) are turned to (N, C, H, W); ``"features.3:nhwc"`` and ``":nchw"`` say what a layer gives where
    its parts do not tell, ``"blocks.3:map"`` makes a map of a transformer's tokens (:mod:`kd_lightning.layout`).

    Make the taps before ``torch.compile`` or DistributedDataParallel wraps the model, then call them with the wrapped
    one: ``taps(compiled, inputs)``.

    Args:
        model: the module whose layers are meant.
        layers: tap name -> layer name; may be empty.
        role: "student" or "teacher", for the config key in error messages.

    Raises:
        UserError: the model has no layer of that name.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, str], role: str = "student") -> None:
        self.layers = dict(layers)
        self._role = role
        self._captured: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._recording = False
        modules = dict(unwrapped(model).named_modules())
        self._handles = []
        for tap, layer in self.layers.items():
            plain, layout = split_layout(str(layer))
            name = plain.removesuffix(INPUT)
            if not name or name not in modules:
                key = f"method.taps.{role}" if tap == layer else f"method.taps.{role}.{tap}"
                raise NoSuchLayer(f"{key}: {no_such_layer(name, list(modules))}", str(layer))
            hook = self._hook(tap, of_input=plain.endswith(INPUT), layout=layout)
            self._handles.append(modules[name].register_forward_hook(hook))

    def __call__(self, forward: Callable[[Any], Any], inputs: Any) -> ModelOutput:
        """Run ``forward(inputs)`` and return its ModelOutput with one feature per tap.

        Raises:
            UserError: a tapped layer did not run, gave no tensor, or was overwritten by a later in-place operation.
        """
        if not self.layers:
            return as_model_output(ask(forward, inputs))
        self._recording = True
        try:
            output = as_model_output(ask(forward, inputs))
            self._check()
            return replace(output, features={**output.features, **self._captured})
        finally:
            self._recording = False
            self._captured.clear()
            self._versions.clear()

    def remove(self) -> None:
        """Take the hooks off the model again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, tap: str, of_input: bool, layout: str | None) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # Outside of a call (activation checkpointing runs layers again during backward) nothing may be kept.
            if not self._recording:
                return
            value = args[0] if of_input and args else None if of_input else output
            if isinstance(value, (tuple, list)):
                value = next((item for item in value if isinstance(item, Tensor)), None)
            if isinstance(value, Tensor):
                where = f"method.taps.{self._role}.{tap}: layer {self.layers[tap]!r}"
                if not of_input or layout is not None:
                    value = channels_first(value, module, layout, where)
                self._captured[tap] = value
                if not torch.compiler.is_compiling() and not value.is_inference():
                    self._versions[tap] = value._version

        return hook

    def _check(self) -> None:
        for tap, layer in self.layers.items():
            where = f"method.taps.{self._role}.{tap}: layer {layer!r}"
            if tap not in self._captured:
                raise UserError(f"{where} gave no tensor: it did not run in the forward pass; tap a layer that does")
            if tap in self._versions and self._captured[tap]._version != self._versions[tap]:
                raise UserError(
                    f"{where} was overwritten by a later in-place operation: tap the layer after it, or build the "
                    "model with inplace=False"
                )


def no_such_layer(name: str, layers: list[str]) -> str:
    """Words for a layer that a model does not have: what was probably meant, or what there is."""
    known = [layer for layer in layers if layer]
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return f"the model has no layer {name!r}; did you mean {' or '.join(close)}?"
    listed = ", ".join(known[:40]) + (f", … ({len(known)} in all)" if len(known) > 40 else "")
    return f"the model has no layer {name!r}; it has {listed} (kd-layers shows them)"
