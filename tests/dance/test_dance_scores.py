"""The scores of a dance rollout, compared with values computed by hand. Infinity is valid in their JSON."""

import json
import math

import numpy as np
import pytest
import torch

from src.dance.schema import DanceRolloutScores
from src.dance.scores import rollout_scores


def test_rollout_scores_by_hand():
    psnr = torch.arange(630, dtype=torch.float64)
    psnr[0] = math.inf
    scores = rollout_scores(psnr, torch.linspace(1, 0, 630))
    assert scores.score == pytest.approx(300.5)
    assert scores.mean_psnr == pytest.approx(315)
    assert scores.psnr_1_to_10 == 5.5
    assert (scores.psnr_100, scores.psnr_300, scores.psnr_600) == (100, 300, 600)
    assert scores.mean_ssim == pytest.approx(np.linspace(1, 0, 630)[1:].mean())


def test_scores_of_a_short_and_perfect_rollout_fit_json():
    scores = rollout_scores(torch.full((12,), math.inf), torch.ones(12))
    text = scores.model_dump_json()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "score": "Infinity",
        "mean_psnr": "Infinity",
        "mean_ssim": 1.0,
        "psnr_1_to_10": "Infinity",
        "psnr_100": None,
        "psnr_300": None,
        "psnr_600": None,
    }
    assert DanceRolloutScores.model_validate_json(text) == scores
