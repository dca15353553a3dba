"""`extract.py`: features of any folder or list, what is refused, what is skipped, and going on where it stopped."""

import csv
import errno
import json
import os

import numpy as np
import pytest

from ms_vireid import extract
from ms_vireid.backends.choosing import backend_named
from ms_vireid.command.errors import InputError
from ms_vireid.data.folder_layout import find_layout
from ms_vireid.data.picture_paths import read_layout
from ms_vireid.files.checks import unsealed
from ms_vireid.files.writing import write_json
from ms_vireid.search import extraction
from ms_vireid.search.feature_files import load_features
from ms_vireid.search.start import load_trained

from ..data.tree import truncate, write_folder, write_picture
from ..files.test_damage import DAMAGES
from ..test_train import command, refusal
from ..tiny_models import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    return write_checkpoint(folder / "model.safetensors", "pmt", folder / "data")


@pytest.fixture
def pictures(tmp_path):
    """Eight visible and eight infrared pictures of four identities, in folders named by numbers."""
    return write_folder(tmp_path / "pictures", ("0001", "0002", "0003", "0007"))


@pytest.fixture
def run_extract(checkpoint, monkeypatch, tmp_path):
    def extracted(images, *options, output="features.npz"):
        arguments = ("--checkpoint", checkpoint, "--images", images, "--output", output, *options)
        command(monkeypatch, tmp_path, extract, *arguments)
        return load_features(tmp_path / output)

    return extracted


@pytest.mark.parametrize("workers", [0, 1])
def test_the_features_are_those_of_evaluation(run_extract, pictures, checkpoint, workers):
    found = run_extract(pictures, "--workers", workers, "--checkpoint", checkpoint.parent)
    (trained,) = load_trained([checkpoint], backend_named("numba"))
    paths = [pictures / path for path in found.paths]
    images, _ = read_layout(pictures, paths, find_layout(pictures, paths))
    assert np.array_equal(found.features, trained.extractor.extract(images))


def test_the_file_holds_what_its_documentation_says(run_extract, pictures, checkpoint):
    found = run_extract(pictures)
    assert (found.features.shape, found.features.dtype) == ((16, 16), np.float32)
    assert np.linalg.norm(found.features, axis=1) == pytest.approx(np.ones(16), abs=1e-6)
    assert found.paths.tolist() == sorted(found.paths)
    assert found.paths[0] == "infrared/0001/0.jpg"
    assert found.modality.tolist() == 8 * ["infrared"] + 8 * ["visible"]
    assert found.identities.tolist() == [f"{i:04d}" for i in 2 * [1, 1, 2, 2, 3, 3, 7, 7]]
    assert found.cameras.tolist() == 16 * [-1]
    info = found.info
    assert (info["checkpoint"]["file"], len(info["checkpoint"]["sha256"])) == ("model.safetensors", 64)
    assert info["config"]["model"]["embed_dim"] == 16
    assert info["images"] == str(pictures)
    assert info["skipped"] == {}


def test_other_programs_read_a_table_or_a_file_for_each_picture(run_extract, pictures, tmp_path, monkeypatch):
    expected = run_extract(pictures)
    monkeypatch.setattr(f"{__name__}.load_features", lambda path: path)
    with run_extract(pictures, output="features.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "modality", "identity", "camera", *(f"f{i}" for i in range(16))]
    assert [row[:4] for row in rows[:1]] == [["infrared/0001/0.jpg", "infrared", "0001", "-1"]]
    assert [row[0] for row in rows] == expected.paths.tolist()
    assert np.array_equal(np.array([row[4:] for row in rows], np.float32), expected.features)
    folder = run_extract(pictures, output="features")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))
    assert files == [f"{path}.npy" for path in expected.paths]
    assert np.array_equal([np.load(folder / file) for file in files], expected.features)
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "features.npz", "features.csv", "features"}


def test_a_list_writes_nothing_outside_the_new_folder(run_extract, pictures, tmp_path, capfd):
    outside = write_picture(tmp_path / "visible/0009/0.jpg")
    (tmp_path / "list.txt").write_text(f"visible/0001/0.jpg\n../visible/0009/0.jpg\n{outside}\n")
    said = refusal(capfd, run_extract, pictures, "--list", "list.txt", output="features")
    assert f"list.txt: pictures that do not lie below --images: 2 (../visible/0009/0.jpg, {outside}); write a" in said
    assert len(list(tmp_path.rglob("*.npy"))) == 0


