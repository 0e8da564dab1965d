"""What comes next is made before anyone asks, and comes out the same."""

import threading

import numpy as np
import pytest

from kits_ml.training.ahead import Ahead
from tests.waiting import wait_until


class Maker:
    """Makes squares and remembers which; `wait_for` waits until so many were begun."""

    def __init__(self):
        self.begun = []

    def __call__(self, number):
        self.begun.append(number)
        return number**2

    def wait_for(self, count):
        wait_until(lambda: len(self.begun) >= count)


@pytest.mark.parametrize("num_threads", [1, 4])
def test_the_next_ones_are_made_before_they_are_asked_for(num_threads):
    maker = Maker()
    ahead = Ahead(maker, num_threads=num_threads)
    assert ahead.get(5) == 25
    maker.wait_for(num_threads + 2)
    assert sorted(maker.begun) == list(range(5, 5 + num_threads + 2))  # and no more than that
    assert [ahead.get(number) for number in (6, 7, 8)] == [36, 49, 64]
    assert maker.begun.count(6) == 1


def test_going_back_and_on_gives_the_same():
    ahead = Ahead(Maker(), num_threads=2)
    assert [ahead.get(number) for number in (0, 1, 0, 1, 2, 40, 3)] == [0, 1, 0, 1, 4, 1600, 9]


def test_several_may_ask_at_once():
    ahead, found = Ahead(Maker(), num_threads=2), {}

    def ask(first):
        for number in range(first, 40, 4):
            found[number] = ahead.get(number)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number**2 for number in range(40)}


def test_a_fault_is_raised_where_its_batch_is_asked_for():
    def fail_at_3(number):
        if number == 3:
            raise ValueError("three")
        return np.full(2, number)

    ahead = Ahead(fail_at_3, num_threads=1)
    assert [ahead.get(number)[0] for number in (0, 1, 2)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        ahead.get(3)
    assert ahead.get(4)[0] == 4
