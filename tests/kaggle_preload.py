"""Imports for the process that all workers are forked from: the workbench, and the dependencies of the client."""

import ast
import importlib
import importlib.util
from pathlib import Path

import kaggle_workbench  # noqa: F401 (only to load it)


def import_for_the_client() -> None:
    """Imports the client's dependencies. The client itself is not imported, because its import authenticates."""
    folder = Path(importlib.util.find_spec("kaggle").submodule_search_locations[0])
    for file in ("api/kaggle_api_extended.py", "cli.py"):
        for node in ast.parse((folder / file).read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.partition(".")[0] != "kaggle":
                    importlib.import_module(name)


import_for_the_client()
