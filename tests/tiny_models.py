"""Checkpoints of tiny models that were not trained, and a procedural data set for them."""

from pathlib import Path

from ms_vireid.config import CONFIG_ROOT, Config, dump_config, load_config
from ms_vireid.data.readers import read_data
from ms_vireid.engine.checkpoint import save_checkpoint
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.files.writing import write_json
from ms_vireid.models import build_model

DATA = (
    "data={name: synthetic, image_size: [48, 24], workers: 0, root: %s, synthetic: {train_identities: 6, "
    "val_identities: 1, test_identities: 4, images_per_camera: 2, image_size: [64, 32]}}"
)
PMT = ["model.patch_size=8", "model.stride=6", "model.embed_dim=16", "model.num_heads=2", "model.depth=2"]
# A training of two stages on drawn people, with everything by which a resumed run could differ: dropout, drop path,
# random augmentation. Three steps an epoch.
SMALL_RUN = [
    "data.image_size=[32,16]",
    "data.synthetic.train_identities=5",
    "data.synthetic.val_identities=1",
    "data.synthetic.test_identities=4",
    "data.synthetic.images_per_camera=1",
    "data.synthetic.image_size=[64,32]",
    *PMT,
    "model.dropout=0.1",
    "model.drop_path=0.2",
    "stages.0.epochs=1",
    "train.num_identities=3",
    "train.num_instances=2",
    "train.iterations=3",
    "evaluation.trials=1",
    "evaluation.compare_untrained=false",
]
RESNET = ["model.pretrained=none", "model.layers=[1,1,1,1]", "model.width=4", "augmentation.crop_padding=2"]
RECIPES = {
    "pmt": ("demo.yaml", PMT),
    "agw": ("agw/sysu.yaml", [*RESNET, "model.non_local=[0,1,1,0]"]),
    "mun": ("mun/sysu.yaml", [*RESNET, "model.ratios=[2,3]"]),
}


def tiny_config(family: str, root: Path, *options: str) -> Config:
    recipe, sizes = RECIPES[family]
    common = ["model.num_classes=7", "train.num_identities=2", "train.num_instances=2", "evaluation.trials=2"]
    return load_config(CONFIG_ROOT / recipe, [DATA % root, *sizes, *common, "evaluation.batch_size=5", *options])


def write_checkpoint(path: Path, family: str, root: Path, *options: str) -> Path:
    """A checkpoint of a "pmt", "agw" or "mun" as it is before training, in a run folder; the data set is made at
    `root`."""
    config = tiny_config(family, root, *options)
    read_data(config.data)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, build_model(config).get_parameters(), {"config": dump_config(config), "epoch": 1})
    write_json(RunFolder(path.parent).record, run_record(config, root))
    return path


def run_record(config: Config, root: Path) -> dict:
    """The content of run.json for a run on a data set at `root`."""
    split = {"pictures": 1, "identities": 1}
    data = {"name": config.data.name, "root": str(root), "train": split, "test": split, "checksum": "0" * 64}
    texts = {"device": "CPU", "processor": "", "platform": "", "python": ""}
    empty = {"earlier_commands": [], "cores": None, "versions": {}, "git_commit": None, "events": None}
    return {"command": ["train.py"], "seed": 0, "data": data, "config": dump_config(config), **texts, **empty}
