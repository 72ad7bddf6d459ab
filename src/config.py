"""Every number an experiment may change: its default, its unit, its validity. One TOML file per run.

Pydantic was chosen over tyro and jsonargparse because a run is a file and not a command line: it validates a parsed
TOML table strictly, tells the models' sections apart by `model.name`, freezes the result and writes it back as JSON.
"""

import difflib
import json
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from src.base.console import UserError
from src.base.settings import NotNegative, Positive, Probability, Section, Shift, refuse_without_effect
from src.models.configs import MODELS, ModelConfig, ReferenceCVAEConfig, TeacherForcingConfig


class AugmentationConfig(Section):
    """Random changes of training clips; frames, poses and the reference of a clip change alike."""

    mirror: bool = True  # half of the clips are mirrored, left limbs becoming right ones; see also evaluation.mirror
    shift_x: Shift = 0  # pixels that a clip is moved to either side at most; the edges are repeated
    shift_y: Shift = 0  # the same up and down


class KLWeightConfig(Section):
    """Weight of the KL term: of sum-over-latents KL against mean-over-pixels reconstruction; see schedules.py."""

    kind: Literal["cyclical", "monotonic", "constant"] = "constant"
    start: Annotated[float, Field(ge=0)] = 0.0
    stop: Annotated[float, Field(ge=0)] = 3.255e-4  # 2 / (3 * 32 * 64): makes log MSE a bound, see docs/theory.md
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5  # part of a cycle that ramps
    cycles: Positive = 1
    maximum: Annotated[float, Field(ge=0)] | None = None
    per: Literal["epoch", "run", "within_epoch"] = "epoch"

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "KLWeightConfig":
        unused = {"constant": ("start", "ratio", "cycles", "per"), "monotonic": ("cycles",), "cyclical": ()}[self.kind]
        return refuse_without_effect(self, unused)


class TrainingConfig(Section):
    """The training loop."""

    num_epochs: Positive = 100
    clips_per_epoch: NotNegative = 0  # 0: as many as cover every training frame once; for pushing, each clip once
    shuffle: bool = True  # an epoch's clips in random order; off, for pushing alone: in the order of the data set
    batch_size: Positive = 32  # clips, over all processes together
    window: Positive = 1  # frames per clip; all but the given ones are predicted, and reference_cvae is given none
    held_out_takes: Annotated[tuple[NotNegative, ...], Field(strict=False)] = ()  # of training; best.pt goes by them
    loss: Literal["mse", "log_mse"] = "log_mse"  # log_mse is the competition's score itself
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    learning_rate_kind: Literal["cosine", "constant"] = "cosine"
    warmup_steps: NotNegative = 100
    final_ratio: Probability = 0.01  # of the learning rate, at the last step
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0  # norm
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998  # 0 switches the moving average off
    validate_every: Positive = 10  # epochs
    patience: NotNegative = 0  # validations without a better score before stopping; 0: never stops early
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of training; auto: what the hardware has
    channels_last: bool = False  # faster on GPUs; on CPUs GroupNorm loses more than convolutions win
    compile: bool = False  # torch.compile of the network's blocks
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "TrainingConfig":
        default = type(self).model_fields["final_ratio"].default
        if self.learning_rate_kind == "constant" and self.final_ratio != default:
            raise ValueError('final_ratio would have no effect with learning_rate_kind = "constant"; remove it')
        return self


class EvaluationConfig(Section):
    """Rollouts for validation, test and prediction."""

    latent: Literal["mean", "sample", "mean_of_samples"] = "mean"  # of the prior
    num_samples: Annotated[int, Field(ge=2)] = 8  # K of mean_of_samples; n of the best of n for svg and conv_svg
    mirror: bool = True  # averages with the rollout of the mirrored clip
    shift: Shift = 0  # averages with the rollouts of the clip moved by so many pixels left, right, up and down
    checkpoint: Literal["best", "last"] = "best"


class Config(Section):
    """One run. Its name is the stem of its file."""

    dataset: str = "dance"  # data/<dataset>
    seed: NotNegative = 0
    minutes: Annotated[float, Field(gt=0)] | None = None  # MINUTES of make train, which chose width, members and epochs
    model: ModelConfig = ReferenceCVAEConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    kl_weight: KLWeightConfig = KLWeightConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "Config":
        reason = _unfit_window(self) or _unfit_schedule(self) or self.model.misfit(self)
        if reason:
            raise ValueError(reason)
        return self

    @property
    def teacher_forcing(self) -> TeacherForcingConfig | None:
        """The schedule of a model that may be fed true frames in training; None for the others."""
        return self.model.teacher_forcing_schedule


def _unfit_window(config: Config) -> str | None:
    model, window, needed = config.model, config.training.window, config.model.smallest_window
    if window >= needed:
        return None
    return f"training.window = {window}: {model.name} needs at least {needed} frames, the given ones and one to predict"


