"""How costs grow: what is measured once, what the page says of it."""

import json
import os

import pytest

from experiments.growth import __main__ as growth
from experiments.growth import measure as measured
from experiments.growth.page import faster_than_work, markdown, page


def costs(work, ms):
    return {"work": work, "ms": ms, "peak_mb": 100.0, "start_s": 1.0}


def test_faster_than_work():
    assert not faster_than_work(costs(1.0, 10.0), costs(2.0, 20.0))
    assert not faster_than_work(costs(1.0, 10.0), costs(2.0, 22.9))
    assert faster_than_work(costs(1.0, 10.0), costs(2.0, 23.1))


def test_page():
    found = {"batch": {"1": costs(1.0, 10.0), "2": costs(2.0, 15.0), "4": costs(4.0, 60.0)}}
    _, _, _, _, first, second, third = markdown(found).splitlines()
    assert first == "| 1 | 1 | 1.0 | 10.0 | 1.00 | 100 |  |"
    assert second == "| 2 | 2 | 1.0 | 15.0 | 0.75 | 100 |  |"
    assert third == "| 4 | 4 | 1.0 | 60.0 | 1.50 | 100 | faster than its work |"
    assert "Train step, by batch" in page(found)


def test_a_second_start_goes_on(tmp_path, monkeypatch, capsys):
    asked = []

    def measure(axis, size, scratch):
        asked.append((axis, size))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return costs(float(size), float(size))

    monkeypatch.setattr(growth, "measure", measure)
    arguments = ["--out", str(tmp_path), "--axes", "devices"]
    with pytest.raises(KeyboardInterrupt):
        growth.main(arguments)
    assert list(json.loads((tmp_path / "growth.json").read_text())["devices"]) == ["1", "2"]
    growth.main(arguments)
    assert asked == [("devices", size) for size in (1, 2, 4, 4, 8)]
    assert "| 8 |" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "growth.json",
        "growth.md",
        "growth.html",
    }


def test_the_first_batch_of_a_folder(tmp_path):
    found = measured.AXES["images"](100, tmp_path)
    assert found["work"] == 100
    assert len(list(tmp_path.rglob("*.jpg"))) == 100


@pytest.mark.slow
def test_a_train_step_in_its_own_process(tmp_path, monkeypatch):
    for name in ("GLIBC_TUNABLES", "JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # what is set is put back afterwards
    found = measured.measure("batch", 2, tmp_path)
    assert found.keys() == {"work", "start_s", "ms", "peak_mb"}
    assert found["work"] == 2 * 122_825_216
