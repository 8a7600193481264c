from rattn_jax.config.schema import RunConfig
from rattn_jax.training.schedule import CHECKPOINT, TRAIN, Due, build_schedule

CONFIG = {"num_train_steps": 10, "log_every_steps": 2, "eval_every_steps": 4}
CONFIG |= {"checkpoint_every_steps": 6, "validation_examples": 5, "profile_steps": (3, 7)}


def schedule(**changes):
    return build_schedule(RunConfig(**CONFIG | changes), resident=True, on_cpu=False)


def test_what_is_due():
    nothing = Due(log=False, eval_splits=(), save=False)
    found = {step: due for step in range(11) if (due := schedule().due(step))}
    assert found == {
        2: Due(log=True, eval_splits=(), save=False),
        4: Due(log=True, eval_splits=("validation",), save=False),
        6: Due(log=True, eval_splits=(), save=True),
        8: Due(log=True, eval_splits=("validation",), save=False),
        10: Due(log=True, eval_splits=("validation", "test"), save=True),
    }
    assert schedule().due(10, {TRAIN, CHECKPOINT, "validation"}) == Due(False, ("test",), False)
    assert schedule().due(10, {TRAIN, CHECKPOINT, "validation", "test"}) == nothing
    # Evaluation alone, of a checkpoint of any step.
    alone = schedule(num_train_steps=0, validation_examples=0)
    assert alone.due(5, {TRAIN, CHECKPOINT}).eval_splits == ("test",)


def stops(**changes):
    step, found = 0, []
    while step < changes.get("num_train_steps", 10):
        step = schedule(**changes).next_stop(step)
        found.append(step)
    return found


def test_no_call_goes_beyond_what_is_due():
    assert stops(steps_per_call=2) == [2, 3, 4, 6, 7, 8, 10]
    assert stops(steps_per_call=1) == [*range(1, 11)]
    rare = {"log_every_steps": 99, "profile_steps": None}
    assert stops(**rare, steps_per_call=2) == [2, 4, 6, 8, 10]
    assert stops(**rare, steps_per_call=3) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_few_numbers_of_updates_are_compiled():
    """Else a GPU would compile for minutes where periods are no multiples of each other."""
    every = {"log_every_steps": 100, "eval_every_steps": 390, "checkpoint_every_steps": 777}
    ends = stops(num_train_steps=2345, profile_steps=None, **every)
    assert {after - before for before, after in zip([0, *ends], ends, strict=False)} == {100, 10, 1}
    due = {step for step in range(1, 2346) if any(step % period == 0 for period in every.values())}
    assert due | {2345} <= set(ends)
    assert len(ends) < 200


def test_something_is_due_next():
    found = [schedule().next_due(step) for step in range(10)]
    assert found == [2, 2, 4, 4, 6, 6, 8, 8, 10, 10]


def test_several_updates_a_call_only_where_they_help():
    for resident, on_cpu, steps in ((True, False, 100), (True, True, 1), (False, False, 1)):
        found = build_schedule(RunConfig(), resident=resident, on_cpu=on_cpu)
        assert found.steps_per_call == steps
        assert found.eval_splits == found.final_splits == ("test",)
