import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from src.maths.losses import (
    bound_log_variance,
    elbo_consistent_kl_weight,
    kl_between,
    kl_to_standard_normal,
    log_mse_per_frame,
    mse_per_frame,
    reparameterise,
)

LATENT = (3, 2, 4, 5, 7)  # B, T, C, H, W
CLIP = (2, 3, 3, 4, 6)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distribution(mean: torch.Tensor, log_variance: torch.Tensor) -> Independent:
    return Independent(Normal(mean, torch.exp(0.5 * log_variance)), mean.ndim - 1)


def test_kl_to_standard_normal_by_hand():
    # per element (mean, log variance): (0, 0) -> 0; (2, 0) -> 4/2; (0, ln 4) -> (4 - 1 - ln 4)/2
    mean = torch.tensor([[0.0, 2.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0, math.log(4)]])
    expected = torch.tensor([2 + 0.5 * (3 - math.log(4))])
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)


def test_kl_between_by_hand():
    # KL(N(1, 1) || N(3, 4)) = (ln 4 + (1 + 4)/4 - 1)/2
    numbers = [torch.tensor([[value]]) for value in (1.0, 0.0, 3.0, math.log(4))]
    torch.testing.assert_close(kl_between(*numbers), torch.tensor([0.5 * (math.log(4) + 0.25)]))


def test_kl_agrees_with_torch_distributions():
    mean_q, log_variance_q, mean_p, log_variance_p = (random(*LATENT, seed=seed) for seed in range(4))
    standard = distribution(torch.zeros(LATENT), torch.zeros(LATENT))
    q = distribution(mean_q, log_variance_q)
    p = distribution(mean_p, log_variance_p)
    torch.testing.assert_close(kl_to_standard_normal(mean_q, log_variance_q), kl_divergence(q, standard))
    torch.testing.assert_close(kl_between(mean_q, log_variance_q, mean_p, log_variance_p), kl_divergence(q, p))


numbers = st.floats(-6, 6, width=32)


@given(mean=numbers, log_variance=numbers, shift=numbers)
def test_kl_is_nonnegative_zero_for_equal_distributions_and_independent_of_the_origin(
    mean: float, log_variance: float, shift: float
):
    m, v, zero = torch.tensor([[mean]]), torch.tensor([[log_variance]]), torch.zeros(1, 1)
    assert kl_to_standard_normal(m, v) >= 0
    assert kl_between(m, v, m, v) == 0
    torch.testing.assert_close(kl_between(m, v, zero, zero), kl_to_standard_normal(m, v))
    torch.testing.assert_close(
        kl_between(m + shift, v, zero + shift, zero), kl_between(m, v, zero, zero), atol=1e-4, rtol=1e-4
    )


def test_kl_is_a_sum_over_everything_but_the_clips():
    mean, log_variance = random(*LATENT), random(*LATENT, seed=1)
    clips = [kl_to_standard_normal(mean[b : b + 1], log_variance[b : b + 1]) for b in range(LATENT[0])]
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), torch.cat(clips))
    halves = [kl_to_standard_normal(mean[..., part], log_variance[..., part]) for part in (slice(3), slice(3, None))]
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), sum(halves))


def test_gradients_are_those_of_finite_differences():
    q = [random(2, 5, seed=seed, dtype=torch.float64).requires_grad_() for seed in range(4)]
    clips = [random(1, 2, 3, 2, 4, seed=seed, dtype=torch.float64).requires_grad_() for seed in range(2)]
    noise = random(2, 5, seed=9, dtype=torch.float64)
    assert torch.autograd.gradcheck(kl_between, q)
    assert torch.autograd.gradcheck(kl_to_standard_normal, q[:2])
    assert torch.autograd.gradcheck(lambda a, b: log_mse_per_frame(a, b, 1e-4), clips)
    assert torch.autograd.gradcheck(lambda m, v: reparameterise(m, v, noise), q[:2])
    assert torch.autograd.gradcheck(lambda raw: bound_log_variance(10 * raw, -6, 2), q[:1])


def test_mse_is_a_mean_over_the_frame_by_hand():
    target = torch.zeros(CLIP)
    prediction = torch.zeros(CLIP)
    prediction[0, 1, 0, 0, 0] = 0.6  # one of 72 values is wrong
    prediction[1, 2] = 0.1
    expected = torch.zeros(2, 3)
    expected[0, 1] = 0.36 / 72
    expected[1, 2] = 0.01
    torch.testing.assert_close(mse_per_frame(prediction, target), expected)


def test_log_mse_is_psnr_in_other_units():
    prediction = torch.full(CLIP, 0.5)
    target = torch.full(CLIP, 0.6)  # MSE 0.01: 20 dB
    torch.testing.assert_close(log_mse_per_frame(prediction, target, 0.0), torch.full((2, 3), -20 * math.log(10) / 10))
    torch.testing.assert_close(log_mse_per_frame(target, target, 1e-5), torch.full((2, 3), math.log(1e-5)))


