"""Find words that our texts avoid, in code, documentation, templates and configuration.

python tools/words.py                   # FILE:LINE: word -> better words; exit 1 if any is found
python tools/words.py docs README.md    # only below these paths
python tools/words.py --count           # occurrences by file and by word; always exit 0
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = {
    "beside": "next to, alongside; compared with",
    "alike": "the same; both",
    "anew": "again",
    "so many": "a number of, that many",
    "told": "reported, stated, found",
    "tells": "reports, shows, says",
    "looks at": "reads, inspects",
    "made from": "derived from, computed from, built from",
    "the way back": "removing the perturbation",
    "thief": "attacker",
    "thieves": "attackers",
    "as ever": "as usual; or leave it out",
    "thus": "so, in this way",
}
ALLOWED: tuple[str, ...] = ()
"""Quotations, such as titles of papers, in which a word above may stand."""
SELF = (ROOT / "tools" / "words.py", ROOT / "tests" / "test_words.py")
"""Files that name the words."""
SUFFIXES = {".cfg", ".j2", ".lsf", ".md", ".py", ".sbatch", ".sh", ".toml", ".yaml", ".yml", ""}
SKIPPED = {"build", "dist", "hpcule-runs", "site", "__pycache__"}
GAP = r"[\s#>*]+"  # between the words of a phrase: spaces, or a line break and the next line's comment sign
PATTERN = re.compile(r"\b(" + "|".join(word.replace(" ", GAP) for word in WORDS) + r")\b", re.IGNORECASE)


def files(paths: list[Path]) -> Iterator[Path]:
    """Yield the text files at and below the paths, without hidden folders and build outputs."""
    for path in paths:
        if path.is_dir():
            inside = sorted(path.iterdir())
            yield from files([entry for entry in inside if entry.name not in SKIPPED and entry.name[0] != "."])
        elif path.suffix in SUFFIXES and path.resolve() not in SELF:
            yield path


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and word of each occurrence in a file."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for quotation in ALLOWED:
        text = text.replace(quotation, " " * len(quotation))
    for match in PATTERN.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, re.sub(GAP, " ", match[0].lower())


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description="Find words that our texts avoid.")
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT], help="files or folders (default: everything)")
    parser.add_argument("--count", action="store_true", help="print counts by file and by word, and exit with 0")
    options = parser.parse_args()
    by_file: Counter[Path] = Counter()
    by_word: Counter[str] = Counter()
    for path in files(options.paths):
        for line, word in findings(path):
            by_file[path] += 1
            by_word[word] += 1
            if not options.count:
                print(f"{path}:{line}: {word} -> {WORDS[word]}")
    if options.count:
        for path, count in sorted(by_file.items()):
            print(f"{count:5} {path}")
        print(", ".join(f"{word} {count}" for word, count in by_word.most_common()) or "none of the words")
    return 1 if by_word and not options.count else 0


if __name__ == "__main__":
    raise SystemExit(main())
