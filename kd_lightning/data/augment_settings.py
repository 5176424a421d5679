"""The keys of ``data.augment`` for pictures in memory, and what of the data has to suit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kd_lightning.data.augment import CropFlip
from kd_lightning.data.mixing import Mixing
from kd_lightning.data.policy import Policy
from kd_lightning.errors import UserError

if TYPE_CHECKING:
    from kd_lightning.data.module import DistillationDataModule

CROPS, POLICIES, MIXES = (
    ("crop_padding", "flip", "padding_mode"), ("trivial", "randaugment", "erasing"), ("mixup", "cutmix")
)  # fmt: skip


def crop_flip_of(settings: Mapping[str, Any]) -> CropFlip | None:
    """Crops and flips; None: there are none.

    Raises:
        UserError: there is a key that none of the parts has.
    """
    known = (*CROPS, *POLICIES, *MIXES)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(f"data.augment has no key {unknown[0]!r}: it takes {', '.join(known)}")
    made = CropFlip(**_chosen(settings, CROPS))
    return made if made.active else None


def policy_of(augment: bool | Mapping[str, Any]) -> Policy | None:
    """Operations and erasing; None: there are none."""
    made = Policy(**_chosen(augment, POLICIES))
    return made if made.active else None


def mixing_of(augment: bool | Mapping[str, Any]) -> Mixing | None:
    """Mixup and CutMix; None: each view shows one sample."""
    made = Mixing(**_chosen(augment, MIXES))
    return made if made.active else None


def _chosen(augment: bool | Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: augment[key] for key in keys if key in augment} if isinstance(augment, Mapping) else {}


def require_suitable(data: DistillationDataModule, dataset: Any) -> None:
    """Stop where the training data set does not do what the settings ask for.

    Raises:
        UserError: the samples do not lie in memory, or the views leave no room for mixing.
    """
    for part, done in ((data.policy, "changed so"), (data.mixing, "mixed")):
        if part is not None and part not in (getattr(dataset, "policy", None), getattr(dataset, "mixing", None)):
            raise UserError(
                f"{part.keys}: only pictures that lie in memory are {done}, not those of {type(data).__name__}"
            )
    if data.repeats and data.extra_views:
        raise UserError(
            f"data.repeats={data.repeats}: shows further views as samples of their own, data.extra_views={data.extra_views} "
            "beside each sample: leave one of them out"
        )
    if data.repeats and data.views == 1:
        raise UserError(
            f"data.repeats={data.repeats}: shows each sample in several views, and these data have one: set data.augment, or "
            "leave it out"
        )
    if data.mixing is None:
        return
    if data.extra_views:
        raise UserError(
            f"{data.mixing.keys}: data.extra_views={data.extra_views} asks for further views of the same samples, and each "
            "view would be mixed with another partner: leave one of them out"
        )
    if data.views == 1:
        raise UserError(
            f"{data.mixing.keys}: data.views=1 would show each sample with one partner for ever: set data.views=0 (a fresh "
            "one each epoch) or to the number of views to cycle through"
        )
