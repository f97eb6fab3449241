"""What is printed, and where it cannot be."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import pathlib, sys
from util.errors import run_script
from util.options import OptionParser
from util.notices import tell
from util.progress import progress_bar

def main(args):
    tell(["84×60 pixels in s\\udcff"])
    progress_bar(3, "tracking").finish()
    pathlib.Path(sys.argv[1]).write_text("results")
    print("network 84×60")

parser = OptionParser("script.py", "")
parser.add_argument("file")
sys.exit(run_script(parser, main))
"""

FULL = "needs a device that is always full"


@pytest.mark.parametrize("shell, environment, code", [
    ("", {}, 0), ("2>&-", {}, 0), (">&-", {}, 0), (">&- 2>&-", {}, 0), ("", {"PYTHONIOENCODING": "cp1251"}, 0),
    ("", {"PYTHONIOENCODING": "ascii"}, 0),
    pytest.param(">/dev/full", {}, 2, marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason=FULL)),
])
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_what_cannot_be_printed_stops_no_script(tmp_path, shell, environment, code):
    command = f'"$0" -c "$1" "$2" {shell}'
    done = subprocess.run(["sh", "-c", command, sys.executable, SCRIPT, str(tmp_path / "results")], cwd=ROOT,
                          env={**os.environ, **environment}, capture_output=True, timeout=60)
    assert done.returncode == code and (tmp_path / "results").read_text() == "results"
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    if code:
        assert b"script.py: error: standard output: No space left on device" in done.stderr
