"""scores.json of a model of robot pushing."""

from typing import Annotated, Literal

from pydantic import Field

from src.evaluation.scores import Scores, Shown


class PushingScores(Scores):
    """What an evaluation of a model of robot pushing finds.

    PSNR is per frame and colour channel in [0, 1], averaged over channels, predicted frames and clips.
    """

    system: Literal["pushing"] = "pushing"
    score_prior_mean: Annotated[
        float, Shown("prior's mean (dB)"), Field(description="score with the mean of the prior as latent")
    ]
    score_single: Annotated[float, Shown("one sample (dB)"), Field(description="score of one sample of the prior")]
    score_best_of_n: Annotated[
        float,
        Shown("best of n (dB)"),
        Field(description="score of the best of several samples of each clip, chosen with the truth"),
    ]
    score_shuffled_actions: Annotated[
        float,
        Shown("others' actions (dB)"),
        Field(description="score with the mean of the prior and the actions of other clips"),
    ]
    score_shuffled_conditions: Annotated[
        float,
        Shown("others' conditions (dB)"),
        Field(description="score with the mean of the prior and the actions and positions of other clips"),
    ]
    num_clips: Annotated[int, Field(description="test clips, each from its first frame on")]
    psnr_by_protocol: Annotated[
        dict[str, list[float]],
        Field(description="PSNR in dB of each predicted frame, mean over the clips, by the names of the scores above"),
    ]
    ssim_by_frame: Annotated[list[float], Field(description="structural similarity of each predicted frame")]


SCHEMA = PushingScores
