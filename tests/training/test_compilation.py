"""The persistent compilation cache of a run."""

import os
import stat

import jax
import jax.numpy as jnp
import pytest

from rattn_jax.config.load import parse_config
from rattn_jax.data.catalog import build_dataset, build_spec
from rattn_jax.data.loaders import ImageSizes
from rattn_jax.data.open_loader import open_loader
from rattn_jax.errors import UsageError
from rattn_jax.parallel.mesh import make_mesh
from rattn_jax.train import train_and_evaluate
from rattn_jax.training.compilation import compile_for, use_cache
from rattn_jax.training.step_functions import build_steps
from tests.compare import numbers, read_rows
from tests.devices import ONE
from tests.tiny import make_config


@pytest.fixture
def events(monkeypatch):
    """What JAX says about its cache."""
    seen = []

    def listen(event, **_):
        seen.append(event)

    jax.monitoring.register_event_listener(listen)
    yield seen
    jax.monitoring.unregister_event_listener(listen)


def hits(events):
    return events.count("/jax/compilation_cache/cache_hits")


def test_second_start_reads_what_the_first_has_compiled(tmp_path, events, capsys):
    config = make_config(modules=0, num_train_steps=2, log_every_steps=1)
    rows = []
    for workdir in ("first", "second"):  # the second with another folder, for the same numbers
        config.compilation_cache_dir = str(tmp_path / "cache")
        before = hits(events)
        jax.clear_caches()
        train_and_evaluate(config, tmp_path / workdir, ONE)
        rows.append(numbers(read_rows(tmp_path / workdir)))
        found = hits(events) - before
    assert found >= 20, "training, evaluation, and the small functions before them"
    assert rows[0] == rows[1]
    assert any((tmp_path / "cache").iterdir())
    lines = [line for line in capsys.readouterr().out.splitlines() if "traced in" in line]
    assert len(lines) == 2
    assert all(line.startswith("an update: traced in ") for line in lines)


def test_another_seed_needs_no_other_step():
    texts = []
    for seed in (0, 1):
        config = parse_config(make_config(modules=0, seed=seed))
        mesh, dataset = make_mesh(ONE), build_dataset(config)
        steps = build_steps(config, build_spec(config), mesh)
        loader = open_loader(config, dataset, ImageSizes(8, 8), mesh)
        assert int(loader.train(0, 1).data.seed) == seed
        state = steps.to_device(steps.initial_state())
        texts.append(steps.train_function.lower(state, *loader.train(0, 1)[:2]).as_text())
    assert texts[0] == texts[1]


def test_what_was_traced_takes_no_memory_afterwards():
    traced = []
    function = jax.jit(lambda x: traced.append(0) or x)
    function(1.0)
    compile_for(jax.jit(lambda x: x + 1), 1.0)
    function(1.0)
    assert len(traced) == 2


@pytest.mark.slow
def test_cache_is_in_the_workdir_by_default(tmp_path, events):
    jax.clear_caches()
    train_and_evaluate(
        make_config(modules=0, num_train_steps=1, compilation_cache_dir=None), tmp_path, ONE
    )
    assert any((tmp_path / "compilation_cache").iterdir())


def test_cache_is_of_its_user_alone(tmp_path):
    directory = tmp_path / "new" / "cache"
    use_cache(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory.chmod(0o755)  # as JAX has made it in earlier versions
    use_cache(directory)
    for mode in (0o770, 0o757):
        directory.chmod(mode)
        with pytest.raises(UsageError, match=rf"can be written by others \(mode {mode:o}\).*chmod"):
            use_cache(directory)


def test_cache_of_another_user_is_not_used(tmp_path, monkeypatch, caplog):
    found = tmp_path.stat()
    for owner in (0, os.geteuid(), 12_345):
        fields = (stat.S_IFDIR | 0o755, *found[1:4], owner, *found[5:])
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", lambda *_, fields=fields, **__: os.stat_result(fields))
            use_cache(tmp_path)
        is_used = jax.config.jax_compilation_cache_dir == str(tmp_path)
        assert is_used == (owner != 12_345)
    assert "belongs to another user (number 12345)" in caplog.text


@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
def test_damaged_cache_does_not_matter(tmp_path, events):
    double = jax.jit(lambda x: 2 * x + 41)
    for _ in range(2):
        use_cache(tmp_path)
        jax.clear_caches()
        compiled, seconds = compile_for(double, jnp.float32(1))
        assert float(compiled(jnp.float32(1))) == 43
        assert min(seconds) >= 0
        entries = [path for path in tmp_path.iterdir() if path.name.endswith("-cache")]
        assert entries
        for path in entries:
            path.write_bytes(path.read_bytes()[:20])
