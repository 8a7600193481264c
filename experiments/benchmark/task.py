"""The task that is measured, and what a contender's process reports before it starts."""

import dataclasses
from collections.abc import Callable

OURS, FLAX, TORCH, COMPILED_TORCH = "rattn_jax", "idiomatic Flax", "PyTorch", "torch.compile"
FOLDED, ONNX = "rattn_jax, batch norm folded", "ONNX Runtime"  # in inference
MATMUL = "matrix product"
TRAIN, INFERENCE = "train", "inference"

Run = Callable[[int], None]  # makes this number of calls, and waits for their results


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of a call, the same for all contenders.

    Attributes:
        network: name of a network that `torch_twin.NETWORKS` has.
        workload: TRAIN or INFERENCE.
        batch_size: number of images.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32 in training.
        steps_per_call: updates in one call.
    """

    network: str
    workload: str
    batch_size: int
    dtype: str = "float32"
    steps_per_call: int = 1

    @property
    def image_size(self) -> int:
        """Side of the images."""
        return 32 if self.network.endswith("_cifar") else 224

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 10 if self.network.endswith("_cifar") else 1000

    @property
    def operations_per_multiply_add(self) -> int:
        """Floating-point operations for each multiplication of the forward pass and each image."""
        return 6 if self.workload == TRAIN else 2


@dataclasses.dataclass(frozen=True)
class Ready:
    """What a contender's process reports when it is ready.

    Attributes:
        platform: "cpu" or "gpu".
        device: kind of the device.
        compile_seconds: tracing and compilation.
        planned_bytes: arguments, results and temporary arrays of a call as XLA plans them; None
            for PyTorch, which has no such plan.
        floating_point_operations: of a call; None where the contender does not count them.
    """

    platform: str
    device: str
    compile_seconds: float = 0.0
    planned_bytes: int | None = None
    floating_point_operations: float | None = None
