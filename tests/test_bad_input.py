"""What a user can get wrong: the command ends with exit code 2 and one line that names the thing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ms_vireid import train
from ms_vireid.command import running
from tests.data import tree
from tests.hostile.good import CONFIG

ARGV = ("--config", "tiny.yaml", "--device", "CPU", "--output", "run")


def run_command(*argv: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *ARGV, *argv])
        running.run(train.main)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder in which everything is right: three data sets, a configuration, a finished run, weight files."""
    folder = tmp_path_factory.mktemp("good")
    tree.write_sysu_mm01(folder / "sysu")
    tree.write_regdb(folder / "regdb")
    tree.write_folder(folder / "folder")
    (folder / "tiny.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_command("--output", "earlier")
        write_weights()
    return folder


def write_weights() -> None:
    """weights.safetensors fits the tiny model; foreign.ckpt is MindSpore's format, and nothing else of ours."""
    import mindspore as ms
    from safetensors.numpy import save_file

    from ms_vireid.checkpoints.layouts import torch_name
    from ms_vireid.checkpoints.weights import read_checkpoint

    weights = read_checkpoint(Path("earlier/model.safetensors")).arrays
    body = {torch_name(n.removeprefix("base.")): w for n, w in weights.items() if n.startswith("base.")}
    save_file(body, "weights.safetensors")
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor(np.zeros((2, 2), np.float32))}], "foreign.ckpt")


def case(name: str, says: str, *argv: str, change: Callable[[], object] | None = None, run_may_exist: bool = False):
    """`change` spoils the good folder, from within it; `says` is part of the line printed."""
    return pytest.param(says, argv, change, run_may_exist, id=name)


def write(path: str, content: str | bytes) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def remove(*paths: str) -> Callable[[], object]:
    return lambda: [shutil.rmtree(p) if Path(p).is_dir() else Path(p).unlink() for p in paths]


def truncate(path: str) -> Callable[[], object]:
    return lambda: tree.truncate(Path(path))


def truncate_all_visible_training_pictures() -> None:
    for camera in (1, 2, 4, 5):
        for identity in (*tree.SYSU_TRAIN, *tree.SYSU_VAL):
            for path in Path(f"sysu/cam{camera}/{identity:04d}").glob("*"):
                # As a JPEG, which opens without its end.
                if path.suffix != ".db":
                    tree.truncate(tree.write_picture(path.with_name("cut.jpg")), keep=0.95)
                    path.unlink()


def first_picture(folder: str) -> Path:
    return sorted(p for p in Path(folder).iterdir() if p.suffix != ".db")[0]


