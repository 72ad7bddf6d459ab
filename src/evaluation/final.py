"""Final trainings: runs that have seen the validation take. Their score is that of the run with the same recipe."""

from collections.abc import Mapping
from pathlib import Path

from src.base.console import UserError, say
from src.config import Config, flatten
from src.evaluation.scores import read_scores
from src.training.saved_config import read_config

ON_THE_MACHINE = ("device", "compile", "cuda_graph", "precision")
FREE = {f"training.{name}" for name in ("final_of", "validate_every", "patience", *ON_THE_MACHINE)}


def recipe_run(folder: Path, config: Config) -> Path | None:
    """Returns the folder of the run whose recipe a final training has; None for another run.

    UserError if that run is there and has other settings. Settings that do not belong to a recipe may differ.
    """
    if not config.training.final_of:
        return None
    recipe = folder.parent / config.training.final_of
    if (recipe / "config.json").is_file():
        before, now = flatten(read_config(recipe)), flatten(config)
        keys = [key for key in now if key not in FREE and before.get(key) != now[key]]
        if keys:
            changed = "; ".join(f"{key}: {before.get(key)} -> {now[key]}" for key in keys)
            raise UserError(
                f"training.final_of = {recipe.name}, but {recipe} has another recipe ({changed}); needed: the same"
            )
    return recipe


def state_of_recipe(folder: Path, config: Config) -> list[str]:
    """Returns a line for the start of a final training on the run that has its score; none for another run."""
    recipe = recipe_run(folder, config)
    if recipe is None:
        return []
    there = "" if (recipe / "scores.json").is_file() else f", which is not evaluated yet: make train RUN={recipe.name}"
    return [f"{folder}: the validation take is trained on, too; the score is that of {recipe}{there}"]


def refuse_final(folder: Path, config: Config) -> None:
    """Raises UserError for a final training: no footage is left that it has not seen."""
    if recipe := recipe_run(folder, config):
        raise UserError(
            f"{folder} has been trained on the validation take, so it has no score of its own; "
            f"that of its recipe: make evaluate RUN={recipe.name}"
        )


def local_score(folder: Path, config: Config, origin: Mapping[str, object]) -> float | None:
    """Returns the validation score in dB that belongs to a run's csv; None if there is none.

    It is that of this checkpoint and these settings, as `origin` names them by their hashes. Of a final training it is
    that of its recipe. A damaged file is told in a line, because no csv needs the score.
    """
    try:
        recipe = recipe_run(folder, config)
        path = (recipe or folder) / "scores.json"
        scores = read_scores(path) if path.exists() else None
    except UserError as error:
        say(f"no local score beside the csv: {error}")
        return None
    if scores is None:
        return None
    evaluated = {"checkpoint_sha256": scores.checkpoint_sha256, "config_sha256": scores.config_sha256}
    return scores.score if recipe or evaluated.items() <= origin.items() else None
