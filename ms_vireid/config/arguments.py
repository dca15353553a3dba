"""A command's arguments for a recipe, and the configuration that they ask for."""

import argparse
import json
from pathlib import Path

from ms_vireid.command.running import Parser
from ms_vireid.config.reading import CONFIG_ROOT, load_config
from ms_vireid.config.schema import Config


def add_recipe(parser: Parser) -> None:
    """The arguments that `recipe` reads."""
    parser.add_argument("--config", type=Path, default=CONFIG_ROOT / "demo.yaml", help="YAML file with the recipe")
    parser.add_argument("--data-root", metavar="D", help="folder of the data set (data.root)")
    parser.add_argument("--seed", type=int, metavar="N", help="of all random numbers (seed)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, for example optimizer.lr=1e-4"
    )


def recipe(arguments: argparse.Namespace) -> Config:
    """The configuration that the command line asks for."""
    overrides = list(arguments.overrides)
    if arguments.data_root is not None:
        overrides.append(f"data.root={json.dumps(arguments.data_root)}")  # quoted: a path is not YAML
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    return load_config(arguments.config, overrides)
