"""scores.json of a model of dancers."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from src.evaluation.scores import RolloutScores, Scores, Shown


class DanceRolloutScores(RolloutScores):
    """A rollout of a whole take; null where the take is too short to have the frame."""

    mean_psnr: Annotated[
        float, Shown("mean PSNR"), Field(description="mean PSNR of all predicted frames, in dB, scored or not")
    ]
    psnr_1_to_10: Annotated[
        float | None, Shown("PSNR 1-10"), Field(description="mean PSNR of frames 1 to 10, in dB")
    ] = None
    psnr_100: Annotated[float | None, Shown("PSNR 100"), Field(description="PSNR of frame 100, in dB")] = None
    psnr_300: Annotated[float | None, Shown("PSNR 300"), Field(description="PSNR of frame 300, in dB")] = None
    psnr_600: Annotated[float | None, Shown("PSNR 600"), Field(description="PSNR of frame 600, in dB")] = None


class DanceScores(Scores, DanceRolloutScores):
    """What an evaluation of a model of dancers finds.

    `score_prior_mean`, `score_single` and `score_mean_of_samples` compare latents and nothing else: they are without
    mirror images and shifts.
    """

    system: Literal["dance"] = "dance"
    posterior_minus_prior_db: Annotated[
        float,
        Shown("posterior minus prior (dB)", sign="+"),
        Field(description="score with latents that have seen the true frames, minus score; a leak above 1 dB"),
    ]
    held_out_score: Annotated[
        float | None, Shown("held out (dB)"), Field(description="score on the takes held out of training")
    ] = None
    drift_db: Annotated[
        float | None,
        Shown("drift (dB)", sign="+"),
        Field(description="PSNR of frames 500 to 600 drawn first in a fresh rollout, minus theirs in the full one"),
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
        Field(description="PSNR between two samples of one sequence; the lower, the more they differ"),
    ]
    psnr_between_samples_vague: Annotated[
        float,
        Shown("of vague poses (dB)"),
        Field(description="the same in the tenth of the frames whose pose images are emptiest"),
    ]
    posterior_latent: Annotated[
        DanceRolloutScores, Field(description="the rollout with latents that have seen the true frames")
    ]
    baselines: Annotated[
        Mapping[str, DanceRolloutScores], Field(description="what needs no training, on the same take")
    ]
    rollout_seconds: Annotated[float, Field(description="seconds that the run's own rollout took")]


SCHEMA = DanceScores