def test_folders_that_say_nothing_need_the_modality(run_extract, tmp_path, capfd):
    write_picture(tmp_path / "night" / "one.jpg")
    error = refusal(capfd, run_extract, tmp_path / "night")
    assert "night: fits no tree in docs/data.md; it has no folder; a picture is one.jpg; say what " in error
    assert error.endswith("and * (docs/data.md), or --modality alone: people unknown")
    assert run_extract(tmp_path / "night", "--modality", "infrared").modality.tolist() == ["infrared"]


def test_a_list_chooses_and_orders_the_pictures(run_extract, pictures, tmp_path, capfd):
    chosen = ["visible/0003/1.jpg", "infrared/0001/0.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(chosen) + "\n\n")
    found = run_extract(pictures, "--list", "list.txt")
    assert found.paths.tolist() == chosen
    (tmp_path / "list.txt").write_text("\ufeffvisible\\0003\\1.jpg\r\n\ufeffinfrared\\0001\\0.jpg", "utf-16")
    assert run_extract(pictures, "--list", "list.txt").paths.tolist() == chosen
    (tmp_path / "list.txt").write_text("visible/0003/1.jpg\nnowhere.jpg\n")
    error = refusal(capfd, run_extract, pictures, "--list", "list.txt")
    assert "list.txt: lines that name no file" in error
    assert "line 2 'nowhere.jpg'" in error
    (tmp_path / "list.txt").write_text("visible/0003/1.jpg\nno\x07where.jpg\n")
    error = refusal(capfd, run_extract, pictures, "--list", "list.txt")
    assert "list.txt: unprintable names: 1 (line 2 " in error


def test_a_broken_picture_is_named_or_skipped_and_counted(run_extract, pictures, capfd, tmp_path):
    broken = truncate(pictures / "visible/0002/1.jpg", keep=0.95)  # it opens
    error = refusal(capfd, run_extract, pictures, "--workers", 1)
    assert f"{broken}: cannot be decoded as a picture" in error
    assert error.endswith("; replace or remove it, or leave it out with --skip-broken")
    assert not (tmp_path / "features.npz").exists()
    (pictures / "infrared/0007/0.jpg").write_bytes(b"")
    assert "unreadable pictures: 1 (" in refusal(capfd, run_extract, pictures)  # before anything is computed
    found = run_extract(pictures, "--skip-broken")  # goes on after the batches that were whole
    assert len(found) == 14
    assert list(found.info["skipped"]) == ["infrared/0007/0.jpg", "visible/0002/1.jpg"]
    assert not {"infrared/0007/0.jpg", "visible/0002/1.jpg"} & set(found.paths.tolist())
    assert found.identities.tolist() == [f"{i:04d}" for i in [1, 1, 2, 2, 3, 3, 7, 1, 1, 2, 3, 3, 7, 7]]
    printed = capfd.readouterr().out
    assert f"skipped {broken}: cannot be decoded" in printed
    assert "14 features of 16 dimensions, 2 broken pictures skipped" in printed


def test_a_picture_that_has_gone_is_skipped_too(run_extract, pictures, tmp_path, capfd):
    link = pictures / "visible/0002/z.jpg"
    link.symlink_to("gone.jpg")
    assert f"unreadable pictures: 1 ({link} does not exist)" in refusal(capfd, run_extract, pictures)
    found = run_extract(pictures, "--skip-broken")
    assert len(found) == 16
    assert list(found.info["skipped"]) == ["visible/0002/z.jpg"]
    (tmp_path / "list.txt").write_text("visible/0003/1.jpg\nvisible/0003/nowhere.jpg\n")
    found = run_extract(pictures, "--skip-broken", "--list", "list.txt")
    assert found.paths.tolist() == ["visible/0003/1.jpg"]
    assert list(found.info["skipped"]) == ["visible/0003/nowhere.jpg"]


def test_another_process_at_work_on_the_same_output_is_left_alone(run_extract, pictures, tmp_path, capfd):
    with extraction.partial_result(tmp_path / "features.npz") as partial:
        error = refusal(capfd, run_extract, pictures)
        assert f"features.npz.partial: process {os.getpid()} of" in error
        assert error.endswith("is using it; choose another --output")
        assert [path.name for path in partial.iterdir()] == ["lock"]
    assert not partial.exists()
    assert len(run_extract(pictures)) == 16
    assert not partial.exists()


def test_a_folder_that_no_file_could_name_is_refused_before_the_work(run_extract, pictures, tmp_path, capfd):
    pictures.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    pictures.symlink_to(os.fsdecode(b"caf\xe9"))
    assert r"caf\udce9: is not UTF-8; rename it" in refusal(capfd, run_extract, pictures)
    assert not list(tmp_path.glob("features*"))
    pictures = (tmp_path / os.fsdecode(b"caf\xe9")).rename(tmp_path / "caf\u3000e")  # printed escaped, as a wide space
    assert run_extract(pictures).file("").name == pictures.name


def test_nothing_but_broken_pictures_is_refused(run_extract, tmp_path, capfd):
    truncate(write_picture(tmp_path / "visible" / "anna" / "one.jpg"))
    error = refusal(capfd, run_extract, tmp_path / "visible", "--skip-broken")
    assert "none of the 1 pictures can be decoded" in error


def test_an_interrupted_run_goes_on_and_gives_the_same_file(run_extract, pictures, monkeypatch, tmp_path, capfd):
    truncate(pictures / "visible/0001/0.jpg")
    run_extract(pictures, "--skip-broken", output="whole.npz")
    steps = []

    def interrupted(path, content):
        write_json(path, content)
        steps.append(content["batches"])
        if steps == [0, 1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "write_json", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run_extract(pictures, "--skip-broken")
    assert stopped.value.code == 130
    assert "run it again to continue from features.npz.partial" in capfd.readouterr().err
    run_extract(pictures, "--skip-broken")
    assert steps == [0, 1, 2, 3, 4]
    assert "2 of 4 batches are done" in capfd.readouterr().out
    assert (tmp_path / "features.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not (tmp_path / "features.npz.partial").exists()


def claiming(partial, change):
    """Has the journal say something else, with a checksum that fits."""
    state = unsealed(json.loads((partial / "state.json").read_text()))
    change(state)
    write_json(partial / "state.json", state)


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def stated(change):
    return lambda partial, images: claiming(partial, change)


def linked(partial, images):
    """To a file of the user's."""
    (partial / "features.bin").rename(images / "mine")
    (partial / "features.bin").symlink_to(images / "mine")


NOT_OURS = "already exists but is not a partial result; choose another --output"
DAMAGED = "its features are damaged; remove the folder to start over, or choose another --output"
SPOILED = {
    "no features": (lambda partial, images: (partial / "features.bin").unlink(), DAMAGED),
    "a state that says more": (stated(lambda state: state.update(batches=4)), DAMAGED),
    "a state that says less": (stated(lambda state: state.update(batches=1)), DAMAGED),
    "broken beyond its length": (stated(lambda state: state.update(broken={"999": "gone"})), DAMAGED),
    "broken in a batch to come": (stated(lambda state: state.update(broken={"15": "gone"})), DAMAGED),
    "a width before the first batch": (stated(lambda state: state.update(batches=0, checksum="", width=8)), DAMAGED),
    "another width": (stated(lambda state: state.update(width=8)), DAMAGED),
    "fewer batches than none": (stated(lambda state: state.update(batches=-1)), "state.json: is not what extract.py"),
    "a state of another program": (
        lambda partial, images: (partial / "state.json").write_text('{"mine": 1}'),
        "state.json: is not what extract.py writes",
    ),
    "no state": (lambda partial, images: (partial / "state.json").unlink(), NOT_OURS),
    "a file of the user's": (lambda partial, images: (partial / "mine.txt").write_text("mine"), NOT_OURS),
    "a link": (linked, NOT_OURS),
}
for damage, change in {"a bit flipped": flipped, **DAMAGES}.items():
    for name, said in (("state.json", "state.json: is not what extract.py writes"), ("features.bin", DAMAGED)):
        SPOILED[f"{name} {damage}"] = (
            lambda partial, images, name=name, change=change: (partial / name).write_bytes(
                change((partial / name).read_bytes())
            ),
            said,
        )


@pytest.fixture
def stopped(run_extract, pictures, tmp_path, capfd):
    """What a run leaves that a broken picture in the last of its four batches has stopped."""
    truncate(pictures / "infrared/0007/1.jpg", keep=0.95)  # it opens
    refusal(capfd, run_extract, pictures)
    return tmp_path / "features.npz.partial"


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED)
def test_a_partial_result_that_is_damaged_is_refused_and_left_alone(run_extract, pictures, stopped, capfd, spoil, said):
    spoil(stopped, pictures)
    before = {path.name: path.read_bytes() for path in stopped.iterdir() if path.name != "lock"}
    assert said in refusal(capfd, run_extract, pictures, "--skip-broken")
    assert {path.name: path.read_bytes() for path in stopped.iterdir() if path.name != "lock"} == before


@pytest.mark.parametrize("key", ["content", "pictures", "version", "checkpoint"])
def test_a_partial_result_of_another_run_is_begun_anew(run_extract, pictures, stopped, capfd, key):
    """As is one of another picture of equal size and time."""
    if key == "content":
        path = pictures / "visible/0001/0.jpg"
        about, content = path.stat(), bytearray(path.read_bytes())
        content[-30] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    else:
        claiming(stopped, lambda state: state["plan"].update({key: "0"}))
    found = run_extract(pictures, "--skip-broken")
    assert np.linalg.norm(found.features, axis=1) == pytest.approx(np.ones(15), abs=1e-6)
    assert "was made from other pictures, another checkpoint or batch size; starting over" in capfd.readouterr().out


def test_a_partial_result_of_the_same_pictures_goes_on_whatever_their_times_and_what_is_to_come(
    run_extract, pictures, stopped, capfd
):
    for path in pictures.rglob("*.jpg"):
        path.touch()
    write_picture(pictures / "infrared/0007/1.jpg")
    run_extract(pictures)
    assert "3 of 4 batches are done" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--output", "features.txt"), "--output features.txt: the file's name must end in .npz or .csv"),
        (("--output", "pictures"), "--output pictures: is "),
        (("--images", "nowhere"), "nowhere: no such folder; give the folder of the pictures with --images"),
        (("--list", "nowhere.txt"), "nowhere.txt: no such list; give one path a line"),
    ],
)
def test_bad_options_are_refused_in_one_line(run_extract, pictures, capfd, options, said):
    assert said in refusal(capfd, run_extract, pictures, *options)


