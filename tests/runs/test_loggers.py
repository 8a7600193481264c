"""Weights & Biases and MLflow: against small stand-ins, and against the packages if installed."""

import sys
import types

import pytest
from etils import epath
from PIL import Image

from rattn_jax.config.schema import RunConfig
from rattn_jax.errors import UsageError
from rattn_jax.runs.loggers import build_loggers
from rattn_jax.runs.run_ids import RunIds

PICTURE = Image.new("RGB", (6, 4))
ROWS = [
    {"step": 10, "split": "train", "loss": 0.5, "learning_rate": None, "time": 1.0},
    {"step": 10, "split": "test", "loss": 0.25, "time": 2.0},
]


class WandbStandIn(types.ModuleType):
    """What `wandb_run.py` calls; keeps the calls."""

    class errors:  # noqa: N801
        class UsageError(Exception): ...

        class AuthenticationError(Exception): ...

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.logged, self.ended, self.refusal = [], [], [], None
        self.Settings, self.Image = types.SimpleNamespace, lambda picture: picture.size

    def init(self, **keywords):
        if self.refusal:
            raise self.refusal
        self.inits.append(keywords)
        return types.SimpleNamespace(
            config={},
            settings=types.SimpleNamespace(mode="offline", sync_dir="DIR"),
            define_metric=lambda *_, **__: None,
            log=lambda values, step: self.logged.append((step, values)),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


class MlflowStandIn(types.ModuleType):
    """What `mlflow_run.py` calls; keeps the calls."""

    tracking_uri = "URI"

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.logged, self.states = [], [], []
        self.MlflowClient = lambda: self
        entities = types.ModuleType("mlflow.entities")
        entities.Metric = entities.Param = lambda *values: values
        self.entities = entities

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"experiment {name}"

    def create_run(self, experiment, run_name):
        self.runs.append((experiment, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"id{len(self.runs)}"))

    def update_run(self, run_id, status):
        self.states.append((run_id, status))

    set_terminated = update_run

    def log_batch(self, run_id, metrics=(), params=()):
        self.logged.append((run_id, *metrics, *params))

    def log_image(self, run_id, picture, *, key, step, timestamp):
        self.logged.append((run_id, key, step, picture.size))


@pytest.fixture
def folder(tmp_path):
    path = epath.Path(tmp_path / "photos")
    path.mkdir()
    return path


def run_logger(name, folder, rows=ROWS):
    """What a start of a run does; returns whether the place was new, and what was said."""
    said = []
    (writer,) = build_loggers((name,), folder, RunConfig().to_dict(), said.append)
    is_new = writer.open()
    for row in rows:
        writer.append(row)
    writer.show(10, "masks", PICTURE)
    writer.close(ended_well=True)
    return is_new, said


def test_wandb(folder, monkeypatch):
    wandb = WandbStandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert run_logger("wandb", folder) == (True, ["wandb writes to DIR"])
    assert wandb.logged == [
        (40, {"update": 10, "train/loss": 0.5}),
        (42, {"update": 10, "test/loss": 0.25}),
        (43, {"update": 10, "masks": (6, 4)}),
    ]
    assert run_logger("wandb", folder)[0] is False
    first, second = wandb.inits
    assert first["id"] == second["id"] == RunIds(folder).get("wandb")
    assert (first["name"], second["name"], first["resume"]) == ("photos", None, "allow")
    assert wandb.ended == [0, 0]


def test_wandb_without_an_account_is_the_users_to_put_right(folder, monkeypatch):
    wandb = WandbStandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    wandb.refusal = wandb.errors.UsageError("No API key\nconfigured")
    with pytest.raises(UsageError, match=r"refuses \(No API key configured\).*WANDB_MODE=offline"):
        run_logger("wandb", folder)
    assert RunIds(folder).get("wandb") is None


def test_mlflow(folder, monkeypatch):
    mlflow = MlflowStandIn()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", mlflow.entities)
    assert run_logger("mlflow", folder) == (True, ["mlflow writes to run id1 at URI"])
    assert mlflow.runs == [("experiment rattn_jax", "photos")]
    params, *rest = mlflow.logged
    assert ("optimizer.learning_rate", "0.1") in params
    assert rest == [
        ("id1", ("train/loss", 0.5, 1_000, 10)),
        ("id1", ("test/loss", 0.25, 2_000, 10)),
        ("id1", "masks", 10, (6, 4)),
    ]
    assert run_logger("mlflow", folder)[0] is False
    assert mlflow.states == [("id1", "RUNNING"), ("id1", "FINISHED")] * 2
    assert len(mlflow.runs) == 1


def test_damaged_ids_are_refused(folder):
    (folder / "loggers.json").write_text('{"wandb"')
    with pytest.raises(UsageError, match=r"loggers\.json is damaged: remove it"):
        RunIds(folder)


@pytest.mark.slow
def test_wandb_itself_offline(folder, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for is_new in (True, False):
        found, (line,) = run_logger("wandb", folder)
        assert found is is_new
        assert str(folder / "wandb/offline-run-") in line
    kept = RunIds(folder).get("wandb")
    assert len(list((folder / "wandb").glob(f"offline-run-*-{kept}/run-{kept}.wandb"))) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_mlflow_itself_in_a_local_file(folder, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.chdir(folder)  # where it puts pictures
    run_logger("mlflow", folder)
    assert run_logger("mlflow", folder)[0] is False
    client, run_id = mlflow.MlflowClient(), RunIds(folder).get("mlflow")
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("photos", "FINISHED")
    assert run.data.metrics == {"train/loss": 0.5, "test/loss": 0.25}
    assert run.data.params["optimizer.learning_rate"] == "0.1"
    assert any("masks" in file.path for file in client.list_artifacts(run_id, "images"))
