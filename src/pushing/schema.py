"""scores.json of a model of robot pushing."""

from typing import Annotated, Literal

from pydantic import Field

from src.evaluation.scores import Scores, Shown


class PushingScores(Scores):
    """The results of an evaluation of a robot pushing model.

    The PSNR of each frame and colour channel in [0, 1] is averaged over channels, predicted frames and clips.
    """

    system: Literal["pushing"] = "pushing"
    score_prior_mean: Annotated[
        float, Shown("prior's mean (dB)"), Field(description="score with the mean of the prior as latent")
    ]
    score_single: Annotated[float, Shown("one sample (dB)"), Field(description="score of one sample of the prior")]
    score_best_of_n: Annotated[
        float,
        Shown("best of n (dB)"),
        Field(description="score of the best of several samples for each clip, chosen by comparison with the truth"),
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
    num_clips: Annotated[int, Field(description="number of test clips")]
    psnr_by_protocol: Annotated[
        dict[str, list[float]],
        Field(description="PSNR in dB of each predicted frame, mean over the clips, for each of the scores above"),
    ]
    ssim_by_frame: Annotated[list[float], Field(description="structural similarity of each predicted frame")]


SCHEMA = PushingScores
