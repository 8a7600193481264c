"""Why an early test loss can look broken: averages of batch norm that have not settled.

Evaluation normalises by running averages, which are some ten updates behind; training normalises by
each batch's own statistics. While parameters change fast, the two differ, in deep networks by
orders of magnitude. It is no fault of the network, and passes. Taking the initial values out of the
averages (as Adam does) helps little: of Attention-164 on digits, losses after 5, 10 and 20 updates
of 10.5, 31.2 and 11.1 became 3.4, 12.7 and 6.2. So nothing is changed, and it is said.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_EARLY = 1_000  # updates; what looks like it later has other reasons, such as wrong labels
_WORSE = 2  # times the loss of guessing, and of training
_MUCH_WORSE = 10  # the same where the training loss is low, and examples may be known by heart


def explain_loss(rows: Sequence[Mapping[str, Any]], split: str, num_classes: int) -> str | None:
    """A sentence on the newest loss of a split, if it is early and looks broken; else None.

    Args:
        rows: lines of metrics.jsonl, with one of the split.
        split: name of the split.
        num_classes: number of classes; 2 with the sigmoid loss, which asks of each: yes or no?
    """
    newest = {row["split"]: row for row in rows}
    step, loss = newest[split]["step"], newest[split]["loss"]
    training = newest.get("train", {}).get("loss") or 0.0
    guessing = math.log(num_classes)
    is_low = 0 < training < guessing / 2
    worse = _MUCH_WORSE if is_low else _WORSE
    if step > _EARLY or loss is None or loss <= worse * max(guessing, training):
        return None
    return (
        f"the {split} loss of {loss:,.1f} (guessing has {guessing:.1f}) is no fault: after "
        f"{step:,} updates the running averages of batch norm, by which evaluation normalises, are "
        "still behind the parameters; training normalises by each batch's own statistics"
    )
