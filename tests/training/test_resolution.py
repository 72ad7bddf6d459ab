"""Open settings get their values from the data set. Settings that do not fit it are refused with one line."""

import pytest

from src.base.console import UserError
from src.config import Config, from_json, parse_config, to_json
from src.intake.facts import DataFacts
from src.models.configs import MODELS
from src.models.interface import build_model
from src.training.resolution import bound_weight, left_unmirrored, resolved
from tests.conftest import PUSHING_MODELS

OTHER_COLOURS = "the pose images have other colours"


def facts(height: int = 32, width: int = 64, cannot_mirror: str | None = None) -> DataFacts:
    return DataFacts({"height": height, "width": width}, cannot_mirror, is_notable=True)


@pytest.mark.parametrize(
    ("size", "weight"),
    [((32, 64), 3.255e-4), ((64, 64), 1.628e-4), ((64, 128), 8.138e-5), ((8, 16), 5.208e-3)],
)
def test_the_weight_of_the_bound_is_two_over_the_number_of_values(size: tuple[int, int], weight: float) -> None:
    assert bound_weight(*size) == weight  # for these frame sizes, earlier versions had exactly these constants
    assert bound_weight(*size) == pytest.approx(2 / (3 * size[0] * size[1]), rel=5e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("reason", [None, OTHER_COLOURS])
def test_what_is_left_open_is_decided_once(model: str, reason: str | None) -> None:
    config = parse_config({"model": {"name": model}, "training": {"window": 4}}, "test")
    known = facts(64, 64, reason)
    found = resolved(config, known)
    assert (found.kl_weight.stop, found.augmentation.mirror, found.evaluation.mirror) == (
        1.628e-4,
        reason is None,
        reason is None,
    )
    assert resolved(found, known) == found != config
    if model not in PUSHING_MODELS or reason:
        assert from_json(to_json(found), "test") == found
    assert left_unmirrored(config, known) == reason
    assert left_unmirrored(found, known) is None


def test_what_is_set_stays() -> None:
    table = {"kl_weight": {"stop": 0.5}, "augmentation": {"mirror": False}, "evaluation": {"mirror": False}}
    config = parse_config(table, "test")
    assert resolved(config, facts()) == config
    assert resolved(config, facts(cannot_mirror=OTHER_COLOURS)) == config


@pytest.mark.parametrize(
    ("table", "known", "message"),
    [
        (
            {"augmentation": {"mirror": True}},
            facts(cannot_mirror=OTHER_COLOURS),
            f"augmentation.mirror = true: {OTHER_COLOURS}; set it to false, or leave it out",
        ),
        ({"evaluation": {"mirror": True}}, facts(cannot_mirror=OTHER_COLOURS), "evaluation.mirror = true: "),
        (
            {"augmentation": {"shift_y": 16}},
            facts(16, 40),
            "augmentation.shift_y = 16, but frames have 16 x 40 pixels; needed: less than 16",
        ),
        ({"augmentation": {"shift_x": 40}}, facts(16, 40), "augmentation.shift_x = 40, .* less than 40"),
        ({"evaluation": {"shift": 32}}, facts(), "evaluation.shift = 32, .* less than 32"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(table: dict[str, object], known: DataFacts, message: str) -> None:
    config = parse_config(table, "test")
    with pytest.raises(UserError, match=message):
        resolved(config, known)


def test_shifts_below_the_size_are_taken() -> None:
    table = {"augmentation": {"shift_x": 39, "shift_y": 15}, "evaluation": {"shift": 15}}
    assert resolved(parse_config(table, "test"), facts(16, 40)).augmentation.shift_x == 39


def model_config(name: str, **settings: object) -> Config:
    return parse_config({"model": {"name": name} | settings, "training": {"window": 4}}, "test")


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (
            model_config("reference_cvae"),
            (36, 64),
            r"reference_cvae cannot draw frames of 36 x 64 pixels; needed: multiples of 8, which is patch \* 2\^",
        ),
        (model_config("reference_cvae", num_levels=1), (32, 65), "needed: multiples of 2; set"),
        (model_config("reference_cvae", patch=4, num_levels=2), (32, 68), "needed: multiples of 8"),
        (model_config("svg"), (64, 128), "svg cannot draw frames of 64 x 128 pixels; needed: 64 x 64; .*conv_svg"),
        (model_config("conv_svg"), (62, 64), "conv_svg cannot draw frames of 62 x 64 pixels; needed: multiples of 4"),
    ],
)
def test_a_size_that_a_model_cannot_draw_is_one_line(config: Config, size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_model(config, height=size[0], width=size[1])
    assert "\n" not in str(caught.value)


def test_the_shapes_of_a_model_follow_the_numbers_of_a_robot() -> None:
    for name, first in (("svg", "predictor"), ("conv_svg", "controls")):
        usual = build_model(model_config(name, width=8), height=64, width=64)
        other = build_model(model_config(name, width=8), height=64, width=64, num_action=2, num_position=1)
        same = build_model(model_config(name, width=8), height=64, width=64, num_action=4, num_position=3)
        shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (usual, other, same)]
        assert shapes[0] == shapes[2] != shapes[1]
        assert any(key.startswith(first) for key in shapes[0] if shapes[0][key] != shapes[1][key])
