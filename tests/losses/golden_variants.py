"""Which class and arguments each reference case is: what is more than one loss, and forms that only some codes have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from golden_cases import array
from golden_table import FILES, Comparison, of_file
from torch import Tensor

from kd_lightning.losses.projected_feature import ProjectedFeatureLoss
from kd_lightning.models.teacher_classifier import projector
from kd_lightning.outputs import ModelOutput

_OTHERS = {name: FILES[name] for name in ("simkd_srrl",)}
"""What :mod:`golden_maps` and its like have of files of which some cases are here."""


def _filled(module: torch.nn.Module, file: str, prefix: str) -> dict[str, torch.nn.Parameter]:
    """Fill a module with a reference's stored parameters; its parameters by the reference's names."""
    module.double().load_state_dict({key: array(file, f"param/{prefix}{key}") for key in module.state_dict()})
    return {f"{prefix}{key}": parameter for key, parameter in module.named_parameters()}


@of_file("simkd_srrl")
def _(case, hp):
    if not case.startswith("simkd"):
        return _OTHERS["simkd_srrl"](case, hp)
    added, term = projector(8, 16, hp.get("factor", 2)), ProjectedFeatureLoss("x")
    names = _filled(added, "simkd_srrl", "simkd.transfer.")
    weight, bias = (array("simkd_srrl", f"param/cls_t.{kind}") for kind in ("weight", "bias"))

    def loss(fs: Tensor, ft: Tensor) -> Tensor:
        projected = added(fs)
        logits = F.linear(projected.mean(dim=(2, 3)), weight, bias)
        torch.testing.assert_close(logits, array("simkd_srrl", f"{case}/out.pred"))
        return term(ModelOutput(logits, {"x": projected}), ModelOutput(logits, {"x": ft}), None)

    return Comparison(loss, {"parameters": names})
