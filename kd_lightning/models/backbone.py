"""Any network without its classifier: what it answers with is the embedding that the classifier would have seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.outputs import as_model_output


class Backbone(nn.Module):
    """A network whose last linear layer is left out; returns embeddings (N, D).

    Layers for taps: ``hidden``, the embedding itself, and those of the network behind ``backbone.``. Weights keep the
    network's own names behind ``backbone.``, so that the whole network with a new classifier can start from them
    (``init_from=RUN_DIR``).

    Args:
        model: the network; torchvision's, timm's or one of one's own.
        head: name of the layer that is left out; None: the last linear one.

    Attributes:
        left_out: the layer's name, so that it may be in a file of weights.

    Raises:
        UserError: there is no such layer.
    """

    left_out: Sequence[str]

    def __init__(self, model: nn.Module, head: str | None = None) -> None:
        super().__init__()
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        name = head if head is not None else (linear[-1] if linear else None)
        if name is None or name not in dict(model.named_modules()):
            given = "no linear layer" if name is None else f"no layer {name!r}"
            raise UserError(
                f"Backbone: {type(model).__name__} has {given}: give the name of its classifier as head (kd-layers)"
            )
        place, _, last = name.rpartition(".")
        setattr(model.get_submodule(place), last, nn.Identity())
        self.backbone, self.left_out = model, (f"backbone.{name}",)
        self.hidden = nn.Identity()

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """What the network takes; returns embeddings (N, D): maps (N, D, H, W) are averaged."""
        values = as_model_output(self.backbone(*inputs, **named)).logits
        embedding: Tensor = self.hidden(values.flatten(2).mean(2) if values.dim() > 2 else values)
        return embedding
