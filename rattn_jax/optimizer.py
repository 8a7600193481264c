"""The paper's optimizer: SGD with Nesterov momentum, steps in the learning rate, weight decay."""

from collections.abc import Sequence

import optax


def step_schedule(learning_rate: float, boundaries: Sequence[int], decay: float) -> optax.Schedule:
    """Learning rate that is multiplied by `decay` at each boundary.

    Args:
        learning_rate: rate of the first update.
        boundaries: numbers of updates after which the rate falls, ascending: update number b
            (counted from 0) is the first one at the smaller rate.
        decay: factor.

    Returns:
        Function of the number of updates done.
    """
    return optax.piecewise_constant_schedule(
        learning_rate, {int(boundary): decay for boundary in boundaries}
    )


def sgd(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum; `weight_decay * parameter` is added to every gradient.

    The decay acts on all parameters, biases and batch norm included, as in the paper's
    framework (Caffe), and before the momentum, as an L2 term of the loss does.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(schedule, momentum=momentum, nesterov=True),
    )
