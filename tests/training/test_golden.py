"""The first losses are those that are written down, so a version of torch that changes numbers is seen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.golden import RUNS, STEPS, Losses, key, known, losses_here

SAME = 1e-5  # relative; the same torch, instruction set and processor
# On another processor, kernels sum in another order. Between AVX2 and AVX512 the first step differed by less than 1e-5,
# and the small KL term of the tenth step by 0.8 %, because a step multiplies what differs.
FIRST, LATER = 1e-4, 5e-2


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """The losses of this machine."""
    return losses_here(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("run", RUNS)
def test_the_first_losses_are_known(here: Losses, run: str, tell: Callable[[str], None]) -> None:
    table = known()
    assert len(here[run]) == STEPS and {len(losses[run]) for losses in table.values()} == {STEPS}
    if key() not in table:
        tell(f"golden losses: {key()} is new; python -m tests.training.golden writes them down")
    expected = table.get(key(), next(iter(table.values())))[run]
    for step, (found, wanted) in enumerate(zip(here[run], expected, strict=True)):
        tolerance = SAME if key() in table else LATER if step else FIRST
        assert found == pytest.approx(wanted, rel=tolerance, abs=tolerance), f"step {step}"


def test_a_changed_number_is_seen(here: Losses) -> None:
    changed = [value * (1 + 10 * SAME) for value in here["smoke"][0]]
    assert changed != pytest.approx(here["smoke"][0], rel=SAME)


def test_the_file_is_not_empty() -> None:
    assert known() and Path(__file__).with_name("golden_losses.json").exists()
