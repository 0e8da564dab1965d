"""Signals: the first one is a request, Ctrl-C after it is none."""

import os
import signal

import pytest

from kits_ml.training.interrupts import stop_requests


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_ctrl_c_after_it_stops_at_once(first, caplog):
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as stop:
        os.kill(os.getpid(), first)
        assert stop.signal_number == first
        assert "Ctrl-C now stops at once" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_after_ctrl_c_changes_nothing():
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_number == signal.SIGINT
