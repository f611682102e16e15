"""Adaptation of features in place of pixels: DANN (Ganin et al. 2016), with batch norm of each domain its own."""

from __future__ import annotations

import math

import torch
from torch import nn

from sim2real.adapt import losses
from sim2real.adapt.batches import Batches
from sim2real.adapt.domains import Domain
from sim2real.adapt.networks import Classifier, set_domain
from sim2real.errors import AdaptationError

DOMAIN_WIDTH = 100  # of the domain classifier's hidden layer, as published


def train_classifier(
    source: Domain,
    target: Domain | None,
    steps: int,
    width: int = 32,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    confusion: float = 0.1,
    seed: int = 0,
) -> Classifier:
    """A classifier of the source's labels whose features do not tell the domain.

    Args:
        source: With labels.
        target: Without; None trains on the source alone.
        steps: Optimizer steps; the rate falls to 0 over them.
        width: Of the classifier.
        batch_size: Images of each domain a step.
        learning_rate: Adam's.
        confusion: Weight of ``losses.domain_confusion`` at the end; grows as published, 2 / (1 + exp(-10 p)) - 1.
        seed: Of weights and batches.

    Returns:
        The classifier, in evaluation mode; target images are its domain 1 where there is a target.

    Raises:
        AdaptationError: The loss became not finite.
    """
    assert source.labels is not None
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    network = Classifier(int(source.labels.max()) + 1, width, domains=1 if target is None else 2)
    tell = nn.Sequential(nn.Linear(4 * width, DOMAIN_WIDTH), nn.ReLU(), nn.Linear(DOMAIN_WIDTH, 1))
    optimizer = torch.optim.Adam([*network.parameters(), *tell.parameters()], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    labelled = Batches(source, batch_size, random)
    unlabelled = None if target is None else Batches(target, batch_size, random)
    for step in range(steps):
        batch = labelled.sample()
        set_domain(network, 0)
        features = network.features(batch["images"])
        loss = losses.classification(network.out(features), batch["labels"])
        if unlabelled is not None:
            set_domain(network, 1)
            weight = confusion * (2.0 / (1.0 + math.exp(-10.0 * step / steps)) - 1.0)
            both = torch.cat((features, network.features(unlabelled.sample()["images"])))
            scores = tell(losses.reverse_gradient(both, weight))[:, 0]
            loss = loss + losses.domain_confusion(scores[:batch_size], scores[batch_size:])
        if not bool(torch.isfinite(loss)):
            raise AdaptationError(f"the loss is not finite at step {step}; lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
