"""Devices of this process. `tiny.py` must not have them: main.py reads it before JAX starts."""

import jax

ONE, FOUR = jax.devices()[:1], jax.devices()[:4]
