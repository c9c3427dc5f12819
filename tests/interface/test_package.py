"""What `import hpcule` gives, and when."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from itertools import permutations

import pytest
from slowly import slow_but

import hpcule
from hpcule.config.errors import UsageError

CALL = "hpcule.craft('no-such-method', data='digits', out='nowhere')"
EXPECTED = "unknown method 'no-such-method'"
IMPORTS = [
    "import hpcule",
    "import hpcule.craft",
    "import hpcule.craft.table",
    "from hpcule.craft.run import craft as driver",
    "from hpcule import craft",
    "from hpcule.interface.craft import craft as function",
]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(call: str) -> str:
    return f"\ntry:\n    {call}\nexcept hpcule.UsageError as error:\n    print(error)\n"


@pytest.mark.parametrize("order", slow_but([IMPORTS], [IMPORTS, IMPORTS[::-1], [*IMPORTS[3:], *IMPORTS[:3]]]))
def test_the_function_and_the_package_of_one_name(order: list[str]) -> None:
    """In processes of their own, since modules are loaded once."""
    code = "\n".join([*order, "import hpcule, hpcule.craft.strength"]) + refused(CALL)
    code += "print(hpcule.craft.strength.USUAL, hpcule.craft.__name__, craft is hpcule.craft)"
    lines = run(code).splitlines()
    assert EXPECTED in lines[0]
    assert lines[1] == "8 hpcule.craft True"


def test_light_imports_in_all_orders() -> None:
    light = ("import hpcule", "import hpcule.craft", "from hpcule import craft", "import hpcule.interface.craft")
    code = "import hpcule\nprint(type(hpcule.craft).__name__, callable(hpcule.craft))"
    for pair in permutations(light, 2):
        assert run("\n".join([*pair, code])).split() == ["CraftPackage", "True"], pair


@pytest.mark.slow
def test_a_reload_keeps_the_function() -> None:
    code = "import importlib, hpcule\nimportlib.reload(hpcule.craft)\nimportlib.reload(hpcule)" + refused(CALL)
    assert EXPECTED in run(code)


def test_nothing_else_is_loaded_by_the_import() -> None:
    code = (
        "import sys, json\nbefore = set(sys.modules)\nimport hpcule\n"
        "print(json.dumps(sorted(m for m in set(sys.modules) - before if m.startswith('hpcule'))))"
    )
    assert json.loads(run(code)) == [
        "hpcule",
        "hpcule.config",
        "hpcule.config.errors",
        "hpcule.config.version",
        "hpcule.craft",
        "hpcule.interface",
        "hpcule.interface.callable",
    ]


def test_every_public_name_is_there() -> None:
    for name in hpcule.__all__:
        assert getattr(hpcule, name) is not None
    assert set(hpcule.__all__) <= set(dir(hpcule))
    assert not hasattr(hpcule, "no_such_name")


def test_the_signature_of_the_callable_package() -> None:
    from hpcule.interface.craft import craft

    assert inspect.signature(hpcule.craft) == inspect.signature(craft)
    with pytest.raises(TypeError, match="required keyword-only argument"):
        hpcule.craft("pil")


def test_methods_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    from hpcule.cli.main import main

    assert main(["methods", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(hpcule.methods()))


def test_errors_are_those_of_the_package() -> None:
    assert hpcule.UsageError is UsageError
