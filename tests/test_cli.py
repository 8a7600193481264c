"""What all commands share: flags, errors on one line, exit statuses."""

import io
import json
import subprocess
import sys

import pytest

from experiments import (
    benchmark_input,
    benchmark_predict,
    draw_masks,
    plan_pod,
    recipe,
    show_batch,
)
from experiments.accelerator import __main__ as accelerator
from experiments.benchmark import __main__ as benchmark
from experiments.growth import __main__ as growth
from experiments.reproduce import __main__ as reproduce
from rattn_jax import __main__ as rattn
from rattn_jax import (
    __version__,
    compare,
    describe,
    explain,
    export,
    import_torch,
    predict,
    prepare,
    serve,
    train,
)
from rattn_jax.cli import Parser, errors_on_one_line
from rattn_jax.config.load import shipped_configs
from rattn_jax.errors import DataError, NonfiniteError, Preempted, UsageError
from tests.compare import read_rows
from tests.forks import start_afresh, start_python
from tests.main_program import BARE, TINY, run

PROGRAMS = {
    "rattn train": train.main,
    "rattn evaluate": train.evaluate,
    "rattn selftest": train.selftest,
    "rattn predict": predict.main,
    "rattn explain": explain.main,
    "rattn serve": serve.main,
    "rattn export": export.main,
    "rattn describe": describe.main,
    "rattn compare": compare.main,
    "rattn import": import_torch.main,
    "rattn prepare": prepare.main,
    "rattn configs": rattn.configs,
    "experiments.accelerator": accelerator.main,
    "experiments.benchmark": benchmark.main,
    "experiments.benchmark_input": benchmark_input.main,
    "experiments.benchmark_predict": benchmark_predict.main,
    "experiments.draw_masks": draw_masks.main,
    "experiments.growth": growth.main,
    "experiments.plan_pod": plan_pod.main,
    "experiments.recipe": recipe.main,
    "experiments.reproduce": reproduce.main,
    "experiments.show_batch": show_batch.main,
}


def ends(function, capsys):
    """Exit status, standard output and error of what ends the process."""
    with pytest.raises(SystemExit) as stopped:
        function()
    return stopped.value.code, *capsys.readouterr()


@pytest.mark.parametrize("name", PROGRAMS)
def test_unknown_flag_is_one_line_and_status_2(name, capsys):
    status, out, err = ends(lambda: PROGRAMS[name](["--no-such-thing=1"]), capsys)
    assert (status, out) == (2, "")
    assert err.startswith(f"{name}: ")
    assert "--no-such-thing" in err or "required" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_has_an_example(name, capsys):
    status, out, err = ends(lambda: PROGRAMS[name](["--help"]), capsys)
    assert (status, err) == (0, "")
    program = name if name.startswith("rattn") else f"python -m {name}"
    assert f"\n    {program}" in out


def test_every_command_is_tested():
    commands = {f"rattn {name}" for name in rattn.COMMANDS}
    assert {name for name in PROGRAMS if name.startswith("rattn")} == commands


def test_version_and_help(capsys):
    assert ends(lambda: rattn.main(["--version"]), capsys) == (0, f"rattn {__version__}\n", "")
    status, out, _ = ends(lambda: rattn.main([]), capsys)
    assert status == 0
    assert all(f"\n  {name} " in out for name in rattn.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "rattn: unknown command 'trian': did you mean train? (see rattn --help)"),
        (
            ["--verison"],
            "rattn: unknown flag --verison: did you mean --version? (see rattn --help)",
        ),
        (
            ["configs", "digit"],
            "rattn configs: no config is called 'digit': did you mean digits? `rattn configs`",
        ),
        (["predict", "--workdir=x"], "rattn predict: the following arguments are required: image"),
        (["train"], "rattn train: --config and --workdir are missing (see rattn train --help)"),
        (["evaluate", "--workdir=/none"], "rattn evaluate: workdir /none holds no run"),
        (
            ["compare", "foo://run"],
            "rattn compare: 'foo://run' begins like a URL, and 'foo://' is no object store",
        ),
        (
            ["train", "--config=digits", "--workdir=x", "--process-id=0"],
            "rattn train: --process-id is of a job of several processes: add --distributed, or",
        ),
        (
            ["evaluate", "--workdir=attention56_digits", "--distributed"],
            "rattn evaluate: --distributed evaluates the latest checkpoint of a run: leave out",
        ),
        (
            ["describe", "--batch-size=x"],
            "rattn describe: argument --batch-size: x: must be at lea",
        ),
    ],
)
def test_bad_usage(capsys, arguments, message):
    status, _, err = ends(lambda: rattn.main(arguments), capsys)
    assert status == 2
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_underscores_mean_dashes_in_flags_alone():
    parser = Parser("program", "")
    parser.add_argument("--two-words")
    parser.add_argument("files", nargs="+")
    options = parser.parse(["--two_words=a_b", "--", "--my_photo.jpg"])
    assert (options.two_words, options.files) == ("a_b", ["--my_photo.jpg"])


