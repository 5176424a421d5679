"""The saved state of a ThreadedLoader: plain values, checked when they are loaded."""

from __future__ import annotations

from typing import Any

from kd_lightning.data.loader.one_pass import Position
from kd_lightning.errors import UserError

_FORMAT = 1


def save_position(position: Position, settings: dict[str, int | str]) -> dict[str, Any]:
    """A state dict that ``torch.load(weights_only=True)`` accepts: integers, strings, a list of integers."""
    return {
        "format": _FORMAT,
        "epoch": position.epoch,
        "delivered": position.delivered,
        "ahead": sorted(position.ahead),
        **settings,
    }


def load_position(state: dict[str, Any], settings: dict[str, int | str]) -> Position:
    """The position in a state dict, if it means the same under this loader's settings.

    At the start of an epoch nothing depends on the settings, so none is compared there.
    """
    try:
        saved_format = state["format"]
        position = Position(int(state["epoch"]), int(state["delivered"]), [int(number) for number in state["ahead"]])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this is not the state of a ThreadedLoader: {type(error).__name__} {error}") from error
    if saved_format != _FORMAT:
        raise UserError(f"the loader's state has format {saved_format}, this version reads format {_FORMAT}")
    if position.delivered or position.ahead:
        for name, now in settings.items():
            if state.get(name) != now:
                raise UserError(
                    f"cannot continue in the middle of epoch {position.epoch}: the loader was saved with "
                    f"{name}={state.get(name)!r} and has {name}={now!r} now; set it back, or start from the epoch's end"
                )
    return position
