"""`python -m src COMMAND ...`, which is also `.venv/bin/pose-video COMMAND ...`."""

from src.base.console import run_program
from src.commands import main

if __name__ == "__main__":
    run_program(main)
