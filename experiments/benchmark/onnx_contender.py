"""ONNX Runtime, with the file that `rattn export --format=onnx` writes; inference only.

Its process imports JAX as well, to write the file: its memory is no figure of ONNX Runtime's.
"""

from functools import partial

import jax
import numpy as np
import onnxruntime

from experiments.benchmark.task import Ready, Run, Task
from rattn_jax.interop.onnx_graph import to_model
from rattn_jax.interop.to_onnx import translate
from rattn_jax.models import create_model, init_variables


def prepare(task: Task) -> tuple[Run, Ready]:
    """Exports the network, and builds the function that runs the task."""
    model = create_model(task.network, task.num_classes)
    size = task.image_size
    variables = init_variables(model, jax.random.key(0), (size, size, 3))
    apply = partial(model.apply, variables, train=False)
    graph, (logits,) = translate(lambda images: apply(images.astype(np.float32)), size)
    file = to_model(graph, {"logits": logits}, ("batch", size, size, 3), {}).SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    shape = (task.batch_size, size, size, 3)
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)

    def run(count: int) -> None:
        for _ in range(count):
            session.run(None, {"images": images})

    return run, Ready("cpu", "cpu")
