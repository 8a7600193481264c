import importlib
import json
import subprocess
import sys

import pytest

from experiments.reproduce import __main__ as program
from experiments.reproduce.page import Page
from experiments.reproduce.runs import ROOT, PlannedRun, plan_runs
from experiments.reproduce.scales import SCALES
from experiments.reproduce.tables import TABLES
from rattn_jax.config.load import parse_config

TINY = [
    "--config.model.widths=(8,)",
    "--config.model.modules_per_stage=(1,)",
    "--config.model.mask_poolings=(1,)",
    "--config.model.scan_modules=False",
    "--config.report=False",
]
DATASET = {"num_train": 20, "num_test": 400, "class_names": ["a", "b"]}


@pytest.fixture
def trained(monkeypatch):
    """In place of training: the runs that were asked for, and what becomes of each in turn."""
    seen, outcomes = [], []

    def train(run):
        seen.append((run.variant.name, run.seed))
        outcome = outcomes.pop(0)
        if isinstance(outcome, int):
            return outcome
        write_run(run, outcome)
        return 0

    monkeypatch.setattr(program, "train", train)
    return seen, outcomes


def write_run(run: PlannedRun, error, step=None, held_out=None):
    run.folder.mkdir(parents=True, exist_ok=True)
    record = {
        "config": json.loads(json.dumps(run.config.to_dict())),
        "dataset": DATASET,
        "versions": {"jax": "0"},
        "devices": ["abacus"],
        "git_commit": "c0ffee",
    }
    (run.folder / "config.json").write_text(json.dumps(record))
    errors = {"train": 0.01, "validation": held_out, "test": error}
    step = step or run.config.num_train_steps
    rows = [{"step": step, "split": s, "error_top1": e} for s, e in errors.items() if e is not None]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_program(folder, *arguments, table="table1", scale="short"):
    with pytest.raises(SystemExit) as leaving:
        program.main([table, f"--workdir={folder}", f"--scale={scale}", *arguments])
    return leaving.value.code


def plan(folder, table="table1", scale="short", seeds=1, overrides=()):
    return plan_runs(TABLES[table].variants(), SCALES[scale], folder / scale, seeds, overrides)


