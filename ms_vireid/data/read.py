"""From the configuration to a validated data set."""

import hashlib
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.config import DataConfig
from ms_vireid.data.readers import read_folder, read_llcm, read_regdb, read_sysu_mm01
from ms_vireid.data.records import ReIDData
from ms_vireid.data.synthetic import VERSION, generate_sysu_mm01

OBTAIN = {
    "sysu_mm01": "get SYSU-MM01 from its authors after signing their agreement",
    "regdb": "get RegDB from its authors after signing their agreement",
    "llcm": "get LLCM from its authors after signing their agreement",
    "folder": "it must hold visible/ID/*.jpg and infrared/ID/*.jpg",
}


def read_data(config: DataConfig) -> ReIDData:
    """Read the configured data set; the synthetic one is first generated if it is not there yet.

    Raises InputError if no root is given, or the data set's reader finds something wrong.
    """
    if config.name == "synthetic":
        digest = hashlib.sha256(repr((VERSION, config.synthetic.model_dump())).encode()).hexdigest()[:8]
        root = config.root or Path(f"runs/data/synthetic-{digest}")
        generate_sysu_mm01(root, config.synthetic)
        return read_sysu_mm01(root)
    if config.root is None:
        raise InputError(f"data.root is not set: give --data-root FOLDER; {OBTAIN[config.name]}")
    if config.name == "regdb":
        return read_regdb(config.root, config.trial)
    if config.name == "folder":
        return read_folder(config.root, config.test_fraction)
    return read_llcm(config.root) if config.name == "llcm" else read_sysu_mm01(config.root)
