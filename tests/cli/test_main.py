"""The command as a process."""

import json
import subprocess
import sys

import pytest

from hpcule.cli.main import VERBS


@pytest.mark.slow
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


@pytest.mark.slow
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


def imported(*words):
    """What a command prints, and the modules of hpcule.cli that it imports."""
    look = (
        "import json, sys\n"
        "from hpcule.cli.main import main\n"
        "try: main()\n"
        "finally: print('\\0', json.dumps([name for name in sys.modules if name.startswith('hpcule.cli.')]))"
    )
    done = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, timeout=60)
    said, _, modules = done.stdout.partition("\0")
    return said, {name.removeprefix("hpcule.cli.") for name in json.loads(modules)}


def test_help_lists_every_verb_but_the_one_that_starts_by_itself():
    said, modules = imported("--help")
    listed = {line.split()[0] for line in said.splitlines() if line.startswith("    ")}
    assert set(VERBS) - listed == {"trial"}
    assert modules >= set(VERBS.values())


@pytest.mark.parametrize("verb", [*VERBS])
def test_a_verb_imports_the_module_of_no_other(verb):
    said, modules = imported(verb, "--help")
    assert said.startswith(f"usage: hpcule {verb}")
    used = {"compare": {"evaluate"}}.get(verb, set())
    assert modules & set(VERBS.values()) == {VERBS[verb], *used}


@pytest.mark.parametrize("words", [["--submit", "local"], ["--dry-run"], ["--config", "file.yaml"]])
def test_doctor_takes_no_option_that_it_would_ignore(run, words):
    assert run("doctor", *words)[0] == 2


def test_doctor_refuses_settings_of_other_verbs(run):
    code, _, error = run("doctor", "--set", "seed=1")
    assert code == 2
    assert "unknown setting 'seed'" in error
    assert "world.threads" in error