def read(folder, name="table1-short"):
    return json.loads((folder / f"{name}.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("table", "scale"),
    [
        (table, scale)
        for table in TABLES
        for scale in SCALES
        if scale != "digits" or table not in ("table6", "table7")
    ],
)
def test_every_run_has_a_config(tmp_path, table, scale):
    for run in plan(tmp_path, table, scale):
        parse_config(run.config)
        assert run.config.optimizer.boundaries[-1] < run.config.num_train_steps
        assert (run.config.dataset.name == "digits") == (scale in ("smoke", "digits"))
        if scale == "paper":
            own = importlib.import_module(f"configs.{run.variant.config}").get_config()
            assert run.config.num_train_steps == own.num_train_steps


def test_the_papers_numbers_are_those_of_the_configs():
    rows = {row for table in TABLES.values() for row in table.rows}
    plain = [row for row in rows if row.paper and not row.variant.flags]
    assert len(plain) > 40
    for row in plain:
        text = importlib.import_module(f"configs.{row.variant.config}").__doc__
        assert f"{row.paper} %" in text or f"{row.paper:.2f} %" in text, row


def test_tables_share_runs(tmp_path):
    (naive,) = (run for run in plan(tmp_path, "table3") if run.variant.name.endswith("56_naive"))
    assert naive.config.model.attention_residual is False
    assert naive.config.num_train_steps == 4_000
    assert naive.config.optimizer.boundaries == (1_600, 2_400)
    folders = {run.folder for run in plan(tmp_path, "table3")}
    assert {run.folder for run in plan(tmp_path, "table4")} & folders


def test_numbers_beside_the_papers(tmp_path, trained, capsys):
    seen, outcomes = trained
    outcomes += [0.06, 0.08, 0.09, 0.07, 0.08, 0.11]
    assert run_program(tmp_path, "--seeds=2") == 0
    names = [f"cifar10_attention56{suffix}" for suffix in ("", "_channel", "_spatial")]
    assert seen == [(name, seed) for seed in (0, 1) for name in names]
    mixed, channel, spatial = read(tmp_path)
    assert mixed["values"] == pytest.approx([6.0, 7.0])
    assert mixed["ours"] == pytest.approx(6.5)
    assert mixed["standard_deviation"] == pytest.approx(0.5**0.5)
    assert mixed["difference"] == pytest.approx(6.5 - 5.52)
    assert (channel["ours"], spatial["ours"]) == pytest.approx((8.0, 10.0))
    page = (tmp_path / "table1-short.md").read_text()
    assert "| mixed | 5.52 | 6.50 | 0.71 | 2 | +0.98 | 1.00 | 4,000 |" in page
    assert "- mixed < channel < spatial (the paper's order; by means alone, for not all" in page
    assert "NOT the paper's protocol" in page
    assert "| mixed minus spatial | -3.50 | -9.85 to +2.85 | 0.090 | 0.271 | 2 | -0.81 |" in page
    assert "corrected for there being 3 of them (Holm)" in page
    assert "abacus" in page
    assert "c0ffee" in page
    assert page in capsys.readouterr().out


def test_runs_that_have_ended_are_skipped(tmp_path, trained):
    seen, outcomes = trained
    first, second, third = plan(tmp_path)
    write_run(first, 0.06)
    write_run(second, 0.5, step=800)  # under way
    outcomes += [0.05, 0.04]
    assert run_program(tmp_path) == 0
    assert seen == [(run.variant.name, 0) for run in (second, third)]
    assert (
        "spatial < channel < mixed (the paper: mixed < channel < spatial; one seed"
        in (tmp_path / "table1-short.md").read_text()
    )


def test_a_run_whose_last_checkpoint_is_missing_goes_on(tmp_path):
    run = plan(tmp_path)[0]
    write_run(run, 0.5)
    total = run.config.num_train_steps
    for step in (total - 100, total):
        (run.folder / "checkpoints" / str(step)).mkdir(parents=True)
    assert run.result() is not None
    (run.folder / "checkpoints" / str(total)).rmdir()
    assert run.result() is None
    (run.folder / "checkpoints" / str(total - 100)).rmdir()
    assert run.result() is not None, "the user has removed them"


def test_a_run_of_before_keys_were_added_counts(tmp_path):
    run = plan(tmp_path)[0]
    write_run(run, 0.06)
    record = run.record()
    for key in ("exact_pixels", "crop_files"):
        del record["config"]["dataset"][key]
    del record["config"]["dataset"]["hold_out_by"]
    (run.folder / "config.json").write_text(json.dumps(record))
    assert run.result()["error_top1"] == 0.06


def test_runs_are_chosen_by_name(tmp_path, trained):
    seen, outcomes = trained
    mixed, *_ = plan(tmp_path)
    write_run(mixed, 0.06)  # by another command
    outcomes += [0.08, 0.07]
    assert run_program(tmp_path, "--seeds=2", "--only=cifar10_attention56_spatial") == 0
    assert seen == [("cifar10_attention56_spatial", seed) for seed in (0, 1)]
    assert [row["values"] for row in read(tmp_path)] == [[6.0], [], pytest.approx([8.0, 7.0])]


def test_a_failed_run_does_not_stop_the_others(tmp_path, trained):
    _, outcomes = trained
    outcomes += [0.06, 2, 0.07]
    assert run_program(tmp_path) == 1
    assert [row["ours"] is None for row in read(tmp_path)] == [False, True, False]
    page = (tmp_path / "table1-short.md").read_text()
    assert "| channel | 6.24 |  |  | 0 |  |  | 0 of 4,000 |" in page
    assert "Order" not in page


def test_a_stopped_run_stops(tmp_path, trained):
    seen, outcomes = trained
    outcomes += [0.06, 75]
    assert run_program(tmp_path) == 75
    assert len(seen) == 2
    assert read(tmp_path)[0]["ours"] == 6.0


def test_a_folder_of_other_runs_is_refused(tmp_path, trained, capsys):
    (run, *_) = plan(tmp_path, overrides=["--config.batch_size=32"])
    write_run(run, 0.06)
    assert run_program(tmp_path) == 2
    assert "batch_size=32, and this config has batch_size=64" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run_program(tmp_path / "file" / "folder") == 2
    assert "cannot be made (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.no_such_key=1", "the config has no key 'no_such_key'"),
        ("--config.batch_size=0", "config.batch_size=0 is out of range"),
        ("--config.seed=7", "config.seed is that of each run, 0, 1, ...: give their number by --s"),
        (
            "--only=cifar10_attention56,mixed",
            "no run is called 'mixed': choose one of cifar10_attention56, ",
        ),
        ("--steps=3", "unknown flag --steps: did you mean --seeds?"),
        ("--x=3", "unknown flag --x: keys of the config are set with --config.KEY=VALUE"),
    ],
)
def test_bad_options(tmp_path, capsys, argument, message):
    assert run_program(tmp_path, argument) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "scale", "overrides", "expected"),
    [
        ("table1", "paper", [], True),
        ("table1", "short", [], False),
        ("table1", "paper", ["--config.batch_size=128"], False),
        ("table1", "paper", ["--config.num_train_steps=80000"], False),
        ("table1", "paper", ["--config.steps_per_call=50"], True),
        ("table7", "paper", [], False),
        ("table7", "paper", ["--config.dataset.test_exclude_file=list"], True),
    ],
)
def test_what_follows_the_papers_protocol(tmp_path, table, scale, overrides, expected):
    runs = plan(tmp_path, table, scale, overrides=overrides)
    page = Page(table, TABLES[table], scale, SCALES[scale], overrides, runs)
    assert page.is_the_papers() is expected
    assert ("NOT the paper's protocol" in page.markdown()) is not expected


