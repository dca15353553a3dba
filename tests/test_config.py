from pathlib import Path

import pytest
import yaml

from ms_vireid.command.errors import InputError
from ms_vireid.config import (
    CONFIG_ROOT,
    AdamWConfig,
    AGWConfig,
    PMTConfig,
    SGDConfig,
    WarmupCosineConfig,
    WarmupStepsConfig,
    check_config,
    dump_config,
    list_models,
    load_config,
    named_model,
    save_config,
)
from ms_vireid.config.reading import quoted, round_trip

ABLATIONS = ("table.yaml", "demonstrations.yaml", "demo")  # not recipes: tables, and what a demo changes in their rows
RECIPES = sorted(path for path in CONFIG_ROOT.rglob("*.yaml") if not {path.name, path.parent.name} & {*ABLATIONS})

MINIMAL = """
data: {name: folder}
stages:
  - epochs: 1
    losses: {id: {}, msel: {weight: 0.5}}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("method", ["pmt", "agw", "mun"])
def test_the_defaults_of_a_method_s_sections_are_its_recipe_s(method):
    config = load_config(CONFIG_ROOT / method / "sysu.yaml", ["data.root=here", "model.pretrained=none"])
    for section in (config.model, config.schedule, config.evaluation):
        assert section == type(section)()


def test_the_classifier_s_size_is_the_training_set_s():
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml", ["data.root=here"])
    assert config.with_num_classes(7).with_num_classes(7).model.num_classes == 7
    with pytest.raises(InputError, match=r"model\.num_classes=7, the training set has 8 identities; leave it out"):
        config.with_num_classes(7).with_num_classes(8)


def test_only_terms_that_ask_for_it_take_rows_of_unit_length():
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml", ["data.root=here", "stages.0.losses.msel={normalised: true}"])
    assert [name for name, term in config.stages[0].losses.terms().items() if term.of_unit_rows] == ["msel"]


# base:


def test_a_file_is_merged_over_its_bases_found_relative_to_it_and_the_nearest_wins(minimal):
    folder = minimal.parent / "sub"
    folder.mkdir()
    write(folder, "middle.yaml", "base: ../minimal.yaml\nseed: 3\nmodel: {depth: 2}\ntrain: {iterations: 5}\n")
    path = write(folder, "child.yaml", "base: middle.yaml\nseed: 4\ntrain: {iterations: null}\n")
    config = load_config(path)
    assert (config.data.name, config.seed, config.model.depth, config.train.iterations) == ("folder", 4, 2, None)


def test_a_list_replaces_the_list_of_the_base(minimal):
    path = write(minimal.parent, "child.yaml", "base: minimal.yaml\nstages: [{epochs: 7, losses: {dcl: {}}}]\n")
    (stage,) = load_config(path).stages
    assert (stage.epochs, list(stage.losses.terms())) == (7, ["dcl"])


def test_a_configuration_of_before_backends_is_read_and_both_names_at_once_are_refused():
    tree = dump_config(load_config(CONFIG_ROOT / "demo.yaml", ["train.backend=eager"]))
    earlier = {key: value for key, value in tree["train"].items() if key != "backend"} | {"program": "eager"}
    assert dump_config(check_config(tree | {"train": earlier}, "config.yaml")) == tree
    with pytest.raises(InputError, match=r"config\.yaml: unknown key 'train\.program'"):
        check_config(tree | {"train": tree["train"] | {"program": "eager"}}, "config.yaml")


def test_a_circular_base_is_refused(tmp_path):
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    path = write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(InputError, match=r"'base:' loops back to .*a\.yaml"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\n}", ":2: not valid YAML: "),
        ("", ": a configuration must be a mapping of keys to values, not nothing"),
        ("- 1\n", ": a configuration must be .*, not a list"),
        ("seed: 1", ": data: field required"),
        ("base: [a, b]", ": 'base:' must name one file, not a list"),
        *(
            (f"seed: 1\na: {text}", ":2: not valid YAML: anchors, aliases and tags are not supported; write")
            for text in ("&a 1", "*a", '!!int ""', "! x")
        ),
        ("[" * 9999, ": nested too deeply"),
        ("? [seed]\n: 1", ":1: not valid YAML: found unhashable key"),
        ("seed: 1\ndata: {name: folder}\nseed: 2", ":3: not valid YAML: 'seed' is given twice"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused_with_its_name(tmp_path, text, says):
    with pytest.raises(InputError, match=rf"bad\.yaml{says}"):
        load_config(write(tmp_path, "bad.yaml", text))


# overrides


@pytest.mark.parametrize(
    ("overrides", "value_of", "value"),
    [
        (["data.synthetic.seed=7"], lambda config: config.data.synthetic.seed, 7),
        (["stages.0.epochs=9"], lambda config: config.stages[0].epochs, 9),
        (["stages.0.losses.hct={margin: 0.3}"], lambda config: config.stages[0].losses.hct.margin, 0.3),  # was absent
        (["seed=1", "seed=2"], lambda config: config.seed, 2),
        (["model.pretrained=a=b.ckpt"], lambda config: config.model.pretrained, "a=b.ckpt"),
        (["stages.0.losses.msel=null"], lambda config: list(config.stages[0].losses.terms()), ["id"]),
    ],
)
def test_overrides_set_values_in_order(minimal, overrides, value_of, value):
    assert value_of(load_config(minimal, overrides)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("3.e-4", 3e-4), (".5e-3", 5e-4), ("1e+0", 1.0), ("0.01", 0.01), ("1.", 1.0)],
)
def test_floats_are_those_of_yaml_1_2(minimal, text, value):
    assert load_config(minimal, [f"optimizer.lr={text}"]).optimizer.lr == value


# what the schema refuses


AGW = ("model.name=agw",)
MUN = ("model.name=mun", "data.image_size=[288,144]")
SGD = ("optimizer.name=sgd",)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("seed",), "'seed' is not of the form key.sub=value"),
        (("=3",), "'=3' is not of the form key.sub=value"),
        (("seed=[1",), r"'seed=\[1': not valid YAML"),
        (("stages.1.epochs=2",), "'1' is not an index below 1"),
        (("stages.².epochs=2",), "'²' is not an index below 1"),
        (("data.name.sub=2",), r"'data\.name' is not a section"),
        (("sed=1",), "unknown key 'sed'"),
        (("evaluation.shots=true",), "evaluation.shots: input should be 1 or 10, got 'True'"),
        (("seed=one", "model.depth=x"), r"^\S*minimal\.yaml: seed: .*'one' \(and 1 more\)$"),
        (("seed=010",), "seed: .*'010'"),
        (("seed=1:30",), "seed: .*'1:30'"),
        (("train.tf32=on",), r"train\.tf32: must be true or false, got 'on'"),
        (("model.depth='12'",), r"model\.depth: .*'12'"),
        (("data.root=2024",), r"data\.root: must be text, got 2024; put it in .* 'data\.root=\"\.\.\.\"'$"),
        (("model.pretrained=1e5",), r"model\.pretrained: must be text, got 100000\.0; put it in quotes"),
        (("data.root=[a]",), r"data\.root: must be text, got \('a',\)$"),
        (("optimizer.lr=-1e-3",), r"optimizer\.lr: .*-0\.001"),
        (("optimizer.lr=.nan",), r"optimizer\.lr: .*nan"),
        (("data.image_size=[256]",), r"data\.image_size"),
        (("data.name=market",), r"data\.name: .*'market'"),
        (("data=folder",), "data: .*'folder'"),
        (("stages=[]",), "stages: "),
        (("stages.0.losses={}",), r"stages\.0\.losses: no loss term is given"),
        (("stages.0.losses.hct={}",), r"stages\.0\.losses\.hct\.margin: field required"),
        (("model.num_heads=7",), "embed_dim 768 is not a multiple of num_heads 7"),
        (("data.image_size=[8,8]",), r"data\.image_size \(8, 8\) is smaller than model\.patch_size 16"),
        (("model.name=resnet",), r"model\.name: input should be 'pmt' or .*'mun', got 'resnet'$"),
        (("model=5",), r"model: .* got 5$"),
        (("model.patch_size=x",), r": model\.patch_size: .*'x'$"),
        ((*AGW, "model.patch_size=8"), r"unknown key 'model\.patch_size'"),
        ((*AGW, "model.layers=[3,4,6]"), r"model\.layers\.3: field required"),
        ((*AGW, "model.layers=[1,1,1,1]"), r"non_local \[0, 2, 3, 0\] exceeds the blocks of layers \[1, 1, 1, 1\]"),
        ((*AGW, "data.image_size=[288,15]"), r"data\.image_size \(288, 15\) is smaller than the network's stride 16$"),
        (("train.keep_epochs=[1,99]",), r"train\.keep_epochs \[99\] are beyond the last of the stages' \d+ epochs$"),
        (("train={select: best, evaluate_every: 2}",), r"evaluate_every 2 is beyond the stages' 1 epochs.* it lower$"),
        ((*MUN, "model.kernel_order=[5,6]"), r"model: kernel_order: the kernels' sizes must be odd, not \[5, 6\]$"),
        ((*MUN, "model.specific=stem", "model.width=5"), r"model: width 5 must be even with specific=stem"),
        (
            (*MUN, "data.image_size=[256,128]"),
            r"ratios \[2, 4, 6, 12\] do not divide the feature maps of 64x32; .* multiples of 48, as \[240, 144\]$",
        ),
        (("stages.0.losses.ia={}",), "the loss terms ia compare an auxiliary modality: they need model.name=mun"),
        ((*MUN, "model.intermediate=none", "stages.0.losses.id_a={}"), "intermediate other than none$"),
        (("augmentation.visible_twice=true",), "augmentation.visible_twice is for AGW and MUN, not pmt; leave it out$"),
        (
            (*AGW, "augmentation.visible_twice=true", "stages.0.losses={dcl: {}, hct: {margin: 0.3}}"),
            "the loss terms hct, dcl take as many visible as infrared pictures, which augmentation.visible_twice",
        ),
        (("evaluation.renormalise=true",), "evaluation: renormalise concerns the features that flip adds"),
        *(
            (
                (f"optimizer.clip_norm={text}",),
                rf"optimizer\.clip_norm: must be auto, null .*0\.001 to 10,000, got {shown}$",
            )
            for text, shown in (("off", "'off'"), ("0", "0"), ("-1", "-1"), ("2e4", "20000.0"), ("Auto", "'Auto'"))
        ),
        ((*SGD, "optimizer.momentum=0"), "nesterov needs a momentum above 0$"),
        (("schedule.name=step",), r"schedule\.name: input should be 'warmup_cosine' or 'warmup_steps' or .*'step'$"),
        (("schedule={name: warmup_steps, milestones: [0]}",), r"schedule\.milestones\.0: .*0$"),
    ],
)
def test_a_wrong_override_is_refused_with_the_path_that_the_user_wrote(minimal, overrides, says):
    with pytest.raises(InputError, match=says):
        load_config(minimal, overrides)


@pytest.mark.parametrize(
    ("overrides", "feature"),
    [
        ((), "pooled"),
        (("stages.0.losses.msel.distance=cosine",), "bnneck"),
        (("stages.0.losses.msel.feature=bnneck",), "bnneck"),
        (("stages.0.losses.msel={distance: cosine, feature: pooled}",), "pooled"),
    ],
)
def test_msel_takes_the_feature_of_the_release_unless_one_is_named(minimal, overrides, feature):
    config = load_config(minimal, overrides)
    assert config.stages[0].losses.msel.feature == feature
    assert check_config(dump_config(config), "dumped") == config


def test_the_generators_sizes_matter_to_no_other_modality(minimal):
    size = "data.image_size=[256,128]"
    for options in (["model.intermediate=X"], ["model.intermediate=none"], ["model.ratios=[2,4,8]"]):
        load_config(minimal, [*MUN, size, *options])


def test_a_section_without_a_name_is_pmts(minimal):
    config = load_config(minimal)
    optimizer = AdamWConfig(clip_norm=5.0)
    assert (config.model, config.optimizer, config.schedule) == (PMTConfig(), optimizer, WarmupCosineConfig())


def test_a_name_chooses_the_section(minimal):
    config = load_config(minimal, [*AGW, *SGD, "schedule.name=warmup_steps"])
    assert (config.model, config.optimizer, config.schedule) == (AGWConfig(), SGDConfig(), WarmupStepsConfig())
    assert check_config(dump_config(config), "dumped") == config


@pytest.mark.parametrize(
    ("recipe", "overrides", "clip_norm"),
    [
        ("demo.yaml", (), 5.0),
        ("pmt/sysu.yaml", (), None),
        ("pmt/sysu.yaml", ("model.pretrained=none",), 5.0),
        ("pmt/sysu.yaml", ("model.pretrained=none", "optimizer.clip_norm=null"), None),
        ("mun/regdb.yaml", ("model.pretrained=a.pth", "optimizer.clip_norm=2"), 2.0),
        ("agw/sysu.yaml", ("model.pretrained=none",), None),
    ],
)
def test_gradients_are_clipped_by_default_where_adamw_trains_from_scratch(recipe, overrides, clip_norm):
    config = load_config(CONFIG_ROOT / recipe, ["data.root=here", *overrides])
    assert config.optimizer.clip_norm == clip_norm
    assert check_config(dump_config(config), "dumped") == config


def test_epochs_and_loss_terms_belong_to_the_stages_in_order(minimal):
    config = load_config(minimal, ["stages=[{epochs: 2, losses: {id: {}}}, {epochs: 1, losses: {dcl: {}}}]"])
    assert [config.stages.index(config.stage_of(epoch)) for epoch in (1, 2, 3)] == [0, 0, 1]
    assert config.terms == {"id", "dcl"}
    for outside in (0, 4):
        with pytest.raises(ValueError, match=f"1..3, got {outside}"):
            config.stage_of(outside)


def test_epochs_belong_to_the_stages_in_order(minimal):
    config = load_config(minimal, ["stages=[{epochs: 2, losses: {id: {}}}, {epochs: 1, losses: {dcl: {}}}]"])
    assert [config.stages.index(config.stage_of(epoch)) for epoch in (1, 2, 3)] == [0, 0, 1]
    for outside in (0, 4):
        with pytest.raises(ValueError, match=f"1..3, got {outside}"):
            config.stage_of(outside)


def test_models_are_known_by_name():
    assert {"agw_resnet50", "pmt_vit_base"} <= set(list_models())
    config, _ = named_model("agw_resnet50", 5, (64, 32), (8, 4), 2, {"width": 8})
    assert config == AGWConfig(width=8, num_classes=5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "agw_resnet101"}, "name 'agw_resnet101': must be one of agw_resnet50, mun_resnet50, .*pmt_vit_base"),
        ({"num_classes": None}, "num_classes None: must be a whole number"),
        ({"num_classes": 0}, "pmt_vit_tiny: num_classes: input should be greater than or equal to 1, got 0"),
        ({"num_classes": True}, "pmt_vit_tiny: num_classes: input should be a valid integer, got True"),
        ({"image_size": 256}, "pmt_vit_tiny: image_size: input should be a valid tuple, got 256"),
        ({"image_size": (8, 8)}, r"pmt_vit_tiny: data.image_size \(8, 8\) is smaller than model.patch_size 16"),
        ({"parts": 4}, "pmt_vit_tiny: parts: input should be 2 or 3, got 4"),
        ({"overrides": {"width": 3}}, "pmt_vit_tiny: unknown key 'width'"),
        (
            {"overrides": {"num_heads": 5}},
            "pmt_vit_tiny: configuration: embed_dim 192 is not a multiple of num_heads 5",
        ),
    ],
)
def test_a_model_that_cannot_be_is_one_error(wrong, says):
    right = {"name": "pmt_vit_tiny", "num_classes": 5, "image_size": (64, 32), "batch": (8, 4), "parts": 2}
    with pytest.raises(InputError, match=f"^{says}"):
        named_model(**right | {"overrides": {}} | wrong)


# saving


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(CONFIG_ROOT)))
def test_a_saved_configuration_can_be_fed_back(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


LIKE_OTHER_TYPES = "1e5 -1E+5 .5e3 1.e3 1e400 1_000 12 1.5 0o7 0x1f 010 on no true null 1:30 2020-01-01 .nan .inf = <<"


ODD = ["- a", "a: b", "a #b", "[a]", "'a", "{a}", "&a", "!a", 'a"\\', "人 \U0001f600", "a  b " * 50]


@pytest.mark.parametrize("text", [*LIKE_OTHER_TYPES.split(), *ODD])
def test_a_folder_called_like_a_value_of_another_type_is_saved_as_text(minimal, text):
    config = load_config(minimal, [f"data.root={quoted(text)}"])
    assert str(config.data.root) == text
    save_config(config, minimal)
    assert load_config(minimal) == config
    assert yaml.safe_load(minimal.read_text())["data"]["root"] == text


def with_cameras(config, count):
    return config.with_value_ranges({f"infrared/{camera}": (0.1, 1e-300 + camera) for camera in range(1, count + 1)})


@pytest.mark.parametrize(
    ("fitted", "says"),
    [
        (lambda config: with_cameras(config.with_num_classes(100_000), 1000), None),
        (lambda config: config.with_num_classes(100_001), r"model\.num_classes: input should be less than or equal to"),
        (lambda config: config.with_value_ranges({"infrared": (0.0, 2.0**54)}), r"data\.sixteen_bit: must be"),
        (lambda config: config.with_value_ranges({"infrared": (1.0, float("nan"))}), r"data\.sixteen_bit: must be"),
        (lambda config: with_cameras(config, 3000), r"config\.yaml would have 1\d\d,\d{3} bytes, .*data\.sixteen_bit="),
    ],
)
def test_what_is_fitted_to_data_is_used_as_it_will_be_read_or_refused(minimal, fitted, says):
    config = fitted(load_config(minimal))
    if says is None:
        assert round_trip(config, "people") == config
        return
    with pytest.raises(InputError, match=f"^people: .*{says}"):
        round_trip(config, "people")