def _unfit_schedule(config: Config) -> str | None:
    forcing, num_epochs = config.teacher_forcing, config.training.num_epochs
    if forcing is None or forcing.kind != "late" or forcing.begin < num_epochs:
        return None
    return f"model.teacher_forcing.begin = {forcing.begin}: a run of {num_epochs} epochs would never feed a true frame"


# Settings that may differ when a run goes on: they say how long it trains and how it is read, not what it is.
# validate_every is among them: it picks the steps that best.pt and patience compare, and changes the weights of none.
MAY_CHANGE = (
    *("training.num_epochs", "training.patience", "training.validate_every", "training.device", "training.compile"),
    "evaluation",
)


def load_config(path: Path, overrides: str = "") -> Config:
    """Returns the run's settings from a TOML file and `section.key=value` words that replace some of them.

    Raises UserError for a missing or unreadable file and for the first invalid setting, of the file or else of SET.
    """
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.toml"))) or "none"
        raise UserError(f"{path} does not exist; RUN must be the stem of a file in {path.parent}/ (there are: {known})")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    parse_config(table, str(path))
    return _overridden(table, overrides)


def replaced(config: Config, overrides: str) -> Config:
    """Returns a configuration with the settings of `section.key=value` words; UserError for an invalid one."""
    return _overridden(config.model_dump(mode="json"), overrides)


def _overridden(table: dict[str, Any], overrides: str) -> Config:
    for word in _split(overrides):
        _override(table, word)
    return parse_config(table, "SET")


def parse_config(table: dict[str, Any], origin: str) -> Config:
    """Returns the settings in a parsed table; UserError names the first invalid key, `origin` and what is allowed."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error, table)}") from None


def to_json(config: Config) -> str:
    """Returns the whole configuration, defaults included, as JSON text."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def from_json(text: str | bytes, origin: str) -> Config:
    """Returns the configuration that `to_json` wrote; UserError where the text is damaged or from another version."""
    try:
        table = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{origin} is damaged ({error}); restore it or start the run afresh") from None
    return parse_config(table, origin)


def flatten(config: Config) -> dict[str, Any]:
    """Returns {"section.key": value} for every setting."""
    return dict(_leaves(config.model_dump(mode="json"), ""))


def _leaves(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(old: Config, new: Config) -> list[str]:
    """Returns one "key: old -> new" line for each setting outside `MAY_CHANGE` in which two configurations differ."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and not key.startswith(MAY_CHANGE)]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys]


def _split(overrides: str) -> list[str]:
    try:
        return shlex.split(overrides)
    except ValueError as error:
        raise UserError(f"SET={overrides!r} cannot be read: {error}") from None


def _override(table: dict[str, Any], word: str) -> None:
    key, equals, value = word.partition("=")
    *sections, last = key.split(".")
    if not equals or not all([*sections, last]):
        raise UserError(
            f"SET: found {word!r}; needed: section.key=value without spaces around =, "
            'as in SET="training.num_epochs=3 dataset=demo"'
        )
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"SET: {word!r} treats {section!r} as a section, but it holds a value")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:  # a bare word is a string
        table[last] = value


def _explain(error: ValidationError, table: dict[str, Any]) -> str:
    first, *others = error.errors()
    key = _key(first["loc"])
    if first["type"] == "extra_forbidden":
        text = f"unknown setting {key}; {_near(key, table)}"
    elif first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
        text = f"{key}: {reason}" if key and not reason.startswith(key) else reason
    elif first["type"] == "bool_type":
        text = f"{key} = {first['input']!r}; needed: true or false"
    else:
        text = f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return text + (f"; wrong as well: {', '.join(_key(other['loc']) for other in others)}" if others else "")


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _near(key: str, table: dict[str, Any]) -> str:
    """Returns what may be meant by an unknown key: one of that name anywhere, or of a name like it, there first."""
    section, dot, name = key.rpartition(".")
    model = MODELS[table["model"]["name"]].model_construct() if "model" in table else Config().model
    settings = flatten(Config.model_construct(model=model))
    sections = dict.fromkeys(known.rpartition(".")[0] for known in settings if "." in known)
    names = {known: known.rpartition(".")[2] for known in (*settings, *sections)}
    there = [last for known, last in names.items() if known == section + dot + last]
    meant = [known for known, last in names.items() if last == name]
    meant += [section + dot + like for like in difflib.get_close_matches(name, there, cutoff=0.65)]
    elsewhere = difflib.get_close_matches(name, names.values(), n=1, cutoff=0.65)
    meant = meant or [known for known, last in names.items() if last in elsewhere]
    return f"did you mean {' or '.join(meant)}?" if meant else f"known there: {', '.join(there)}"
