"""The two systems: which module serves each of them in each layer.

A system is a row of `SYSTEMS` and a folder. The modules are named and imported when they are asked for, so that work on
dancers loads no code of robots. What a module of a layer must offer:

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
    """The modules that serve one system, by layer."""

    data: str
    validation: str
    schema: str
    scores: str
    pictures: str
    cost: str
    has_submission: bool  # is there a csv to hand in?

    def part(self, layer: str) -> Any:
        """Returns the module that serves this system in a layer; it is imported here."""
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
