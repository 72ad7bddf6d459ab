"""The settings of every model, and the models by name. Nothing here imports torch.

The rest of the project reads everything that it must know before a model is built from its class of settings: the
system, the network, and which other settings do not fit.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from src.base.settings import (
    Channels,
    Frames,
    NotNegative,
    Probability,
    Section,
    Small,
    Width,
    refuse_without_effect,
)

if TYPE_CHECKING:
    from src.config import Config


class TeacherForcingConfig(Section):
    """The probability that training feeds the true previous frame; see maths/schedules.py."""

    kind: Literal["decay", "late", "plan"] = "decay"
    start: Probability = 0.0  # ratio before the decay
    begin: NotNegative = 0  # epoch at which "late" switches on
    decay_from: NotNegative = 10  # epoch
    decay_step: Probability = 0.1  # per epoch
    coin: Literal["batch", "step"] = "step"  # one random decision for all frames of a batch, or one per time step

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "TeacherForcingConfig":
        if self.kind == "late" and not self.start:
            raise ValueError('start = 0 with kind = "late" would never feed a true frame; set start')
        if self.kind == "late" and self.decay_from < self.begin:
            raise ValueError(f"decay_from = {self.decay_from} is before begin = {self.begin}; set it later")
        unused = {"decay": ("begin",), "late": (), "plan": ("start", "begin", "decay_from", "decay_step")}[self.kind]
        return refuse_without_effect(self, unused)


class VideoModelConfig(Section):
    """Settings that models of every system have."""

    network: ClassVar[str]  # module:class
    has_dial: ClassVar[bool] = False  # can MINUTES choose the settings?

    name: str

    @property
    def teacher_forcing_schedule(self) -> TeacherForcingConfig | None:
        """The teacher forcing of training; None for a model that is never fed a frame."""
        return getattr(self, "teacher_forcing", None)

    def misfit_of_size(self, height: int, width: int) -> str | None:
        """Returns in words why frames of that size cannot be drawn; None where they can."""
        return None


class PoseModelConfig(VideoModelConfig):
    """Settings of a model that draws dancers from one given frame and a pose image per frame."""

    system: ClassVar[str] = "dance"
    num_given: ClassVar[int] = 1  # frames given before the first prediction

    @property
    def smallest_window(self) -> int:
        """The fewest frames of a training clip."""
        return self.num_given + 1

    def misfit(self, config: "Config") -> str | None:
        """Returns in words which other setting does not fit this model; None where all do."""
        if not config.training.shuffle:
            return f"training.shuffle = false, but {self.name} always draws its clips at random; remove it"
        evaluation = config.evaluation
        if evaluation.latent != "mean_of_samples" and evaluation.num_samples != type(evaluation)().num_samples:
            return f'evaluation.num_samples would have no effect with latent = "{evaluation.latent}"; remove it'
        return None


class PushingModelConfig(VideoModelConfig):
    """Settings of a model that draws robot pushing from given frames and the numbers of each frame."""

    system: ClassVar[str] = "pushing"

    num_given: Annotated[int, Field(ge=1, le=1000)] = 2  # frames given before the first prediction

    @property
    def smallest_window(self) -> int:
        """The fewest frames of a training clip."""
        return self.num_given + 1

    def misfit(self, config: "Config") -> str | None:
        """Returns in words which other setting does not fit this model; None where all do."""
        augmentation = config.augmentation
        evaluation = config.evaluation
        changes = (augmentation.mirror, augmentation.shift_x, augmentation.shift_y)
        if any((*changes, evaluation.mirror, evaluation.shift)):
            return (
                f"{self.name} cannot mirror or shift clips, because their actions and positions would no longer fit; "
                "leave out augmentation and evaluation.mirror and the shifts"
            )
        for name in ("held_out_takes", "final_of"):
            if getattr(config.training, name):
                return f"training.{name} is only for dancers; remove it"
        return None


class LabCVAEConfig(PoseModelConfig):
    """The lab template's network (lab_cvae.py): autoregressive, full resolution, one latent per pixel."""

    network: ClassVar[str] = "src.models.lab_cvae:LabCVAE"

    name: Literal["lab_cvae"] = "lab_cvae"
    width: Annotated[int, Field(ge=32, le=2**12, multiple_of=32)] = 128  # channels of an encoded frame
    num_latents: Annotated[int, Field(ge=4, le=2**16)] = 12  # channels of the latent, each of the size of a frame
    negative_slope: Annotated[float, Field(ge=0, le=1)] = 0.2  # 1 reproduces the template's LeakyReLU(True)
    bounded_output: bool = True  # a sigmoid after the generator; the template has none
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()


