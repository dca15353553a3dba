"""Whose grid a row of positions is: said by the user or a configuration, the model's own, or a guess that is said."""

import json

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.files.positions import source_grid

CARRIED = {"data": {"image_size": [256, 64]}, "model": {"patch_size": 16, "stride": 16}}


def told(path, positions, model=(21, 10), patch_size=16, stated=None, carried=None):
    return source_grid(path, positions, model, patch_size, stated, carried or {})


@pytest.mark.parametrize(
    ("positions", "grid", "said"),
    [
        (196, (14, 14), None),  # ImageNet's at 224 and 384 pixels, without a word
        (576, (24, 24), None),
        (49, (7, 7), None),
        (210, (21, 10), None),  # the model's own
        (128, (16, 8), "taken as 16x8 patches; model.pretrained_grid=[ROWS,COLUMNS] says others"),
        (192, (24, 8), "taken as 24x8 patches"),
        (64, (8, 8), "taken as 8x8 patches, a square, for which 16x4 would do as well; model.pretrained_grid=[16,4]"),
        (144, (12, 12), "taken as 12x12 patches, a square, for which 18x8 or 24x6 would do as well"),
    ],
)
def test_without_a_word_from_anybody(tmp_path, caplog, positions, grid, said):
    assert told(tmp_path / "a.pth", positions) == grid
    assert [said in line for line in caplog.messages] == ([True] if said else [])


@pytest.mark.parametrize("grid", [(16, 4), (18, 8), (8, 8), (16, 8), (4, 2)])
def test_the_model_s_own_number_is_its_own_grid(tmp_path, caplog, grid):
    assert told(tmp_path / "a.pth", grid[0] * grid[1], grid) == grid
    assert len(caplog.messages) == (grid in ((16, 4), (18, 8), (8, 8)))  # where a square would do as well


def test_what_the_user_states_goes_before_all_else(tmp_path, caplog):
    (tmp_path / "config.json").write_text(json.dumps({"image_size": 128}))
    assert told(tmp_path / "a.pth", 64, (8, 8), stated=(16, 4), carried=CARRIED) == (16, 4)
    assert told(tmp_path / "a.pth", 64, (16, 4), stated=(4, 16)) == (4, 16)
    assert not caplog.messages
    with pytest.raises(InputError, match=r"model.pretrained_grid: 16x4 are 64 patches, it has 65 positions"):
        told(tmp_path / "a.pth", 65, stated=(16, 4))


BESIDE = {
    "carried": (None, "", 64, (16, 4)),
    "timm": ("config.json", json.dumps({"pretrained_cfg": {"input_size": [3, 256, 64]}}), 64, (16, 4)),
    "timm's size": (
        "config.json",
        json.dumps({"model_args": {"img_size": [288, 128]}, "pretrained_cfg": {"input_size": [3, 192, 192]}}),
        144,
        (18, 8),
    ),
    "transformers": ("config.json", json.dumps({"image_size": [256, 64], "patch_size": 16}), 64, (16, 4)),
    "a square of transformers": ("config.json", json.dumps({"image_size": 128, "patch_size": 16}), 64, (8, 8)),
    "TransReID": ("config.yml", "INPUT:\n  SIZE_TRAIN: [288, 128]\nMODEL:\n  STRIDE_SIZE: [16, 16]\n", 144, (18, 8)),
    "overlapping": ("config.yaml", "  SIZE_TRAIN: [256, 128]\n  STRIDE_SIZE: [12, 12]\n", 210, (21, 10)),
    "without a stride": ("config.yml", "  SIZE_TRAIN: (256, 64)\n", 64, (16, 4)),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_configuration_tells_it(tmp_path, caplog, kind):
    name, text, positions, grid = BESIDE[kind]
    if name:
        (tmp_path / name).write_text(text)
    carried = CARRIED if kind == "carried" else None
    assert told(tmp_path / "a.pth", positions, (6, 3), carried=carried) == grid
    assert not caplog.messages


SILENT = [
    *("", "[]", "{", "[" * 10**5, "\xff", '{"image_size": "256"}', '{"image_size": [-16, -64]}'),
    *('{"image_size": [1e9, 1]}', '{"image_size": 224}', '{"image_size": true}', '{"model_args": 3}'),
    '{"pretrained_cfg": {"input_size": 3}}',
]


@pytest.mark.parametrize("text", SILENT, ids=range(len(SILENT)))
def test_a_configuration_that_says_nothing_or_another_number_is_passed_over(tmp_path, caplog, text):
    for name in ("config.json", "config.yaml"):
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert told(tmp_path / "a.pth", 64, (6, 3)) == (8, 8)
    assert len(caplog.messages) == 1
    for carried in ({"model": 3}, {"data": {"image_size": [256.0, 64.0]}, "model": CARRIED["model"]}, {"data": []}):
        assert told(tmp_path / "a.pth", 64, (6, 3), carried=carried) == (8, 8)


@pytest.mark.parametrize(
    ("positions", "line"),
    [
        (105, r"its 105 positions may be 15x7 or 21x5 patches: say model.pretrained_grid=\[ROWS,COLUMNS\]"),
        (197, "its 197 positions are of no grid that is known: say"),
        (0, "its 0 positions are of no grid"),
        (-1, "its -1 positions are of no grid"),
    ],
)
def test_what_cannot_be_told_is_asked_for(tmp_path, positions, line):
    with pytest.raises(InputError, match=line):
        told(tmp_path / "a.pth", positions, (6, 3))
