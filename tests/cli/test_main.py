"""The command as a process."""

import subprocess
import sys


def test_a_process_ends_tidily_but_without_taking_the_interpreter_down():
    code = (
        "import atexit, ctypes, sys\n"
        "from hpcule.cli.main import run\n"
        "ctypes.pythonapi.Py_AtExit(ctypes.CDLL(None).abort)\n"
        "atexit.register(print, 'tidied up')\n"
        "sys.argv = ['hpcule', *sys.argv[1:]]\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "methods"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("tidied up\n")
    failed = subprocess.run(
        [sys.executable, "-c", code, "verify", "/nowhere"], capture_output=True, text=True, timeout=60
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("hpcule: no store in /nowhere")
