"""Published figures of TPU chips, and abstract devices of a topology.

devices, chip = open_topology("v5e:4x4")   # compiles with libtpu, runs nothing
devices, chip = open_topology("cpu:8")     # this machine's cores: no figures, chip is None
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from rattn_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak figures of a chip.

    Attributes:
        name: as in a topology's name.
        matmul_flops_per_second: of bfloat16 products. TPUs compute float32 products at JAX's
            default precision from operands rounded to bfloat16, at the same rate.
        hbm_bytes: memory.
        hbm_bytes_per_second: between memory and chip.
        ici_bytes_per_second: what a chip can send to its neighbors over all of its links.
        sides: number of axes of its torus.
    """

    name: str
    matmul_flops_per_second: float
    hbm_bytes: int
    hbm_bytes_per_second: float
    ici_bytes_per_second: float
    sides: int


# Google Cloud's pages "TPU v5e", "TPU v5p" and "TPU v6e" (cloud.google.com/tpu/docs/v5e, ...). The
# pages give ICI for both directions, 400, 1200 and 800 GB/s a chip: a chip sends half of that.
# v4 is left out: its topologies have two devices a chip.
CHIPS = {
    "v5e": Chip("v5e", 197e12, 16 * 2**30, 819e9, 200e9, 2),
    "v5p": Chip("v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 3),
    "v6e": Chip("v6e", 918e12, 32 * 2**30, 1600e9, 400e9, 2),
}


def open_topology(name: str) -> tuple[Sequence[jax.Device], Chip | None]:
    """Devices to compile for, and their chip; must come before the first use of JAX.

    Args:
        name: chip and sides, such as "v5e:4x4" or "v5p:4x4x4"; or "cpu:8".

    Raises:
        UsageError: unknown topology, or libtpu is not installed.
    """
    kind, _, shape = name.partition(":")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or kind not in {"cpu", *CHIPS}:
        raise _unknown(name)
    sides = [int(side) for side in shape.split("x")]
    if kind == "cpu":
        return _host_devices(name, math.prod(sides)), None
    return _tpu_devices(name, sides), CHIPS[kind]


def _host_devices(name: str, count: int) -> Sequence[jax.Device]:
    with contextlib.suppress(RuntimeError):  # JAX has started: use the devices that it has
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UsageError(
            f"--topology={name} needs {count} CPU devices, and JAX has started with "
            f"{len(devices)}: use at most as many"
        )
    return devices[:count]


def _tpu_devices(name: str, sides: list[int]) -> Sequence[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            f"--topology={name} needs the package libtpu, which is not installed: "
            "pip install -e '.[tpu]', or use --topology=cpu:8"
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs
    # Without them libtpu warns that it cannot detect them; the topology says what to compile for.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    # A host has 2x2 chips (v5e and v6e: 1, 4 or 8), which the compiled program does not show.
    bounds = [min(side, 2) for side in sides[:2]] + [1] * (3 - len(sides[:2]))
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=name, chips_per_host_bounds=tuple(bounds)
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise _unknown(name, f" ({str(error).splitlines()[0]})") from None


def _unknown(name: str, why: str = "") -> UsageError:
    return UsageError(
        f"--topology={name} is unknown{why}: use a chip of {', '.join(CHIPS)} and its sides, "
        "such as v5e:4x4 or v5p:4x4x4, or cpu:8"
    )
