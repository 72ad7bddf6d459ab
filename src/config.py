"""Every setting of a run but those of its model (models/configs.py): default, unit, valid values. A run is a TOML file.

Pydantic reads the settings, because a run is described by a file and not by a command line. It validates the TOML table
strictly, chooses the class of the model's section by `model.name`, freezes the result and writes it as JSON.
"""

import difflib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from src.base.console import UserError
from src.base.names import existing_toml, shortened
from src.base.reading import Unreadable, parse_table, parse_toml, read_toml
from src.base.settings import (
    DataSetName,
    NotNegative,
    Positive,
    Probability,
    RunOrNone,
    Section,
    Seed,
    Shift,
    Weight,
    refuse_without_effect,
)
from src.models.configs import MODELS, ModelConfig, ReferenceCVAEConfig, TeacherForcingConfig


def _once(takes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(takes)) < len(takes):
        raise ValueError(f"{list(takes)} names a take twice; name each once")
    return takes


Takes = Annotated[tuple[NotNegative, ...], Field(strict=False, max_length=1000), AfterValidator(_once)]


class AugmentationConfig(Section):
    """Random changes of training clips. The frames, the poses and the reference of a clip get the same change."""

    # Mirrors half of the clips; left limbs become right limbs. None: mirrors if the clips can be mirrored.
    mirror: bool | None = None
    shift_x: Shift = 0  # largest shift of a clip to the left or right, in pixels; edge pixels are repeated
    shift_y: Shift = 0  # largest shift up or down, in pixels


class KLWeightConfig(Section):
    """Weight of the KL term; see schedules.py.

    The KL is a sum over latents. The reconstruction loss is a mean over pixels.
    """

    kind: Literal["cyclical", "monotonic", "constant"] = "constant"
    start: Weight = 0.0
    stop: Weight | None = None  # None: 2 / (3 H W), the weight of the bound in docs/theory.md
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5  # part of a cycle in which the weight rises
    cycles: Positive = 1
    maximum: Weight | None = None
    per: Literal["epoch", "run", "within_epoch"] = "epoch"

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "KLWeightConfig":
        unused = {"constant": ("start", "ratio", "cycles", "per"), "monotonic": ("cycles",), "cyclical": ()}[self.kind]
        return refuse_without_effect(self, unused)


class TrainingConfig(Section):
    """The training loop."""

    num_epochs: Positive = 100
    clips_per_epoch: NotNegative = 0  # 0: number of training frames // window; for pushing, every clip once
    shuffle: bool = True  # clips come in random order; false (pushing only): in the order of the data set
    batch_size: Positive = 32  # clips of a step, summed over all processes
    window: Positive = 1  # frames per clip, given frames included; reference_cvae has no given frames
    held_out_takes: Takes = ()  # takes left out; they choose best.pt
    # The final training of the recipe of this run: the validation take is trained on, too. Its score is that run's.
    final_of: RunOrNone = ""
    loss: Literal["mse", "log_mse"] = "log_mse"  # log_mse is the competition's PSNR, up to constants
    learning_rate: Annotated[float, Field(gt=0, le=1e3)] = 2e-3
    learning_rate_kind: Literal["cosine", "constant"] = "cosine"
    warmup_steps: NotNegative = 100
    final_ratio: Probability = 0.01  # last learning rate / learning_rate
    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 0.01
    gradient_clip: Annotated[float, Field(gt=0, le=1e12)] = 1.0  # largest norm of the gradient
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998  # 0: no moving average
    validate_every: Positive = 10  # epochs
    patience: NotNegative = 0  # stops after this many validations without a better score; 0: never
    precision: Literal["auto", "float32", "bfloat16", "float16"] = (
        "auto"  # of training; auto: the best that the hardware supports
    )
    channels_last: bool = False  # faster on GPUs; slower on CPUs, because of GroupNorm
    compile: bool = False  # compiles the network's blocks with torch.compile
    cuda_graph: bool = True  # on one GPU, a step is recorded once and then launched as a whole; not with compile
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "TrainingConfig":
        default = type(self).model_fields["final_ratio"].default
        if self.learning_rate_kind == "constant" and self.final_ratio != default:
            raise ValueError('final_ratio would have no effect with learning_rate_kind = "constant"; remove it')
        if self.final_of:
            for name in ("held_out_takes", "patience", "validate_every"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} would have no effect with final_of, which trains on all takes; remove it")
        return self


