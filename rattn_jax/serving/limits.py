"""What the service takes, and how long that may last."""

import dataclasses

from rattn_jax.inference.untrusted import MAX_BYTES


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a service; those of the images are in `inference/untrusted.py`.

    Attributes:
        batch_size: the most images that the network computes at once.
        queue: requests that are read, wait and are computed at the same time.
        max_bytes: size of a request's body.
        read_seconds: until a request must have arrived; and its answer, at the client.
        answer_seconds: from the one to the other.
    """

    batch_size: int = 16
    queue: int = 64
    max_bytes: int = MAX_BYTES
    read_seconds: float = 10.0
    answer_seconds: float = 30.0

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Those that are compiled: 1, 4, 16, ..., and the largest."""
        powers = [4**i for i in range(8) if 4**i < self.batch_size]
        return (*powers, self.batch_size)
