"""The lint step that finds words which our texts avoid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "tools" / "words.py"


def words(*arguments):
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "text", "line", "word"),
    [
        ("page.md", "One\nThus the second line.\n", 2, "thus"),
        ("module.py", "# It came so\n    # many times.\n", 1, "so many"),
        ("page.html.j2", "<p>{{ a }} beside {{ b }}</p>\n", 1, "beside"),
    ],
)
def test_names_the_line_and_better_words(tmp_path, name, text, line, word):
    (tmp_path / name).write_text(text)
    (tmp_path / "clean.md").write_text("Besides, nothing.\n")
    done = words(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path / name}:{line}: {word} -> ")
    assert done.stdout.count("\n") == 1


def test_counts_by_file_and_by_word(tmp_path):
    (tmp_path / "page.md").write_text("anew, anew, alike\n")
    done = words("--count", tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"    3 {tmp_path / 'page.md'}\nanew 2, alike 1\n"


def test_a_clean_folder_passes(tmp_path):
    (tmp_path / "page.md").write_text("Compared with, the same, again.\n")
    assert words(tmp_path).returncode == 0
