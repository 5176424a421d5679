"""What a model hands to losses and metrics, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """A model's answer for one batch.

    Attributes:
        logits: shape (N, C) before softmax; for regression the prediction, for clustering the assignment scores.
        features: activations by tap name (see :mod:`kd_lightning.taps`), each of shape (N, ...).
        spread: regression only: the predicted log-variance, shape of ``logits``; None where a model gives none.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    spread: Tensor | None = None


def as_model_output(output: Any) -> ModelOutput:
    """Wrap what a user's model returned: a tensor, a mapping or object with ``logits``, or already a ModelOutput."""
    if isinstance(output, ModelOutput):
        return output
    if isinstance(output, Tensor):
        return ModelOutput(output)
    if isinstance(output, Mapping) and "logits" in output:
        return ModelOutput(output["logits"], dict(output.get("features") or {}), output.get("spread"))
    if isinstance(output, Mapping) and isinstance(output.get("out"), Tensor):  # torchvision's networks for masks
        return ModelOutput(output["out"])
    if isinstance(getattr(output, "logits", None), Tensor):  # torchvision's and transformers' output classes
        return ModelOutput(output.logits)
    raise ValueError(
        f"a model returned {type(output).__name__}: return the logits as a tensor, or a kd_lightning.outputs.ModelOutput"
    )


def unused_heads(output: Any) -> list[str]:
    """Names of what a model returned beside its logits and in their shape: auxiliary heads, which no loss looks at."""
    if isinstance(output, (Tensor, ModelOutput)):
        return []
    if isinstance(output, Mapping):
        named = {str(key): value for key, value in output.items() if key not in ("features", "spread")}
    else:
        names = getattr(output, "_fields", None) or getattr(output, "__dict__", {})
        named = {str(name): getattr(output, name) for name in names}
    logits = named.pop("logits", None) if "logits" in named else named.pop("out", None)
    if not isinstance(logits, Tensor):
        return []
    return [name for name, value in named.items() if isinstance(value, Tensor) and value.shape == logits.shape]


def looks_like_probabilities(logits: Tensor) -> bool:
    """Whether each row of (N, C, ...) is >= 0 and sums to 1."""
    if logits.dim() < 2 or logits.shape[1] < 2 or bool((logits < 0).any()):
        return False
    return bool(((logits.sum(1) - 1).abs() < 1e-3).all())