def test_log_mse_with_the_best_variance_is_the_gaussian_likelihood():
    """The lowest -log N(target; prediction, sigma^2) over all sigma is D/2 (log MSE + 1 + log 2 pi)."""
    prediction, target = random(1, 1, 3, 4, 6).sigmoid(), random(1, 1, 3, 4, 6, seed=1).sigmoid()
    scales = torch.linspace(0.01, 1, 2000)
    lowest = min(-Normal(prediction, scale).log_prob(target).sum().item() for scale in scales)
    half = 72 / 2
    analytic = half * (log_mse_per_frame(prediction, target, 0.0).item() + 1 + math.log(2 * math.pi))
    assert lowest == pytest.approx(analytic, abs=1e-3)


def test_clips_of_another_shape_are_refused_rather_than_broadcast():
    with pytest.raises(AssertionError):
        mse_per_frame(torch.zeros(CLIP), torch.zeros(CLIP[1:]))
    with pytest.raises(AssertionError):
        reparameterise(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))


def test_reparameterise_by_hand_and_by_its_moments():
    sample = reparameterise(torch.tensor([1.0]), torch.tensor([math.log(9)]), torch.tensor([-2.0]))
    torch.testing.assert_close(sample, torch.tensor([1 - 3 * 2.0]))
    many = reparameterise(torch.full((100_000,), 1.0), torch.full((100_000,), math.log(9)), random(100_000))
    assert many.mean().item() == pytest.approx(1, abs=0.05)
    assert many.var().item() == pytest.approx(9, abs=0.15)


@given(raw=st.floats(-1e30, 1e30), low=st.floats(-20, -1), span=st.floats(1, 30))
def test_bound_log_variance_stays_between_its_bounds(raw: float, low: float, span: float):
    bounded = bound_log_variance(torch.tensor(raw, dtype=torch.float64), low, low + span).item()
    assert low <= bounded <= low + span + math.exp(-span) + 1e-12


def test_bound_log_variance_is_monotonic_almost_the_identity_inside_and_has_a_gradient_outside():
    raw = torch.linspace(-40, 40, 801, requires_grad=True)
    bounded = bound_log_variance(raw, -12.0, 6.0)
    assert (bounded.diff() >= 0).all()
    inside = (raw > -8) & (raw < 2)
    torch.testing.assert_close(bounded[inside], raw[inside], atol=0.02, rtol=0)
    bounded.sum().backward()
    assert (raw.grad > 0).all()
    assert torch.isfinite(bound_log_variance(torch.tensor([-math.inf, math.inf]), -12.0, 6.0)).all()