def test_load_features_says_what_is_wrong_and_takes_what_is_compressed(run_extract, pictures, tmp_path):
    run_extract(pictures)
    with np.load(tmp_path / "features.npz") as archive:
        held = dict(archive)
    doubled = held["features"] * (1 + (np.arange(16) == 3))[:, None].astype(np.float32)
    for changed, says in (
        ({"modality": np.array(16 * ["night"])}, "modality 'night' is not one of"),
        ({"features": doubled}, r"row 3 \(infrared/0002/1.jpg\) has norm 2"),
        ({"info": np.array(json.dumps(json.loads(str(held["info"])) | {"format": 9}))}, "feature format 9"),
    ):
        np.savez(tmp_path / "changed.npz", **held | changed)
        with pytest.raises(InputError, match=says):
            load_features(tmp_path / "changed.npz")
    np.savez_compressed(tmp_path / "packed.npz", **held)
    assert np.array_equal(load_features(tmp_path / "packed.npz").features, held["features"])


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EACCES])
def test_a_partial_result_that_cannot_be_mapped_is_read(run_extract, pictures, monkeypatch, capfd, number):
    mapped = run_extract(pictures, output="mapped.npz")

    def refusing(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "memmap", refusing)
    broken = truncate(pictures / "visible/0007/1.jpg", keep=0.95)
    refusal(capfd, run_extract, pictures, "--batch-size", 4)
    found = run_extract(pictures, "--batch-size", 4, "--skip-broken")
    assert "continuing from" in capfd.readouterr().out
    assert (
        np.abs(found.features - mapped.features[mapped.paths != broken.relative_to(pictures).as_posix()]).max() < 1e-6
    )


def test_a_partial_result_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / extraction.FEATURES
    path.mkdir()  # as an error of the disk: it cannot be opened
    with pytest.raises(InputError, match=rf"{path}: cannot be read \(Is a directory\); choose another --output"):
        extraction._rows(tmp_path, 2, 3)