def test_configs_are_listed_and_shown(capsys):
    rattn.main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_configs())
    digits = next(line for line in lines if line.startswith("digits "))
    assert digits.split(maxsplit=1)[1].startswith("A small attention network on handwritten digits")
    rattn.main(["configs", "digits"])
    assert "config.num_train_steps = 600" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UsageError("bad"), 2, "bad"),
        (DataError("bad"), 1, "bad"),
        (DataError("a\nb.jpg is bad"), 1, r"a\nb.jpg is bad"),
        (NonfiniteError("bad"), 1, "bad"),
        (Preempted("bad"), 75, "bad"),
        (OSError(28, "No space left", "/x/y"), 1, "/x/y: No space left; free space or repair"),
        (OSError(28, "No space left"), 1, "run: No space left; free space or repair"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: 1 GB"),
            1,
            "out of memory (RESOURCE_EXHAUSTED: 1 GB): use",
        ),
        (ImportError("install gcsfs"), 2, "install gcsfs, or give a path on this machine"),
        (KeyError("https://"), 2, "https://... cannot be read or written: download it"),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, message, capsys):
    def fail():
        with errors_on_one_line("program", "run"):
            raise error

    found, _, err = ends(fail, capsys)
    assert found == status
    assert err.startswith(f"program: {message}")
    assert err.count("\n") == 1


def test_status_is_the_same_once_the_terminal_is_closed(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(SystemExit) as stopped, errors_on_one_line("program"):
        raise Preempted("stopped after step 3, saved")
    assert stopped.value.code == 75


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ImportError("no x", name="x"),
        OSError(5, "I/O"),
        RuntimeError(),
        AssertionError(),
    ],
)
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)), errors_on_one_line("program"):
        raise error


def shell(command, program):
    """Exit status, output and errors of a Python program in a shell command."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", sys.executable, "-c", program],
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


IN_ONE_LINE = "from rattn_jax.cli import errors_on_one_line\nwith errors_on_one_line('x'):\n  "


def test_output_that_nobody_reads_ends_quietly():
    many = f"{IN_ONE_LINE}for i in range(10**6): print(i)"
    assert shell('"$@" | head -1', many) == (1, b"0\n", b"")
    assert shell('"$@" >&-', f"{IN_ONE_LINE}print(1)") == (0, b"", b"")


def test_names_that_are_not_utf_8_are_printed():
    status, out, err = shell('"$@"', f"{IN_ONE_LINE}print('\\udcff.jpg')")
    assert (status, out, err) == (0, b"\\udcff.jpg\n", b"")


def test_without_the_modules_of_posix_networks_are_used_and_training_says_where_it_runs(tmp_path):
    program = (
        "import sys\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "import rattn_jax.explain, rattn_jax.export, rattn_jax.predict\n"
        "print(rattn_jax.load('attention56_digits').class_names[1], flush=True)\n"
        "from rattn_jax.__main__ import main\n"
        f"main(['train', '--config=digits', '--workdir={tmp_path}'])"
    )
    process = start_afresh("-c", program)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (2, "1\n")
    assert err.startswith(
        f"rattn train: training runs on Linux and macOS, and sys.platform={sys.platform!r}"
    )
    assert err.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("platform", ["cuda", pytest.param("nonsense", marks=pytest.mark.slow)])
def test_device_that_is_not_there(tmp_path, platform):
    arguments = ["train", TINY, f"--workdir={tmp_path}"]
    process = start_afresh("-m", "rattn_jax", *arguments, JAX_PLATFORMS=platform)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err.startswith(f"rattn train: JAX finds no device for JAX_PLATFORMS='{platform}' (")
    assert err.count("\n") == 1


def test_url_of_an_unknown_kind(capsys):
    arguments = ["--workdir=run", "ftp://example.org/cat.jpg"]
    status, _, err = ends(lambda: predict.main(arguments), capsys)
    assert status == 2
    assert err.startswith("rattn predict: ftp://... cannot be read or written")


def test_evaluate_writes_the_line_of_the_newest_checkpoint(tmp_path):
    """A run that ends where no evaluation was due, and then is evaluated with its own config."""
    arguments = ["train", BARE, "--config.num_train_steps=3", f"--workdir={tmp_path}"]
    status, out, err = finish(start_python("-m", "rattn_jax", *arguments))
    assert (status, err) == (0, "")
    rows = read_rows(tmp_path)
    kept = [row for row in rows if not (row["step"] == 3 and row["split"] == "test")]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    process = start_python("-m", "rattn_jax", "evaluate", f"--workdir={tmp_path}")
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert f"test error {100 * rows[-1]['error_top1']:.2f} % after 3 steps" in out
    assert read_rows(tmp_path)[-1]["loss"] == rows[-1]["loss"]


def finish(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def test_main_py_and_rattn_are_the_same_program(tmp_path):
    bad = ["--config.seed=-1", TINY, f"--workdir={tmp_path}"]
    status, _, err = run(*bad)
    again, _, said = finish(start_python("-m", "rattn_jax", "train", *bad))
    assert (status, err.removeprefix("main.py")) == (again, said.removeprefix("rattn train"))
    assert status == 2
