"""Results for people: plots, tables and comparisons over seeds."""

import logging

# Before matplotlib is imported: without a home folder it warns that it uses a temporary one.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
