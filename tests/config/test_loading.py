import dataclasses

import pytest
import yaml

from raynas.config.loading import dump, load
from raynas.config.run import Config, smoke_test
from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError
from raynas.searchers import EvolutionSettings


def test_file_and_overrides(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("space: my.net:space\ntrain: {epochs: 7, lr: 0.3}\nlimits: {macs: 3.3e8}\n")
    config = load(
        file, ["train.lr=0.2", "limits.parameters=[1e6, 5e6]", "search.method_args.population=20"], trust=True
    )
    assert (config.space, config.train.epochs, config.train.lr) == ("my.net:space", 7, 0.2)
    assert config.limits == {"macs": 3.3e8, "parameters": [1e6, 5e6]}
    assert config.search.method_args == {"population": 20}


def test_what_is_dumped_is_read_back(tmp_path):
    config = load(None, ["train.epochs=3", "limits.macs=1e6", "name=x", "after=[]"])
    (tmp_path / "c.yaml").write_text(dump(config))
    assert load(tmp_path / "c.yaml") == config
    assert yaml.safe_load(dump(Config()))["data"]["name"] == "digits"


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    config = load(None, ["train.lr=1e-2", "limits.macs=-2E3"], {"name": "7e3"})
    assert (config.name, config.train.lr, config.limits["macs"]) == ("7e3", 0.01, -2000.0)
    (tmp_path / "c.yaml").write_text(dump(config))
    assert load(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("spaec=x", "unknown setting 'spaec'; legal ones: space, space_args, exclude, data"),
        ("train.epoch=3", r"unknown setting 'train.epoch'; legal ones: preset, epochs.*; did you mean train.epochs\?"),
        ("train.paths=foo", "train.paths = 'foo'.*'uniform'.*'fair'"),
        ("search.num_samples=0", "search.num_samples = 0.*greater than or equal to 1"),
        ("data.validation=1.5", "data.validation = 1.5.*less than 1"),
        ("train.epochs=many", "train.epochs = 'many'"),
        ("after=[celebrate]", "after.0 = 'celebrate'.*'retrain'"),
        ("train", "'train' is not of the form key=value"),
        ("space.x=1", "space"),
    ],
)
def test_mistakes_are_named_with_what_is_legal(override, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(None, [override])
    assert "\n" not in str(error.value)


def test_settings_that_come_with_raynas_are_taken_by_name(tmp_path, monkeypatch):
    config = load("rlnas_nasbench201", ["search.method_args.parents=20", "seed=3"])
    assert (config.train.labels, config.search.trainable) == ("random", "trainables.angle:Angle")
    assert (config.train.paths, config.search.num_samples) == ("cells", 2000)
    assert config.search.method_args == {"population": 100, "parents": 20, "waits": True, "avoided": ["none"]}
    assert load("rlnas").train.paths == "plain"
    settings = EvolutionSettings(**load("rlnas").search.method_args)
    assert (settings.population, settings.parents, settings.children) == (50, 10, (25, 25))
    assert settings.mutation_probability == 0.1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rlnas").write_text("seed: 7\n")
    assert load("rlnas") == Config(seed=7), "a file of one's own goes before"


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the settings file .*; by name: rlnas, rlnas_nasbench201"):
        load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold settings"):
        load(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        load(tmp_path / "torn.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml is no text in UTF-8: .* at byte 9$"):
        load(tmp_path / "latin.yaml")


def test_presets_fill_what_is_open_and_nothing_else():
    spos = load(None, ["train.preset=spos", "train.lr=0.1"]).train.resolved()
    assert (spos.lr, spos.schedule, spos.weight_decay, spos.batch_size, spos.epochs) == (0.1, "linear", 4e-5, 1024, 120)
    small = Config().train.resolved()
    assert (small.schedule, small.batch_size) == ("cosine", 64)
    assert (small.label_smoothing, small.clip, small.cutout, small.drop_path) == (0.1, None, 0, 0.0)
    darts = load(None, ["train.preset=darts", "train.drop_path=0.3"]).train.resolved()
    assert (darts.epochs, darts.batch_size, darts.lr, darts.schedule) == (600, 96, 0.025, "cosine")
    assert (darts.weight_decay, darts.clip, darts.cutout, darts.auxiliary) == (3e-4, 5.0, 16, 0.4)
    assert (darts.label_smoothing, darts.drop_path) == (0.0, 0.3)


def test_a_smoke_test_is_small_and_leaves_the_rest():
    config = load(None, ["train.epochs=300", "search.num_samples=5000", "limits.macs=1e6", "seed=3"])
    small = smoke_test(config)
    assert small.train.epochs == 1 and small.search.num_samples < 10
    assert (small.limits, small.seed, small.space) == (config.limits, 3, config.space)
    assert dataclasses.asdict(config)["train"]["epochs"] == 300


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(spce="x"), r"^unknown setting 'spce'; legal ones: space, .*; did you mean space\?$"),
        (lambda: Config(train={"epoch": 3}), r"^unknown setting 'train.epoch'; .*; did you mean train.epochs\?$"),
        (lambda: TrainConfig(epochs=-1), r"^setting epochs = -1: input should be greater than 0$"),
        (lambda: dataclasses.replace(TrainConfig(), lr=0), r"^setting lr = 0: input should be greater than 0$"),
    ],
)
def test_programs_get_the_words_of_the_command_line(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
