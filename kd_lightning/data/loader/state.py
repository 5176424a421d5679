"""Where a consumer is in an epoch, and the saved form of that: plain values, checked when they are loaded."""

from __future__ import annotations

from typing import Any

from kd_lightning.errors import UserError

_FORMAT = 1


class Position:
    """Which batches of an epoch the consumer has got: all below ``delivered``, and those in ``ahead``.

    ``ahead`` is empty unless batches are delivered in order of completion. ``trace``: of the order of a user's sampler,
    as it was when the position was saved; empty where the order is ours.
    """

    def __init__(
        self, epoch: int = 0, delivered: int = 0, ahead: tuple[int, ...] | list[int] = (), trace: str = ""
    ) -> None:
        self.epoch, self.delivered, self.ahead, self.trace = epoch, delivered, set(ahead), trace

    def deliver(self, number: int) -> None:
        """Count batch ``number`` as delivered."""
        self.ahead.add(number)
        while self.delivered in self.ahead:
            self.ahead.remove(self.delivered)
            self.delivered += 1


def save_position(position: Position, settings: dict[str, int | str]) -> dict[str, Any]:
    """A state dict that ``torch.load(weights_only=True)`` accepts: integers, strings, a list of integers."""
    return {
        "format": _FORMAT,
        "epoch": position.epoch,
        "delivered": position.delivered,
        "ahead": sorted(position.ahead),
        "trace": position.trace,
        **settings,
    }


def load_position(state: dict[str, Any], settings: dict[str, int | str]) -> Position:
    """The position in a state dict, if it means the same under this loader's settings.

    At the start of an epoch nothing depends on the settings, so none is compared there.
    """
    try:
        saved_format = state["format"]
        ahead = [int(number) for number in state["ahead"]]
        position = Position(int(state["epoch"]), int(state["delivered"]), ahead, str(state.get("trace", "")))
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