class ReferenceCVAEConfig(PoseModelConfig):
    """Draws frame t from the first frame and the poses around t (reference_cvae.py)."""

    network: ClassVar[str] = "src.models.reference_cvae:ReferenceCVAE"
    has_dial: ClassVar[bool] = True

    name: Literal["reference_cvae"] = "reference_cvae"
    width: Width = 32  # channels at level 0; level i has (i + 1) times as many
    patch: Literal[1, 2, 4] = 1  # patches of so many pixels a side become channels; 2 halves the resolution inside
    num_levels: Annotated[int, Field(ge=1, le=4)] = 4  # resolutions; with patch 1: 32 x 64, 16 x 32, 8 x 16, 4 x 8
    num_blocks: Small = 2  # residual blocks per level and direction
    pose_window: Frames = 1  # k: for frame t the model sees the poses t-k..t+k
    reference: Literal["mixed", "seen", "none"] = "mixed"  # first frame: "seen" as input; "mixed" also into the output
    previous_frame: bool = False  # the autoregressive variant, which also sees the previous frame
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()  # only for the autoregressive variant
    num_latents: Channels = 16  # numbers per frame, or per position of the latent map
    latent_map: bool = False  # one latent per position of the coarsest level, instead of one per frame
    prior_probability: Probability = 0.75  # share of training frames drawn from the prior mean (Sohn et al. 2015)
    num_members: Small = 1  # size of the ensemble; members differ only in their initial weights

    @property
    def teacher_forcing_schedule(self) -> TeacherForcingConfig | None:
        """The teacher forcing of the autoregressive variant; else None, because no frame is fed back."""
        return self.teacher_forcing if self.previous_frame else None

    @property
    def smallest_window(self) -> int:
        """The fewest frames of a training clip. Only the autoregressive variant needs a previous frame."""
        return 2 if self.previous_frame else 1

    def misfit(self, config: "Config") -> str | None:
        """Returns in words which other setting does not fit this model; None where all do."""
        if not self.previous_frame and self.teacher_forcing != TeacherForcingConfig():
            return "model.teacher_forcing would have no effect without model.previous_frame; remove it"
        return super().misfit(config)

    def misfit_of_size(self, height: int, width: int) -> str | None:
        """Returns in words which sizes can be drawn if this one cannot, else None. Each level halves the size."""
        divisor = max(2, self.patch * 2 ** (self.num_levels - 1))  # the posterior works at half resolution
        if height % divisor == 0 and width % divisor == 0:
            return None
        needed = f"multiples of {divisor}, which is patch * 2^(num_levels - 1)" if divisor > 2 else "multiples of 2"
        return f"{needed}; set model.patch or model.num_levels lower, or pack another SIZE"


class SVGConfig(PushingModelConfig):
    """Stochastic Video Generation (svg.py): LSTMs over time; every frame is encoded and decoded."""

    network: ClassVar[str] = "src.models.svg:SVG"

    name: Literal["svg"] = "svg"
    prior: Literal["fixed", "learned"] = "fixed"  # N(0, I) (SVG-FP), or an LSTM on the previous frames (SVG-LP)
    width: Width = 64  # channels at 64 x 64; 2, 4, 8 times as many at lower levels
    num_features: Annotated[int, Field(ge=32, le=2**16, multiple_of=8)] = (
        128  # features of an encoded frame, normed in 8 groups
    )
    num_latents: Channels = 64  # numbers per frame
    num_hidden: Channels = 256  # units of every LSTM
    last_frame_skip: bool = True  # the decoder's skips come from the previous frame; false: from the last given frame
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()

    def misfit_of_size(self, height: int, width: int) -> str | None:
        """Returns in words which size can be drawn if this one cannot, else None. The encoder ends at 4 x 4 pixels."""
        return None if (height, width) == (64, 64) else "64 x 64; scale the clips, or choose model.name = conv_svg"


class ConvSVGConfig(PushingModelConfig):
    """The default for pushing (conv_svg.py): a convolutional recurrent state that never sees drawn frames."""

    network: ClassVar[str] = "src.models.conv_svg:ConvSVG"

    name: Literal["conv_svg"] = "conv_svg"
    prior: Literal["fixed", "learned"] = "learned"
    width: Width = 32  # channels at half resolution; twice as many in the state
    num_latents: Channels = 16  # numbers per frame
    prior_probability: Probability = 0.5  # share of training clips drawn from the prior mean (Sohn et al. 2015)

    def misfit_of_size(self, height: int, width: int) -> str | None:
        """Returns in words which sizes can be drawn if this one cannot, else None. The state has H/4 x W/4 pixels."""
        return "multiples of 4; scale the clips" if height % 4 or width % 4 else None


# To add a model, add a line here, a class of settings above, and a file with the network.
MODELS: dict[str, type[PoseModelConfig] | type[PushingModelConfig]] = {
    "reference_cvae": ReferenceCVAEConfig,
    "lab_cvae": LabCVAEConfig,
    "conv_svg": ConvSVGConfig,
    "svg": SVGConfig,
}


def models_of(system: str) -> list[str]:
    """Returns the names of a system's models."""
    return [name for name, kind in MODELS.items() if kind.system == system]


def _by_name(value: Any) -> Any:
    """Returns the settings as the class of the model that `name` names; ValueError for an unknown model."""
    if isinstance(value, Section):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"model = {value!r}; needed: a section with the model's name and settings")
    name = value.get("name")
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(f"model.name must be one of {', '.join(sorted(MODELS))}; found {name!r}")
    return MODELS[name].model_validate(value)


ModelConfig = Annotated[SerializeAsAny[PoseModelConfig | PushingModelConfig], BeforeValidator(_by_name)]
