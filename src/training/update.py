"""One update of the weights from one batch. On a GPU it is recorded once and replayed as a CUDA graph."""

from typing import Any

import torch
from torch import Tensor, nn

from src.base import distributed
from src.base.bfloat16 import autocast
from src.base.cuda_graphs import Recording
from src.base.randomness import Draws
from src.config import TrainingConfig
from src.training.guard import gradient_scaler, guarded_step

LOSSES = ("total", "reconstruction", "kl")
EAGER_UPDATES = 3  # before the first recording: libraries choose their kernels, and the optimiser gets its state


class Update:
    """Loss, gradient and optimiser step. The step changes nothing if the gradient is not finite."""

    def __init__(
        self,
        network: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainingConfig,
        device: torch.device,
    ) -> None:
        """network: computes the loss; the model itself, or a wrapper of it that averages gradients of processes."""
        self.network = network
        self.model = model
        self.optimizer = optimizer
        self.settings = settings
        self.device = device
        self.scaler = gradient_scaler(device, settings.precision)

    def __call__(
        self,
        batch: Any,
        draws: Any,
        *,
        learning_rate: float | Tensor,
        kl_weight: float | Tensor,
        teacher_forcing_ratio: float,
    ) -> Tensor:
        """Returns the losses, named in `LOSSES`, and 1 if the update was skipped: (4,) float64; losses are then 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with autocast(self.device, self.settings.precision):
            loss = self.network(batch, draws, kl_weight=kl_weight, teacher_forcing_ratio=teacher_forcing_ratio)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss.total).backward()
        skipped = guarded_step(self.model, self.optimizer, self.scaler, largest_norm=self.settings.gradient_clip)
        losses = torch.stack([getattr(loss, name).detach().double() for name in LOSSES])
        return torch.cat([torch.where(skipped.bool(), 0.0, losses), skipped.double()[None]])

    def records(self) -> bool:
        """Returns whether updates here can be recorded: on one GPU, and not with compiled blocks."""
        is_alone = self.device.type == "cuda" and distributed.world_size() == 1
        return is_alone and self.settings.cuda_graph and not self.settings.compile


class KeptDraws:
    """Random numbers that a training step asks for, kept by their request, so that they can be given again."""

    def __init__(self, draws: Draws, kept: dict[tuple[Any, ...], Tensor] | None = None) -> None:
        self.draws = draws
        self.kept = {} if kept is None else kept

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """As `Draws.normal`."""
        return self._keep("normal", purpose, shape)

    def uniform(self, purpose: str, count: int = 1) -> Tensor:
        """As `Draws.uniform`."""
        return self._keep("uniform", purpose, count)

    def shared_uniform(self, purpose: str, count: int) -> Tensor:
        """As `Draws.shared_uniform`: on the CPU, so not kept."""
        return self.draws.shared_uniform(purpose, count)

    def _keep(self, *request: Any) -> Tensor:
        if request not in self.kept:
            kind, purpose, size = request
            self.kept[request] = getattr(self.draws, kind)(purpose, size)
        return self.kept[request]


class RecordedUpdate:
    """The same update as a CUDA graph, one for each teacher forcing ratio of 0 or 1.

    With a ratio between them, the way through the network changes from step to step. Such an update is not recorded.
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self.num_eager = 0
        self.requests: tuple[tuple[Any, ...], ...] = ()  # for random numbers
        self.recordings: dict[float, Recording] = {}

    def __call__(
        self, batch: Any, draws: Draws, *, learning_rate: float, kl_weight: float, teacher_forcing_ratio: float
    ) -> Tensor:
        """As `Update`."""
        if self.num_eager < EAGER_UPDATES or teacher_forcing_ratio not in (0, 1):
            self.num_eager += 1
            kept = KeptDraws(draws)
            weights = {"kl_weight": kl_weight, "teacher_forcing_ratio": teacher_forcing_ratio}
            result = self.update(batch, kept, learning_rate=learning_rate, **weights)
            self.requests = tuple(kept.kept)
            return result
        numbers = [getattr(draws, kind)(purpose, size) for kind, purpose, size in self.requests]
        scalars = [torch.full((), value, device=self.update.device) for value in (learning_rate, kl_weight)]
        inputs = (tuple(vars(batch).values()), numbers, scalars)
        if teacher_forcing_ratio in self.recordings:
            return self.recordings[teacher_forcing_ratio](*inputs)
        recording = self.recordings[teacher_forcing_ratio] = self._record(
            type(batch), draws, teacher_forcing_ratio, inputs
        )
        return recording.first

    def _record(self, kind_of_batch: Any, draws: Draws, ratio: float, inputs: tuple[Any, ...]) -> Recording:
        """Takes an update and records it. The optimiser's settings are then as before, because last.pt keeps them."""

        def work(parts: tuple[Tensor, ...], numbers: list[Tensor], scalars: list[Tensor]) -> Tensor:
            kept = KeptDraws(draws, dict(zip(self.requests, numbers, strict=True)))
            learning_rate, kl_weight = scalars
            return self.update(
                kind_of_batch(*parts),
                kept,
                learning_rate=learning_rate,
                kl_weight=kl_weight,
                teacher_forcing_ratio=ratio,
            )

        groups = self.update.optimizer.param_groups
        for group in groups:
            group["capturable"] = True
        try:
            return Recording(work, *inputs)
        finally:
            for group in groups:
                group |= {"capturable": False, "lr": 0.0}
