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


def test_an_export_is_whole_though_nobody_reads_what_it_says(run, tmp_path):
    """As with `hpcule export ... | head -1`: its records are written before anything is printed."""
    store, copy = tmp_path / "store", tmp_path / "copy"
    data = ["--data", "digits", "--set", "image_size=32"]
    assert run("craft", "classwise", *data, "--out", store)[0] == 0
    line = [sys.executable, "-m", "hpcule", "export", store, "--data", "digits", "--out", copy, "--format", "folder"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, b"")
    assert (store / "run" / "export.csv").stat().st_size > 1000
    assert (store / "run" / "export.sha256").exists()
