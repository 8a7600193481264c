"""PyTorch, eager or with `torch.compile`, in channels_last, with its input on the device.

In training, its images are already augmented and normalized.
"""

import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from experiments.benchmark.task import COMPILED_TORCH, INFERENCE, Ready, Run, Task
from experiments.torch_twin import create_twin


def prepare(name: str, task: Task) -> tuple[Run, Ready]:
    """Builds the network and the function that runs the task."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # as JAX does unless told otherwise
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    twin = create_twin(task.network, task.num_classes).to(device)
    shape = (task.batch_size, 3, task.image_size, task.image_size)
    images = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    run = (_inference if task.workload == INFERENCE else _train)(
        twin, images, task, name == COMPILED_TORCH
    )
    start = time.perf_counter()
    run(1)
    seconds = time.perf_counter() - start if name == COMPILED_TORCH else 0.0
    kind = torch.cuda.get_device_name() if on_gpu else "cpu"
    return run, Ready("gpu" if on_gpu else "cpu", kind, seconds)


def _train(twin: Any, images: torch.Tensor, task: Task, compiled: bool) -> Run:
    labels = torch.randint(task.num_classes, (task.batch_size,), device=images.device)
    optimizer = torch.optim.SGD(
        twin.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    network = torch.compile(twin) if compiled else twin
    mixed_precision = torch.autocast(
        images.device.type, torch.bfloat16, enabled=task.dtype == "bfloat16"
    )

    def run(count: int) -> None:
        for _ in range(count * task.steps_per_call):
            optimizer.zero_grad()
            with mixed_precision:
                loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        _wait(images.device)

    return run


def _inference(twin: Any, images: torch.Tensor, task: Task, compiled: bool) -> Run:
    dtype = getattr(torch, task.dtype)
    twin, images = twin.eval().to(dtype), images.to(dtype)
    network = torch.compile(twin) if compiled else twin

    @torch.inference_mode()
    def run(count: int) -> None:
        for _ in range(count):
            network(images)
            _wait(images.device)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