def test_responses_are_relative_to_the_first_stage(tmp_path):
    runs = plan(tmp_path, "figure4", "smoke")
    for run in runs[:2]:
        write_run(run, 0.5)
    responses = {"stage1": 2.0, "stage2": 1.0, "stage3": 0.5}
    record = {"step": 12, "images": 360, "responses": responses}
    (runs[0].folder / "stage_responses.json").write_text(json.dumps(record))
    before = json.dumps(record | {"step": 6})  # of a checkpoint that is not the last
    (runs[1].folder / "stage_responses.json").write_text(before)
    page = Page("figure4", TABLES["figure4"], "smoke", SCALES["smoke"], [], runs)
    found = {(r.row.group, r.row.label): r.mean for r in page.results() if r.values}
    label = "Attention-164, ARL"
    assert found == pytest.approx(
        {("stage 1", label): 2.0, ("stage 2", label): 0.5, ("stage 3", label): 0.25}
    )
    drawing = page.drawing()
    assert f"Last values: {label} 0.25" in drawing
    assert drawing.count("<polyline") == 2  # on a linear and on a logarithmic axis
    assert ">stage</text>" in drawing


def test_digits_take_the_place_of_cifar10_alone(tmp_path, trained, capsys):
    assert run_program(tmp_path, table="table7", scale="digits") == 2
    assert "--scale=digits is for the tables on CIFAR-10 alone" in capsys.readouterr().err
    (noisy,) = (
        run.config
        for run in plan(tmp_path, "table5", "digits")
        if run.variant.name == "cifar10_noise30_resnet164"
    )
    assert noisy.dataset.label_noise.clean_ratio == 0.7
    assert noisy.model.widths is None  # the paper's network
    assert noisy.validation_examples + 200 == 1_437


def test_digits_are_others_for_each_seed_and_errors_are_of_all_others(tmp_path, trained):
    runs = plan(tmp_path, "table4", "digits", seeds=2)
    assert [run.config.validation_seed for run in runs] == [0, 0, 1, 1]
    assert {run.config.dataset.image_size for run in runs} == {16}
    write_run(runs[0], 0.05, held_out=0.07)  # 400 test images, according to the record
    page = Page("table4", TABLES["table4"], "digits", SCALES["digits"], [], runs)
    (result,) = (result for result in page.results() if result.values)
    assert result.values == {0: pytest.approx(100 * (0.05 * 400 + 0.07 * 1_237) / 1_637)}
    assert "| local convolutions | 6.48 | 6.51 |  | 1 |  | 1.00 | 0 of 600 |" in page.markdown()
    assert "digits (-1,217 to train, 1,637 to test)" in page.markdown()


def test_runs_that_have_diverged_are_named(tmp_path):
    runs = plan(tmp_path, "table4")
    write_run(runs[0], 0.06, step=100)
    (runs[0].folder / "nonfinite").mkdir()
    text = Page("table4", TABLES["table4"], "short", SCALES["short"], [], runs).markdown()
    assert "| local convolutions | 6.48 |  |  | 0, 1 diverged |" in text
    assert "Runs of local convolutions have ended at NaN or infinity." in text
    runs[0].config.on_nonfinite = "skip"
    assert not runs[0].has_diverged()


def test_several_tables_train_what_they_share_once(tmp_path, trained, capsys):
    seen, outcomes = trained
    outcomes += [0.06, 0.08, 0.09, 0.07]
    with pytest.raises(SystemExit) as leaving:
        program.main(["table1", "table4", f"--workdir={tmp_path}", "--scale=short"])
    assert leaving.value.code == 0
    suffixes = ("", "_channel", "_spatial", "_local")
    assert seen == [(f"cifar10_attention56{suffix}", 0) for suffix in suffixes]
    assert [row["ours"] for row in read(tmp_path, "table4-short")] == pytest.approx([7, 6])
    assert "Mask structures" in capsys.readouterr().out


def test_noise_is_compared_with_none(tmp_path):
    runs = plan(tmp_path, "table5", seeds=2)
    for run in runs:
        noise = 100 - 100 * run.config.dataset.label_noise.clean_ratio
        slope = 0.001 if "attention" in run.variant.name else 0.002
        write_run(run, 0.05 + slope * noise + 0.01 * run.seed + 0.0001 * noise * run.seed)
    text = Page("table5", TABLES["table5"], "short", SCALES["short"], [], runs).markdown()
    assert "The same, of how much errors rise over those of 0 % noise." in text
    assert text.count("70 % noise: ResNet-164 minus Attention-92 | +7.00 |") == 2
    assert "| 0 % noise | ResNet-164 | 5.46 |" in text


@pytest.mark.slow
def test_a_table_from_the_command_line(tmp_path):
    ended, _ = plan(tmp_path, "table4", "smoke", overrides=TINY)
    write_run(ended, 0.5)
    command = [sys.executable, "-m", "experiments.reproduce", "table4", "--scale=smoke"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}", *TINY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path, "table4-smoke")
    assert [row["updates"] for row in rows] == [12, 12]
    assert rows[0]["ours"] == 50
    assert 0 < rows[1]["ours"] <= 100
    assert "the numbers mean nothing" in (tmp_path / "table4-smoke.md").read_text()