CONFIGURATIONS = [
    case("config-missing", "nowhere.yaml: no such configuration file", "--config", "nowhere.yaml"),
    case(
        "config-links-in-a-circle",
        "Symlink loop from",
        "--config",
        "a.yaml",
        change=lambda: (Path("a.yaml").symlink_to("b.yaml"), Path("b.yaml").symlink_to("a.yaml")),
    ),
    case("direction-not-in-the-protocol", "evaluation.direction", "evaluation.direction=visible-to-infrared"),
    case("wrong-number-of-classes", "model.num_classes=7", "model.num_classes=7"),
    case("unknown-option", "--epochs", "--epochs", "3"),
    case("seed-negative", "--seed -1: must be at least 0", "--seed", "-1"),
    case("device-unknown", "'TPU'", "--device", "TPU"),
    case("device-not-there", "device GPU: ", "--device", "GPU"),
    case("cuda-on-a-cpu", "train.backend=cuda: this project's CUDA kernels need a GPU", "train.backend=cuda"),
    case("output-holds-a-run", "earlier: holds a run", "--output", "earlier"),
    case("output-is-a-file", "run: cannot be created", change=write("run", ""), run_may_exist=True),
]
TREES = [
    case("root-missing", "nowhere: no such folder", "--data-root", "nowhere"),
    case("root-missing-named-like-a-comment", "a #b: no such folder", "--data-root", "a #b"),
    case("root-of-an-unknown-user", "~nobody-here", "--data-root", "~nobody-here/sysu"),
    case("root-with-a-nul", r"'a\x00b': contains unprintable characters", 'data.root="a\\0b"', "data.name=synthetic"),
    case("sysu-camera-missing", "sysu/cam4: no such folder", change=remove("sysu/cam4")),
    case("sysu-list-binary", "test_id.txt: cannot be read", change=write("sysu/exp/test_id.txt", b"\xff\xfe6")),
    case("sysu-id-in-both-splits", "for training and for testing: 1 (6)", change=write("sysu/exp/train_id.txt", "6")),
    case("sysu-id-without-folder", "under any camera: 1 (0099)", change=write("sysu/exp/train_id.txt", "1,5,99")),
    case(
        "sysu-test-without-queries",
        "query",
        change=remove("sysu/cam3/0006", "sysu/cam6/0006", "sysu/cam6/0333"),
    ),
    case(
        "sysu-queries-without-a-match",
        "match",
        change=remove("sysu/cam1/0006", "sysu/cam2/0006", "sysu/cam5/0006", "sysu/cam6/0333"),
    ),
    case("fewer-identities-than-a-batch", "train.num_identities=4", "train.num_identities=4"),
    case("regdb-list-missing", "train_visible_2.txt: no such list", "data.name=regdb", "data.trial=2",
         "--data-root", "regdb"),
    case("regdb-path-not-relative", "/x.bmp", "data.name=regdb", "--data-root", "regdb",
         change=lambda: Path("regdb/idx/test_visible_1.txt").write_text(
             f"{tree.write_picture(Path('x.bmp')).resolve()} 0\n")),
    case("folder-without-a-picture", "in only one of visible and infrared: 1 (ben); add pictures of the other modality",
         "data.name=folder", "--data-root", "folder",
         change=lambda: [path.unlink() for path in Path("folder/visible/ben").iterdir()]),
    case("folder-one-identity", "1 identities, at least 2 are needed", "data.name=folder", "--data-root", "folder",
         change=remove(*(f"folder/{m}/{n}" for m in ("visible", "infrared") for n in ("ben", "cleo", "dora")))),
    case("synthetic-root-holds-something-else", "sysu is not a synthetic set", "data.name=synthetic"),
]  # fmt: skip
PICTURES = [
    case("test-picture-is-text", "cannot be read", change=lambda: first_picture("sysu/cam2/0006").write_text("text")),
    case("picture-is-a-dead-link", "dead.jpg does not exist",
         change=lambda: Path("sysu/cam2/0001/dead.jpg").symlink_to("gone.jpg")),
    case("picture-cut-off", "cut.jpg: cannot be decoded", change=truncate_all_visible_training_pictures,
         run_may_exist=True),
    case("picture-cut-off-met-by-a-worker", "cut.jpg: cannot be decoded", "data.workers=2",
         change=truncate_all_visible_training_pictures, run_may_exist=True),
]  # fmt: skip
CHECKPOINTS = [
    case("resume-missing", "nowhere.safetensors: no such checkpoint file", "--resume", "nowhere.safetensors"),
    case("resume-a-folder", "earlier: is a folder, not a checkpoint file", "--resume", "earlier"),
    case("resume-auto-truncated", "last.safetensors: ", "--resume", "auto", "--output", "earlier",
         change=truncate("earlier/last.safetensors")),
    case("resume-foreign", "foreign.ckpt: holds no training state", "--resume", "foreign.ckpt"),
    case("resume-only-weights", "model.safetensors: holds no training state", "--resume", "earlier/model.safetensors"),
    case("pretrained-model-of-another-method", "earlier/model.safetensors: is of pmt, model.name is agw; ",
         "model={name: agw, width: 4, pretrained: earlier}"),
    case("pretrained-model-of-another-size", "does not fit the pmt: it was trained with model.depth=1; ",
         "model.pretrained=earlier", "model.depth=2"),
    case("resume-of-other-settings", "train a new run from it: model.pretrained=earlier/last.safetensors",
         "--resume", "earlier/last.safetensors", "optimizer.lr=0.5"),
    case("resume-another-model", "another model.depth", "--resume", "earlier/last.safetensors", "model.depth=2"),
    *(
        case(f"pretrained-not-said-{name.replace('/', '-')}", "give model.pretrained=PATH (which file: ",
             "--config", f"configs/{name}.yaml", "--data-root", "sysu")
        for name in ("pmt/sysu", "pmt/regdb", "pmt/llcm", "agw/sysu", "mun/sysu")
    ),
    case("pretrained-missing", "no such file nowhere.safetensors", "model.pretrained=nowhere.safetensors"),
    case("pretrained-wrong-shapes", "ViT is of other sizes: give model.embed_dim=8 model.num_heads as its",
         "model.pretrained=weights.safetensors", "model.embed_dim=16"),
    case("pretrained-ckpt-foreign", "foreign.ckpt: does not fit", "model.pretrained=foreign.ckpt"),
    case("pretrained-of-another-network", "weights.safetensors: does not fit the ResNet",
         "model={name: agw, width: 4, pretrained: weights.safetensors}"),
    case("resume-of-another-method", "another model.batch_norm", "--resume", "earlier/last.safetensors",
         "model={name: mun, width: 4, ratios: [1]}"),
]  # fmt: skip


def test_the_folder_that_the_cases_spoil_is_good(good, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(good, tmp_path / "copy"))
    run_command("model.pretrained=weights.safetensors")
    assert Path("run/result.json").is_file()


@pytest.mark.parametrize(
    ("says", "argv", "change", "run_may_exist"), [*CONFIGURATIONS, *TREES, *PICTURES, *CHECKPOINTS]
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    says, argv, change, run_may_exist, good, tmp_path, monkeypatch, capfd
):
    folder = shutil.copytree(good, tmp_path / "copy")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # no machine has a GPU here
    if change:
        change()
    before = sorted(os.listdir())
    capfd.readouterr()

    with pytest.raises(SystemExit) as ended:
        run_command(*argv)

    printed = capfd.readouterr().err
    assert ended.value.code == 2
    assert len(printed.splitlines()) == 1, printed
    assert printed.startswith("error: ")
    assert says in printed
    assert run_may_exist or sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("unread", 141, ""), ("/dev/full", 2, "error: No space left on device; check the path, its permissions and the")],
)
def test_output_that_goes_nowhere(name, code, said):
    if name == "unread":  # as after `| head`
        unread, output = os.pipe()
        os.close(unread)
    else:
        output = os.open(name, os.O_WRONLY)
    command = [sys.executable, "-m", "ms_vireid.ablate", "--list"]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    os.close(output)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)