class EvaluationConfig(Section):
    """Rollouts for validation, test and prediction."""

    latent: Literal["mean", "sample", "mean_of_samples"] = "mean"  # how latents are drawn from the prior
    num_samples: Annotated[int, Field(ge=2, le=10_000)] = (
        8  # samples of mean_of_samples; samples of best-of-n (svg, conv_svg)
    )
    mirror: bool | None = None  # averages with the mirrored clip's rollout; None: if clips can be mirrored
    shift: Shift = 0  # averages with the rollouts of the clip shifted by this many pixels left, right, up and down
    checkpoint: Literal["best", "last"] = "best"


class Config(Section):
    """All settings of one run. The run's name is the name of its file without .toml."""

    dataset: DataSetName = "dance"  # the folder data/<dataset>
    seed: Seed = 0
    minutes: Annotated[float, Field(gt=0, le=10**6)] | None = (
        None  # MINUTES of `make train`; it chose the width, members and epochs
    )
    model: ModelConfig = ReferenceCVAEConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    kl_weight: KLWeightConfig = KLWeightConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "Config":
        reason = _unfit_window(self) or _unfit_schedule(self) or _unfit_final(self) or self.model.misfit(self)
        if reason:
            raise ValueError(reason)
        return self

    @property
    def teacher_forcing(self) -> TeacherForcingConfig | None:
        """The teacher forcing schedule; None for a model that has no teacher forcing."""
        return self.model.teacher_forcing_schedule


def _unfit_window(config: Config) -> str | None:
    model = config.model
    window = config.training.window
    needed = model.smallest_window
    if window >= needed:
        return None
    return f"training.window = {window}: {model.name} needs at least {needed} frames, one more than are given"


def _unfit_schedule(config: Config) -> str | None:
    forcing = config.teacher_forcing
    num_epochs = config.training.num_epochs
    if forcing is None or forcing.kind != "late" or forcing.begin < num_epochs:
        return None
    return f"model.teacher_forcing.begin = {forcing.begin}: a run of {num_epochs} epochs would never feed a true frame"


def _unfit_final(config: Config) -> str | None:
    if config.training.final_of and config.evaluation.checkpoint != "last":
        return 'training.final_of leaves no footage that could choose best.pt; needed: evaluation.checkpoint = "last"'
    return None


# Settings that may differ when a run resumes. They do not change the weights of any training step.
# validate_every only chooses the steps that best.pt and patience compare.
MAY_CHANGE = (
    *("training.num_epochs", "training.patience", "training.validate_every", "training.device", "training.compile"),
    "training.cuda_graph",
    "evaluation",
)


def load_config(path: Path, overrides: str = "") -> Config:
    """Returns the run's settings: those of a TOML file, some replaced by `section.key=value` words.

    Raises UserError for a missing or unreadable file. Raises it for the first invalid setting of the file, then of SET.
    """
    table = read_toml(existing_toml(path, "RUN"))
    if not table:
        raise UserError(f'{path} holds no setting; needed: at least one, such as dataset = "demo"')
    parse_config(table, str(path))
    return _overridden(table, overrides)


def replaced(config: Config, overrides: str) -> Config:
    """Returns the configuration with settings replaced by `section.key=value` words; UserError if one is invalid."""
    return _overridden(config.model_dump(mode="json"), overrides)


def _overridden(table: dict[str, Any], overrides: str) -> Config:
    for word in _split(overrides):
        _override(table, word)
    return parse_config(table, "SET")


def parse_config(table: dict[str, Any], origin: str) -> Config:
    """Returns the settings of a parsed table. UserError names `origin`, the first invalid key and what is allowed."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error, table)}") from None


def to_json(config: Config) -> str:
    """Returns the whole configuration, defaults included, as JSON text."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def from_json(text: str | bytes, origin: str) -> Config:
    """Returns the configuration that `to_json` wrote; UserError if the text is damaged or of another version."""
    try:
        return parse_config(parse_table(text, origin), origin)
    except Unreadable as error:
        raise UserError(f"{error}; restore it, or start the run again under another name") from None


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
    """Returns one line "key: old -> new" per setting that differs. Settings in `MAY_CHANGE` are left out."""
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
        table[last] = parse_toml(f"value = {value}", "SET")["value"]
    except Unreadable:  # a bare word is a string
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
        text = f"{key} = {shortened(repr(first['input']))}; needed: true or false"
    else:
        text = f"{key} = {shortened(repr(first['input']))}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return text + (f"; wrong as well: {', '.join(_key(other['loc']) for other in others)}" if others else "")


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _near(key: str, table: dict[str, Any]) -> str:
    """Returns a hint for an unknown key.

    The hint names settings of the same name in any section, and settings of a similar name in the same section. If
    there are none, it names similar settings of other sections. Otherwise it lists all settings of the section.
    """
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
