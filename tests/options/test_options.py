"""Options that are accepted act: alone, and beside each other option of their command. docs/commands.md promises it."""

import sys
from types import ModuleType

import pytest

from ms_vireid.command.running import Parser
from tests.options.folder import write_all
from tests.options.table import COMMANDS
from tests.options.trying import Tried, idle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("options"))


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_acts_or_is_refused(name, folder):
    assert idle(COMMANDS[name], folder) == []


def test_what_does_nothing_is_found(monkeypatch, tmp_path):
    def main():
        parser = Parser("")
        for name in ("--first", "--second", "--unread", "--read", "--unknown"):
            parser.add_argument(name, action="store_true")
        arguments = parser.parse_args()
        print(arguments.first, arguments.second and not arguments.first, type(arguments.read))

    command = ModuleType("idle_command")
    command.main = main
    monkeypatch.setitem(sys.modules, command.__name__, command)
    names = "--first", "--second", "--unread", "--read"
    reasons = dict.fromkeys(("--unread", "--read", "--second --read"), "does the same")
    tried = Tried(command.__name__, (), {name: (name,) for name in names}, reasons)
    assert idle(tried, tmp_path) == [
        "no sample of --unknown",
        "--unread",
        "--second beside --first",
        "no reason is needed for --second --read",
    ]
