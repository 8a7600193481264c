import json
import shutil

import pytest

from rattn_jax.compare import main
from rattn_jax.configs import default
from rattn_jax.errors import UsageError
from rattn_jax.report.comparison import compare_page, read_run
from tests.report.parsed_page import Page


def make_run(folder, rate=0.1, rows=(), torn="", patience=0, **dataset):
    config = default.get_config()
    config.optimizer.learning_rate = rate
    config.keep_best.update({"metric": "loss", "patience": patience} if patience else {})
    record = {
        "config": config.to_dict(),
        "dataset": {"class_names": ["<a>", "b"], "num_train": 20, "num_test": 400} | dataset,
        "versions": {"jax": "0"},
        "devices": ["cpu"],
        "git_commit": None,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(record))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + torn)


def row(step, split, error):
    values = {"step": step, "split": split, "loss": 1.0, "error_top1": error, "error_top5": 0.0}
    return values | {"learning_rate": 0.1, "images_per_second": None}


def text_of(page, name):
    """The words of a section."""
    part = page.split(f'<section id="{name}">')[1].split("</section>")[0]
    return Page(f"<!DOCTYPE html>{part}").text


def test_runs_side_by_side(tmp_path, capsys):
    rows = [row(10, "train", 0.5), row(20, "test", 0.05), row(20, "train", 0.4)]
    make_run(tmp_path / "a<b>", rows=rows, torn='{"step": 3')
    make_run(tmp_path / "c", rate=0.2, rows=rows[:1])
    out = tmp_path / "page.html"
    main([str(tmp_path / "a<b>"), str(tmp_path / "c"), f"--out={out}"])
    assert capsys.readouterr().out == f"2 runs: {out}\n"
    page = out.read_text()
    assert Page(page).ids == ["result", "curves", "differences"]
    assert text_of(page, "differences") == "Differences key a<b> c optimizer.learning_rate 0.1 0.2"
    result = text_of(page, "result")
    assert (
        "a<b> attention56_cifar test 20 of 160,000 5.00 % (3.26 to 7.60) 95.00 % 0.00 %" in result
    )
    assert "c attention56_cifar not evaluated yet" in result
    assert page.count('<figure class="chart"') == 5  # no throughput was measured


def test_images_of_several_classes(tmp_path):
    measured = row(20, "test", 0.05) | {"mean_average_precision": 0.8125, "f1_macro": None}
    make_run(tmp_path / "a", rows=[measured])
    make_run(tmp_path / "b", rows=[row(20, "test", 0.05)])
    page = compare_page([read_run(str(tmp_path / name), name) for name in "ab"])
    result = text_of(page, "result")
    assert "top-5 error loss mean average precision macro F1 a" in result
    assert "0.00 % 1.0000 0.8125 - b" in result
    assert result.endswith("0.00 % 1.0000 - -")
    assert "Test mean average precision" in text_of(page, "curves")
    alone = compare_page([read_run(str(tmp_path / "b"), "b")])
    assert "mean average precision" not in alone


def test_curves_of_held_out_examples_stay_when_the_test_split_is_evaluated(tmp_path):
    rows = [row(10, "validation", 0.5), row(20, "validation", 0.4), row(20, "test", 0.3)]
    make_run(tmp_path / "run", rows=rows)
    text = text_of(compare_page([read_run(str(tmp_path / "run"), "run")]), "curves")
    assert [name in text for name in ("Validation error", "Test error", "Train error")] == [
        *(True, True, False)
    ]


def test_lists_show_in_what_they_differ(tmp_path):
    for name, device in (("a", "H100"), ("b", "A100")):
        make_run(tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"devices": [device] * 8}))
    page = compare_page([read_run(str(tmp_path / name), name) for name in "ab"])
    assert "devices 8 x H100 8 x A100" in text_of(page, "differences")


def test_long_lists_show_where_they_differ(tmp_path):
    names = [f"class {i}" for i in range(12)]
    make_run(tmp_path / "a", class_names=names, counts=[1, 2, 2, 1, 1])
    others = [*names[:2], "owl", *names[3:]]
    make_run(tmp_path / "b", class_names=others, counts=[1, 2, 1, 2, 1])
    page = compare_page([read_run(str(tmp_path / name), name) for name in "aab"])
    shown = text_of(page, "differences")
    same = "12 values, number 3 is class 2"
    assert f"class_names {same} {same} 12 values, number 3 is owl" in shown
    same = "3 x 1, 2 x 2, number 3 is 2"
    assert f"counts {same} {same} 3 x 1, 2 x 2, number 3 is 1" in shown


def test_a_loss_that_is_not_finite(tmp_path):
    make_run(tmp_path / "run", rows=[row(20, "test", 0.05) | {"loss": None}])
    page = compare_page([read_run(str(tmp_path / "run"), "run")])
    assert text_of(page, "result").endswith("5.00 % (3.26 to 7.60) 95.00 % 0.00 % -")


def test_a_test_split_of_which_nothing_counted(tmp_path):
    nothing = dict.fromkeys(("loss", "error_top1", "error_top5"))
    make_run(tmp_path / "run", rows=[row(20, "test", 0.05) | nothing])
    page = compare_page([read_run(str(tmp_path / "run"), "run")])
    assert text_of(page, "result").endswith("- - - -")


def test_equal_runs_of_one_name_and_validation(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        make_run(tmp_path / name / "run", rows=[row(5, "validation", 0.25)])
    paths = [str(tmp_path / name / "run") for name in ("x", "y")]
    page = compare_page([read_run(path, path) for path in paths])
    assert "are the same" in text_of(page, "differences")
    assert "validation 5 of" in text_of(page, "result")
    assert "Validation error" in page
    main([*paths, f"--out={tmp_path}/page.html"])
    assert all(path in (tmp_path / "page.html").read_text() for path in paths)


def test_a_run_that_ended_early_says_so_and_why(tmp_path):
    rows = [row(5, "validation", 0.2), row(10, "validation", 0.2), row(10, "test", 0.25)]
    make_run(tmp_path / "run", rows=rows, patience=1)
    result = text_of(compare_page([read_run(tmp_path / "run", "run")]), "result")
    assert (
        "test 10, ended early (of 160,000 updates) by keep_best.patience=1: no loss of validation "
        "examples was better than the 1.0000 after 5 25.00 %"
    ) in result


def test_a_damaged_line_is_named(tmp_path):
    make_run(tmp_path / "run", rows=[row(5, "test", 0.2)], torn="{\n")
    with pytest.raises(UsageError, match=r"^.*metrics\.jsonl, line 2 is damaged"):
        read_run(str(tmp_path / "run"), "run")


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl", "."])
def test_what_is_no_run_is_refused_in_one_line(tmp_path, missing, capsys):
    make_run(tmp_path / "run")
    target = tmp_path / "run" / missing
    target.unlink() if target.is_file() else shutil.rmtree(target)
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "run"), f"--out={tmp_path}/page.html"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"rattn compare: {tmp_path}/run cannot be read as the folder of a run ("
    )
    assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
