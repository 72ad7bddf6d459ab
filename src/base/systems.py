"""The two systems, and the module that each of them has in each layer.

A system is one row of `SYSTEMS` and one folder. A module is imported only when it is used, so the dancers' commands
import no robot code. Each layer's module must offer:

data         open_folder(folder) -> the packed data; sampler(config, data, *, context, device) -> training clips
validation   validation_of(config, data, *, context, device) -> what training validates on
schema       SCHEMA: the class of the system's scores.json
scores       what_is_rolled_out(data); score(trained, data) -> the scores of a run and its rollouts
pictures     save_pictures(folder, rollouts); PICTURES: the files that a report shows
cost         ASSUMED: the facts of a data set where none is packed; noise_batch(config, model, num_clips, facts),
             clips_of_an_epoch(config, manifest), resident_bytes(config, manifest)
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class System:
    """The names of the modules of one system, one for each layer."""

    data: str
    validation: str
    schema: str
    scores: str
    pictures: str
    cost: str
    has_submission: bool  # whether `make submission` writes a csv

    def part(self, layer: str) -> Any:
        """Imports and returns the module of this system in a layer."""
        return import_module(getattr(self, layer))


SYSTEMS = {
    "dance": System(
        data="src.dataset",
        validation="src.dance.validation",
        schema="src.dance.schema",
        scores="src.dance.scores",
        pictures="src.dance.pictures",
        cost="src.dance.cost",
        has_submission=True,
    ),
    "pushing": System(
        data="src.pushing.data",
        validation="src.pushing.validation",
        schema="src.pushing.schema",
        scores="src.pushing.scores",
        pictures="src.pushing.pictures",
        cost="src.pushing.cost",
        has_submission=False,
    ),
}