def test_everything_is_computed_in_float32_under_autocast():
    mean, log_variance = random(2, 300), random(2, 300, seed=1)
    in_float32 = kl_to_standard_normal(mean.bfloat16().float(), log_variance.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = kl_to_standard_normal(mean.bfloat16(), log_variance.bfloat16())
        error = mse_per_frame(torch.full(CLIP, 0.5).bfloat16(), torch.full(CLIP, 0.51))
        sample = reparameterise(mean.bfloat16(), log_variance.bfloat16(), mean)
        bounded = bound_log_variance(mean.bfloat16(), -5, 5)
    assert under_autocast.dtype == error.dtype == sample.dtype == bounded.dtype == torch.float32
    torch.testing.assert_close(under_autocast, in_float32)
    torch.testing.assert_close(error, torch.full((2, 3), 1e-4))


@pytest.mark.parametrize(
    ("psnr", "num_values", "expected"),
    [(38, 6144, 5.159e-8), (26, 64 * 64 * 3, 4.088e-7), (10 * math.log10(1 / 3072), 6144, 1.0)],
)
def test_elbo_consistent_kl_weight_by_hand(psnr: float, num_values: int, expected: float):
    assert elbo_consistent_kl_weight(10 ** (-psnr / 10), num_values) == pytest.approx(expected, rel=1e-3)


def test_elbo_consistent_kl_weight_makes_the_loss_the_negative_bound():
    """For any frame and latent, MSE + weight * KL and -log p(x|z) + KL differ only by a factor and a constant."""
    variance = 0.02
    losses = []
    bounds = []
    for seed in range(3):
        prediction, target = random(1, 1, 3, 4, 6, seed=seed).sigmoid(), random(1, 1, 3, 4, 6, seed=seed + 7).sigmoid()
        mean, log_variance = random(1, 10, seed=seed), random(1, 10, seed=seed + 7)
        kl = kl_divergence(distribution(mean, log_variance), distribution(torch.zeros(1, 10), torch.zeros(1, 10)))
        weight = elbo_consistent_kl_weight(variance, 72)
        losses.append((mse_per_frame(prediction, target) + weight * kl_to_standard_normal(mean, log_variance)).item())
        bounds.append((-Normal(prediction, math.sqrt(variance)).log_prob(target).sum() + kl).item())
    factor = 72 / (2 * variance)
    assert bounds[1] - bounds[0] == pytest.approx(factor * (losses[1] - losses[0]), rel=1e-4)
    assert bounds[2] - bounds[0] == pytest.approx(factor * (losses[2] - losses[0]), rel=1e-4)


@pytest.mark.parametrize(("variance", "num_values"), [(0.0, 10), (-1.0, 10), (0.1, 0)])
def test_elbo_consistent_kl_weight_refuses_numbers_that_are_not_positive(variance: float, num_values: int):
    with pytest.raises(ValueError, match="positive"):
        elbo_consistent_kl_weight(variance, num_values)


# The numbers in docs/theory.md

THEORY = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
D = 3 * 32 * 64


def table_below(header: str) -> list[list[str]]:
    """Returns the rows of cells of the table in the document that begins with `header`; the header is the first row."""
    lines = THEORY[THEORY.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not re.match(r"\|-", line)]


def per_latent_and_batch(reduction: str) -> float:
    """Returns the number by which the KL of one frame is divided: 1 for "sum", 16 for "mean over 16"."""
    found = re.match(r"mean over ([\d,]+)", reduction)
    return float(found.group(1).replace(",", "")) if found else 1.0


def test_the_table_of_equivalent_weights_follows_from_the_reductions_it_names():
    header, *rows = table_below("| squared error over pixels")
    assert len(rows) == 7
    for error, kl, _, *weights, assumed in rows:
        factor = (1 / D if error.startswith("mean") else 1.0) * per_latent_and_batch(kl)
        if "32 clips" in error:  # the error is a mean over the clips, the KL a sum
            factor /= 32
        for column, weight in zip(header[3:6], weights, strict=True):
            variance = 10 ** (-float(column.removesuffix(" dB")) / 10)
            assert weight == f"{2 * variance * factor:.2e}"
        assert assumed == f"{-10 * math.log10(1 / (2 * factor)):.1f} dB"
    smallest, largest = (min(float(row[5]) for row in rows), max(float(row[5]) for row in rows))
    assert 9 <= math.log10(largest / smallest) < 10  # "nine orders of magnitude"


def test_the_table_s_first_row_is_the_function_this_project_uses():
    header, first, *_ = table_below("| squared error over pixels")
    for column, weight in zip(header[3:6], first[3:6], strict=True):
        variance = 10 ** (-float(column.removesuffix(" dB")) / 10)
        assert weight == f"{elbo_consistent_kl_weight(variance, D):.2e}"


def test_the_weights_of_pushing_are_those_of_its_frames():
    header, row = table_below("| MSE of 64 x 64 frames")
    for column, weight in zip(header[1:], row[1:], strict=True):
        variance = 10 ** (-float(column.removesuffix(" dB")) / 10)
        assert weight == f"{elbo_consistent_kl_weight(variance, 3 * 64 * 64):.2e}"


def test_the_sampling_tax_is_the_loss_of_calibrated_samples():
    samples, taxes = table_below("| samples K")
    truth, drawn = random(100_000), random(32, 100_000, seed=1)
    for count, tax in zip(map(int, samples[1:]), taxes[1:], strict=True):
        assert tax == f"{10 * math.log10(1 + 1 / count):.2f}"
        paid = 10 * math.log10((drawn[:count].mean(0) - truth).square().mean() / truth.square().mean())
        assert paid == pytest.approx(float(tax), abs=0.05)


@pytest.mark.parametrize(
    "text",
    [
        f"D / 2 = {D // 2:,}".replace(",", "{,}"),
        f"$D = 3 \\cdot 32 \\cdot 64 = {D:,}$".replace(",", "{,}"),
        f"for 64 x 64 frames at 26 dB it is {2 * 10**-2.6 / (3 * 64 * 64):.2e}",
        f"$2/D$ = {2 / D:.2e}",
        f"$D \\ln 10 / 20$ = {D * math.log(10) / 20:.1f} nats",
        f"is worth {18 * D * math.log(10) / 20:,.0f} nats",
        f"Spread over {12 * 32 * 64:,} latents this is {18 * D * math.log(10) / 20 / (12 * 32 * 64):.2f} nats",
        f"be {18 * D * math.log(10) / 20 / 16:.0f} nats each",
        f"$10 \\log_{{10}} 2$ = {10 * math.log10(2):.2f} dB",
        f"$D = 3 \\cdot 64 \\cdot 64 = {2 * D:,}$".replace(",", "{,}"),
        f"$2/D$ = {2 / (2 * D):.2e} at every quality, and 1 dB of one frame is worth {D * math.log(10) / 10:,.1f} nats",
        f"assumes $\\sigma^2$ = {1e-4 * D:.2f}, a quality of {-10 * math.log10(1e-4 * D):.1f} dB",
        f"it is {1e-4 / (10**-2.6 / D):.0f} times the consistent weight at 26 dB",
        f"pays for no more than {10**-2.6 / 2 / 1e-4:.1f} nats",
    ],
)
def test_numbers_in_the_text_are_those_of_their_formulas(text: str):
    assert text in " ".join(THEORY.split())
