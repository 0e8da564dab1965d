"""A training ends when its budget is used up, and the learning rate follows."""

from types import SimpleNamespace

import pytest

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.training.budget import Budget, EarlyStopping, make_budget, num_epochs, num_steps


def _train(budget, *, epochs, step_s=0.0, validation_s=0.0, now=None):
    """Calls a budget as Keras would, with steps and validations of a given length: the learning rate of each step.

    Where there is a clock the optimiser must have been told it; by steps alone it knows itself.
    """
    now = now if now is not None else [0.0]
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=None), stop_training=False)
    budget.set_model(model)
    rates, logged = [], []
    for epoch in range(epochs):
        budget.on_epoch_begin(epoch)
        for batch in range(budget.steps_per_epoch):
            budget.on_train_batch_begin(batch)
            rates.append(budget.learning_rate)
            assert model.optimizer.learning_rate == (budget.learning_rate if budget.max_minutes else None)
            now[0] += step_s
            budget.on_train_batch_end(batch, {})
            if model.stop_training:
                break
        now[0] += validation_s
        logs = {}
        budget.on_epoch_end(epoch, logs)
        logged.append(logs["learning_rate"])
        if model.stop_training:
            break
    return rates, logged


def _rest(progress):
    return 1 - progress


def test_by_steps_the_learning_rate_follows_the_steps():
    rates, logged = _train(Budget(schedule=_rest, num_steps=8, steps_per_epoch=4), epochs=2)
    assert rates == [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert logged == [5 / 8, 1 / 8]  # the last step's


def test_max_steps_ends_within_an_epoch():
    settings = TrainSettings(epochs=5, steps_per_epoch=4, max_steps=6)
    assert (num_steps(settings), num_epochs(settings)) == (6, 2)
    assert len(_train(make_budget(settings), epochs=5)[0]) == 6
    more = TrainSettings(epochs=2, steps_per_epoch=4, max_steps=100)
    assert (num_steps(more), num_epochs(more)) == (8, 2)


def test_epochs_limit_only_where_nothing_else_does():
    assert num_epochs(TrainSettings()) == 5
    assert num_steps(TrainSettings(max_steps=1001)) == 1001
    assert num_epochs(TrainSettings(max_steps=1001)) == 21
    assert num_epochs(TrainSettings(max_minutes=30.0)) == 1_000_000
    assert num_epochs(TrainSettings(max_minutes=30.0, epochs=7)) == 7
    assert num_steps(TrainSettings(max_minutes=30.0, max_steps=1001)) == 1001


def test_minutes_end_it_and_validation_does_not_count():
    # 30 s of 4 s: 8 steps are the first that last as long; two validations of 1,000 s between
    now = [0.0]
    budget = Budget(schedule=_rest, num_steps=1000, steps_per_epoch=3, max_minutes=0.5, clock=lambda: now[0])
    rates, _ = _train(budget, epochs=100, step_s=4.0, validation_s=1000.0, now=now)
    assert rates == pytest.approx([1 - 4 * step / 30 for step in range(8)])
    assert budget.elapsed_s == 32
    assert budget.progress(8) == 1


def test_whichever_budget_is_used_up_first_ends_it():
    now = [0.0]
    budget = Budget(schedule=_rest, num_steps=4, steps_per_epoch=2, max_minutes=1, clock=lambda: now[0])
    rates, _ = _train(budget, epochs=2, step_s=6.0, now=now)  # 24 of 60 s
    assert rates == [1, 0.75, 0.5, 0.25]


def test_time_used_before_counts():
    now = [0.0]
    budget = Budget(schedule=_rest, num_steps=1000, steps_per_epoch=10, max_minutes=1, clock=lambda: now[0])
    budget.elapsed_s = 30
    rates, _ = _train(budget, epochs=9, step_s=10.0, now=now)
    assert rates == pytest.approx([30 / 60, 20 / 60, 10 / 60])


def test_an_update_of_several_steps_has_one_learning_rate_and_is_not_cut():
    now = [0.0]
    budget = Budget(
        schedule=_rest,
        num_steps=100,
        steps_per_epoch=4,
        accumulation_steps=2,
        max_minutes=0.5,
        clock=lambda: now[0],
    )
    rates, _ = _train(budget, epochs=9, step_s=10.0, now=now)  # 30 s are used up after 3 steps
    assert rates == pytest.approx([1, 1, 1 / 3, 1 / 3])


def test_early_stopping_waits_for_so_many_epochs():
    scores = [0.1, 0.3, 0.3, 0.2, 0.4, 0.4, 0.1, 0.2, 0.9]
    stopping = EarlyStopping("val_foreground_iou", num_epochs=3)
    model = SimpleNamespace(stop_training=False)
    stopping.set_model(model)
    stopped = []
    for epoch, score in enumerate(scores):
        stopping.on_epoch_end(epoch, {"val_foreground_iou": score})
        if model.stop_training:
            stopped.append(epoch)
            break
    assert stopped == [7]  # best at 4; 5, 6 and 7 no better; an equal score is no better


def test_early_stopping_never_looks_at_the_reports_metric():
    with pytest.raises(InputError, match="expected an honest one to stop a training"):
        EarlyStopping("as_reported/val_mean_iou", num_epochs=3)
