"""`python -m hpcule`: the same as the console script, for launchers whose PATH differs."""

from hpcule.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
