"""From a Kaggle data set to a scored submission: conditional video prediction with variational autoencoders."""

import sys
from types import TracebackType


def _stop_quietly(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Says one line for Ctrl-C while modules are still being imported; everything else is shown as usual."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _stop_quietly
