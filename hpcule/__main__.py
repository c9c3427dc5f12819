"""`python -m hpcule`: the same as the console script, for launchers whose PATH differs."""

from hpcule.cli.main import run

if __name__ == "__main__":
    run()
