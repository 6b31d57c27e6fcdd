"""`python -m noria` is the command `noria`."""

from noria.cli.entry import run

if __name__ == "__main__":
    run()
