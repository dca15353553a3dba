"""What a trained model is tested on: its own data set, or another under that one's protocol."""

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data.readers import read_folder
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.test_set import read_test_set
from ms_vireid.files.writing import write_json
from tests.data import tree
from tests.tiny_models import run_record


@pytest.fixture
def run(tmp_path):
    """A run on a folder of four people, with searches of its own: its configuration, checkpoint and record."""
    tree.write_folder(tmp_path / "people")
    options = ["evaluation.direction=visible-to-infrared", "evaluation.flip=true", "evaluation.trials=3"]
    config = load_config(CONFIG_ROOT / "demo.yaml", ["data.name=folder", "data.image_size=[48,24]", *options])
    checksum = read_folder(tmp_path / "people", 0.5).checksum
    (tmp_path / "run").mkdir()
    record = run_record(config, tmp_path / "people")
    write_json(RunFolder(tmp_path / "run").record, record | {"data": record["data"] | {"checksum": checksum}})
    return config, RunFolder(tmp_path / "run").model, {}


@pytest.mark.parametrize("name", ["sysu_mm01", "regdb", "llcm"])
def test_another_set_is_searched_as_its_protocol_says(run, tmp_path, name):
    root = getattr(tree, f"write_{name}")(tmp_path / name)
    config, data, its_own = read_test_set(*run, str(root), [name])
    assert (data.name, data.protocol, data.root, its_own) == (name, name, root, False)
    assert (config.evaluation.direction, config.evaluation.trials) == ("infrared-to-visible", 10)
    assert (config.evaluation.flip, config.data.image_size) == (True, (48, 24))  # of the model


def test_of_regdb_a_split_is_chosen(run, tmp_path):
    for trial in (1, 2):
        root = tree.write_regdb(tmp_path / "regdb", trial)
    names = (f"Visible/test{label}/visible_0.bmp {label}\n" for label in (0, 1))
    (root / "idx/test_visible_2.txt").write_text("".join(names))
    config, data, _ = read_test_set(*run, str(root), ["regdb", "data.trial=2"])
    assert (config.data.trial, sum(~data.test.infrared)) == (2, 2)


def test_the_layout_of_folders_is_stated(run, tmp_path):
    for person in "abcd":
        for modality in ("rgb", "ir"):
            tree.write_picture(tmp_path / f"others/{person}_{modality}.jpg")
    given = *run, str(tmp_path / "others")
    for another in (["folder"], ["folder", "data.layout={identity}_{modality}"]):
        layout = None if another[1:] else "{identity}_{modality}"
        config, data, _ = read_test_set(*given, another, layout)
        assert (config.data.layout, data.test.num_identities) == ("{identity}_{modality}", 4)
    assert read_test_set(*given, (), "{identity}_{modality}")[1].test.num_identities == 2
    with pytest.raises(
        InputError, match=r"^data\.layout: '\{x\}' is none of|--layout: data\.layout: '\{x\}': '\{x\}' is none"
    ):
        read_test_set(*given, (), "{x}")
    with pytest.raises(InputError, match=r"^--layout \{x\}: only for folders of your own, but the test set is regdb"):
        read_test_set(*given, ["regdb"], "{x}")


def test_all_people_of_folders_are_tested_on_unless_it_was_trained_on_them(run, tmp_path):
    others = str(tree.write_folder(tmp_path / "others", ("eve", "fay", "gus")))
    moved = str(tree.write_folder(tmp_path / "moved"))
    read = {root: read_test_set(*run, root, ["folder"])[1:] for root in (others, moved, None)}
    tested = {root: (data.tested_on(), its_own) for root, (data, its_own) in read.items()}
    own = "tested on 2 of 4 people", True
    assert tested == {others: ("tested on 3 of 3 people", False), moved: own, None: own}
    _, some, its_own = read_test_set(*run, others, ["folder", "data.test_fraction=0.5"])
    assert (some.tested_on(), its_own) == ("tested on 2 of 3 people", False)
    config, elsewhere = run[0], tmp_path / "model.safetensors"
    assert (
        read_test_set(config, elsewhere, {}, others, ["folder"])[1].tested_on() == "tested on 2 of 3 people"
    )  # nothing says
    known = {"data_checksum": "0" * 64}
    assert read_test_set(config, elsewhere, known, others, ["folder"])[1].tested_on() == "tested on 3 of 3 people"
    tree.write_picture(tmp_path / "people/visible/anna/new.jpg")  # other pictures, in the run's own folder
    assert read_test_set(*run, str(tmp_path / "people"), ["folder"])[1].tested_on() == "tested on 2 of 4 people"


@pytest.mark.parametrize(
    ("another", "says"),
    [
        (["regdb"], "data.root is not set: give --data-root FOLDER; get RegDB from its authors"),
        (["folder", "data.test_fraction=1"], "data.test_fraction=1: the model was trained on folder and is tested on"),
        (["regdb", "data.image_size=[8,8]"], "data.image_size=[8,8]: for another data set only data.trial, data.test"),
        (["sysu_mm01", "data.trial=2"], "data.trial=2: only for regdb, but the test set is sysu_mm01; leave it out"),
        (["regdb", "data.synthetic.seed=2"], "data.synthetic.seed=2: only for synthetic, but the test set is regdb"),
        (["llcm", "data.layout=llcm"], "data.layout=llcm: only for folder, but the test set is llcm; leave it out"),
        (["regdb", "data.test_fraction=1"], "data.test_fraction=1: only for folder, but the test set is regdb; leave"),
        (["regdb", "evaluation.trials=2"], "evaluation.trials=2: for another data set only data.trial, data.test"),
        (["regdb", "data.trial=11"], "--data: data.trial: input should be less than or equal to 10, got 11"),
        (["market1501"], "--data: data.name: input should be 'synthetic', 'sysu_mm01', 'regdb', 'llcm' or 'folder'"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(run, another, says):
    with pytest.raises(InputError) as refused:
        read_test_set(*run, None, another)
    assert str(refused.value).startswith(says)


def test_a_folder_of_another_set_says_how_to_test_on_that(run, tmp_path):
    with pytest.raises(InputError, match=r"visible: no such folder; .*; or, if it is not folder, name it: .*--data NA"):
        read_test_set(*run, str(tree.write_regdb(tmp_path / "regdb")))


def test_a_synthetic_set_of_the_same_seed_has_the_people_it_was_trained_on(tmp_path):
    drawn = ["data.synthetic.train_identities=3", "data.synthetic.test_identities=2", "data.synthetic.val_identities=1"]
    small = "data.synthetic.images_per_camera=1", "data.synthetic.image_size=[32,16]"
    config = load_config(CONFIG_ROOT / "demo.yaml", [*drawn, *small])
    given = config, tmp_path / "model.safetensors", {}, str(tmp_path / "drawn")
    assert read_test_set(*given, ["synthetic"])[1].test.num_identities == 2
    with pytest.raises(InputError, match=r"data\.synthetic\.test_identities=4: the model was trained on synthetic"):
        read_test_set(*given, ["synthetic", "data.synthetic.test_identities=4"])
    other = config, tmp_path / "model.safetensors", {}, str(tmp_path / "others")
    _, data, its_own = read_test_set(*other, ["synthetic", *drawn, *small, "data.synthetic.seed=1"])
    assert ({path.parents[2].name for path in data.test.paths}, its_own) == ({"others"}, False)
