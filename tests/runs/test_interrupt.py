"""Signals: the first asks or stops, the second Ctrl-C insists, and afterwards all is as it was."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from kd_lightning.runs.interrupt import SIGNALS, graceful, stoppable


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_handlers_are_put_back(number):
    before, asked = signal.getsignal(number), []
    with graceful(lambda: asked.append(1)):
        os.kill(os.getpid(), number)
    assert asked == [1]
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_raises_and_a_second_sigterm_does_not():
    asked = []

    def training() -> None:
        with graceful(lambda: asked.append(1)):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            asked.append("still here")
            os.kill(os.getpid(), signal.SIGINT)
            asked.append("not here")

    with pytest.raises(KeyboardInterrupt):
        training()
    assert asked == [1, 1, "still here"]


def test_outside_of_training_every_signal_stops_as_ctrl_c_does():
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), stoppable():
            os.kill(os.getpid(), number)


def test_training_inside_takes_the_signal_over_for_its_time():
    asked = []

    def command() -> None:
        with stoppable():
            with graceful(lambda: asked.append(1)):
                os.kill(os.getpid(), signal.SIGTERM)
            asked.append("training is over")
            os.kill(os.getpid(), signal.SIGTERM)
            asked.append("not here")

    with pytest.raises(KeyboardInterrupt):
        command()
    assert asked == [1, "training is over"]


def test_in_another_thread_nothing_is_changed():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with graceful(lambda: None), stoppable():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
