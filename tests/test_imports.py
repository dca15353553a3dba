"""Which packages may import which framework, checked in fresh interpreters."""

import subprocess
import sys

import pytest

FRAMEWORK_FREE = [
    "ms_vireid.ablate",
    "ms_vireid.config",
    "ms_vireid.data.batches",
    "ms_vireid.data.read",
    "ms_vireid.engine.process_group",
    "ms_vireid.engine.run_folder",
    "ms_vireid.engine.schedule",
    "ms_vireid.evaluation",
    "ms_vireid.export",
    "ms_vireid.extract",
    "ms_vireid.files.weights",
    "ms_vireid.report",
    "ms_vireid.retrieve",
    "ms_vireid.devices.runtime",
    "ms_vireid.train",
    "ms_vireid.visualize",
]


def imported_by(module):
    script = f"import sys, {module}; print(*sorted({{'torch', 'mindspore'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", FRAMEWORK_FREE)
def test_framework_free_code_imports_neither_framework(module):
    assert imported_by(module) == []


@pytest.mark.parametrize("module", ["ms_vireid.engine.trainer", "ms_vireid.models", "ms_vireid.losses"])
def test_the_toolbox_never_imports_torch(module):
    assert imported_by(module) == ["mindspore"]
