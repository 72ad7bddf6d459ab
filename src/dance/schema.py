"""The content of scores.json for a dance model."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from src.evaluation.scores import RolloutScores, Scores, Shown


class DanceRolloutScores(RolloutScores):
    """The scores of a rollout of a whole take. A value is null if the take is too short for its frames."""

    mean_psnr: Annotated[
        float,
        Shown("mean PSNR"),
        Field(description="mean PSNR of all predicted frames, including those not scored, in dB"),
    ]
    psnr_1_to_10: Annotated[
        float | None, Shown("PSNR 1-10"), Field(description="mean PSNR of frames 1 to 10, in dB")
    ] = None
    psnr_100: Annotated[float | None, Shown("PSNR 100"), Field(description="PSNR of frame 100, in dB")] = None
    psnr_300: Annotated[float | None, Shown("PSNR 300"), Field(description="PSNR of frame 300, in dB")] = None
    psnr_600: Annotated[float | None, Shown("PSNR 600"), Field(description="PSNR of frame 600, in dB")] = None


class DanceScores(Scores, DanceRolloutScores):
    """The results of evaluating a dance model.

    `score_prior_mean`, `score_single` and `score_mean_of_samples` differ only in their latents. They use no mirror
    images and no shifts.
    """

    system: Literal["dance"] = "dance"
    posterior_minus_prior_db: Annotated[
        float,
        Shown("posterior minus prior (dB)", sign="+"),
        Field(description="score with latents that have seen the true frames, minus score; above 1 dB it is a leak"),
    ]
    held_out_score: Annotated[
        float | None, Shown("held out (dB)"), Field(description="score on the takes held out of training")
    ] = None
    drift_db: Annotated[
        float | None,
        Shown("drift (dB)", sign="+"),
        Field(
            description="PSNR of the last 101 scored frames at the start of a new rollout, minus that in the full one"
        ),
    ] = None
    score_prior_mean: Annotated[
        float, Shown("prior's mean (dB)"), Field(description="score with the mean of the prior as latent")
    ]
    score_single: Annotated[float, Shown("one sample (dB)"), Field(description="score of one sample of the prior")]
    score_mean_of_samples: Annotated[
        float, Shown("mean of samples (dB)"), Field(description="score of the mean picture of several samples")
    ]
    psnr_between_samples: Annotated[
        float,
        Shown("between samples (dB)"),
        Field(description="PSNR between two samples of one sequence; it is lower if they differ more"),
    ]
    psnr_between_samples_vague: Annotated[
        float,
        Shown("of vague poses (dB)"),
        Field(description="the same, over the 10 % of the frames with the emptiest pose images"),
    ]
    posterior_latent: Annotated[
        DanceRolloutScores, Field(description="the rollout with latents that have seen the true frames")
    ]
    baselines: Annotated[
        Mapping[str, DanceRolloutScores],
        Field(description="predictions that need no training, on the same take", min_length=1),
    ]
    rollout_seconds: Annotated[float, Field(description="seconds for the rollout with the run's settings")]


SCHEMA = DanceScores
