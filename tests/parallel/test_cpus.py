"""The CPUs that a process may use."""

import os

import pytest

from rattn_jax.parallel import cpus


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 4),
        ("800000 100000", 4),
        ("400000 100000", 4),
        ("150000 100000", 2),
        ("100000 100000", 1),
        ("1000 100000", 1),
        ("", 4),
        (None, 4),
    ],
)
def test_a_container_may_allow_fewer_than_the_scheduler(tmp_path, monkeypatch, limit, expected):
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(cpus, "_CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(cpus.sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert cpus.num_cpus() == expected
