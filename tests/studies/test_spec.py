"""A study's file: what it comes to, and what is wrong with it in one line."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from kits_ml.errors import InputError


def test_settings_become_optunas_distributions(make_spec):
    spec = make_spec(
        space={
            "learning_rate": {"low": "1e-4", "high": 0.1, "log": True},  # YAML reads 1e-4 as text
            "depth": {"low": 1, "high": 3},
            "gamma": {"low": 0.5, "high": 2, "step": 0.5},
            "loss": ["dice_crossentropy", "categorical_crossentropy"],
            "training_margin_mm": {"choices": [None, 20]},
        },
        base={"image_size": 32},
    )
    assert spec.spaces["unet"] == {
        "learning_rate": FloatDistribution(1e-4, 0.1, log=True),
        "depth": IntDistribution(1, 3),
        "gamma": FloatDistribution(0.5, 2, step=0.5),
        "loss": CategoricalDistribution(["dice_crossentropy", "categorical_crossentropy"]),
        "training_margin_mm": CategoricalDistribution([None, 20]),
    }
    assert spec.spaces["attention_unet"] == spec.spaces["unet"]


def test_an_architectures_own_part_comes_on_top(make_spec):
    own = {"attention_unet": {"base": {"learning_rate": 0.01}, "space": {"gamma": [1, 1.5]}}}
    spec = make_spec(own=own)
    assert list(spec.spaces["unet"]) == ["learning_rate", "batch_size"]
    assert list(spec.spaces["attention_unet"]) == ["batch_size", "gamma"]  # its learning rate is fixed
    settings = spec.settings("attention_unet", {"batch_size": 4, "gamma": 1})
    assert (settings.architecture, settings.learning_rate, settings.register) == ("attention_unet", 0.01, False)


def test_several_objectives_have_directions(make_spec):
    spec = make_spec(objectives=["val_foreground_iou", "gflops"], sampler="NSGAIISampler")
    assert spec.directions == ["maximize", "minimize"]


def test_more_budget_is_the_same_study(make_spec, document):
    spec = make_spec()
    assert spec.differences({**document, "trials": 40}) == []
    assert spec.differences({**document, "seed": 6, "base": {}}) == ["base", "seed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": {"learning_rat": [1]}},
            "s.yaml: space.learning_rat: unknown setting 'learning_rat'; did you mean",
        ),
        ({"space": {"gamma": {"low": 2, "high": 1}}}, "s.yaml: space.gamma: an empty range: low 2 is above high 1"),
        (
            {"space": {"gamma": {"low": 1, "high": float("nan")}}},
            "s.yaml: space.gamma.high: found nan, expected a fini",
        ),
        ({"space": {"gamma": {"low": 1, "high": "inf"}}}, "s.yaml: space.gamma.high: found inf, expected a finite"),
        ({"space": {"loss": []}}, "s.yaml: space.loss: found choices [], an empty range"),
        ({"space": {"loss": ["dyce"]}}, "s.yaml: space.loss: found 'dyce', expected one of"),
        ({"space": {"gamma": {"low": 0, "high": 1}}}, "s.yaml: space.gamma: found 0.0, expected 0.1 to 10"),
        (
            {"space": {"gamma": {"low": 1}}},
            "s.yaml: space.gamma: found {'low': 1}, expected low and high, or choices",
        ),
        ({"space": {"gamma": {"low": 1, "high": 2, "lg": True}}}, "s.yaml: space.gamma: unknown key 'lg'"),
        (
            {"space": {"depth": {"low": 1.5, "high": 2}}},
            "s.yaml: space.depth.low: found 1.5, expected a whole number",
        ),
        ({"space": {"loss": {"low": 1, "high": 2}}}, "s.yaml: space.loss: found a range for a setting that is no"),
        ({"space": {"test_fraction": [0.1]}}, "s.yaml: space.test_fraction: is the same for all trials"),
        ({"space": {}}, "s.yaml: space: unet has nothing to search"),
        ({"space": {"as_reported_metrics": ["a:B"]}}, "s.yaml: space.as_reported_metrics: is the same for all"),
        ({"space": {"promote": [True, False]}}, "s.yaml: space.promote: is the same for all trials"),
        ({"space": {"init_from": ["a.keras"]}}, "s.yaml: space.init_from: is the same for all trials"),
        ({"base": {"init_from": "a.keras"}}, "s.yaml: base.init_from: does not stand here, expected nothing: trials"),
        ({"base": {"resume": True}}, "s.yaml: base.resume: does not stand here"),
        ({"base": {"as_reported_metrics": "a:B"}}, "s.yaml: base.as_reported_metrics: does not stand here"),
        ({"objectives": ["as_reported/val_B"]}, "s.yaml: objectives: found ['as_reported/val_B'], expected a list"),
        (
            {"objectives": ["val_foreground_iou", "as_reported/val_B"]},
            "s.yaml: objectives: unknown 'as_reported/val_B'",
        ),
        ({"space": {"epochs": [1, 2]}}, "s.yaml: epochs: found under base and in the space of unet"),
        ({"space": {"deep_supervision": [True]}}, "s.yaml: space.deep_supervision: not for unet"),
        ({"base": {"epochs": 0}}, "s.yaml: base: epochs: found 0, expected at least 1"),
        ({"base": {"epoch": 1}}, "s.yaml: base: unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"base": {"num_folds": 3}}, "s.yaml: base.num_folds: does not stand here, expected num_folds at the top"),
        ({"architectures": ["unet", "unet"]}, "s.yaml: architectures: found 'unet' twice"),
        ({"architectures": ["unett"]}, "s.yaml: architectures: unknown 'unett'; did you mean 'unet'?"),
        ({"architectures": None}, "s.yaml: architectures: found None, expected a list of names"),
        ({"own": {"unet_3_plus": {}}}, "s.yaml: own: 'unet_3_plus' is not among architectures"),
        ({"trials": None}, "s.yaml: trials: found neither trials nor minutes"),
        ({"trials": 0}, "s.yaml: trials: found 0, expected at least 1"),
        ({"trials": None, "minutes": 0}, "s.yaml: minutes: found 0, expected more"),
        ({"name": ".."}, "s.yaml: name: found '..', expected one that can be a folder's"),
        ({"name": "a/b"}, "s.yaml: name: found 'a/b', expected a name without a slash"),
        ({"name": None}, "s.yaml: setting 'name' is required"),
        ({"num_folds": 1}, "s.yaml: num_folds: found 1"),
        (
            {"num_folds": 2, "base": {"split_file": "folds.json"}},
            "s.yaml: num_folds: found 2 with split_file folds.json, expected one of the two",
        ),
        (
            {"num_folds": 2, "own": {"attention_unet": {"base": {"split_file": "folds.json"}}}},
            "s.yaml: num_folds: found 2 with split_file folds.json, expected one of the two",
        ),
        ({"samplr": "TPESampler"}, "s.yaml: unknown key 'samplr'; did you mean 'sampler'?"),
        ({"sampler": "TPESamplr"}, "s.yaml: sampler: unknown 'TPESamplr'; did you mean 'TPESampler'?"),
        ({"sampler": {"name": "TPESampler", "startup": 1}}, "s.yaml: sampler: TPESampler has no argument 'startup'"),
        ({"sampler": {"name": "TPESampler", "seed": 1}}, "s.yaml: sampler.seed: found it here, expected seed at the"),
        ({"sampler": "GridSampler"}, "s.yaml: sampler: found GridSampler, expected BruteForceSampler"),
        ({"pruner": {"name": "PercentilePruner"}}, "s.yaml: pruner: PercentilePruner: "),
        ({"pruner": 3}, "s.yaml: found pruner 3, expected a name of Optuna's"),
        ({"pruner": "WilcoxonPruner"}, "s.yaml: pruner: WilcoxonPruner compares patients of finished folds"),
        (
            {"objectives": ["gflops"]},
            "s.yaml: objectives: found ['gflops'], expected a list that begins with val_fore",
        ),
        (
            {"objectives": ["val_foreground_iou", "gflops"], "pruner": "MedianPruner"},
            "s.yaml: pruner: found MedianPruner with 2 objectives, expected NopPruner",
        ),
        (
            {"objectives": ["val_foreground_iou", "gflops"], "sampler": "CmaEsSampler"},
            "s.yaml: sampler: CmaEsSampler is for one objective",
        ),
    ],
)
def test_bad_input_gets_one_line(changes, message, make_spec):
    with pytest.raises(InputError) as caught:
        make_spec(**changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_sampler_whose_package_is_missing(make_spec, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="CmaEsSampler needs cmaes, which is missing: pip install cmaes"):
        make_spec(sampler="CmaEsSampler")
