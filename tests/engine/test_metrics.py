"""Loss and accuracy against values computed by hand."""

import math

import pytest
import torch

from engine.metrics import Metrics, chance, interval, label_rank, loss_over_heads, mean_softmax


def test_the_place_of_the_label() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
    assert label_rank(scores, torch.tensor([1, 2, 0])).tolist() == [0, 1, 2]


def test_of_equal_scores_the_lower_class_is_first() -> None:
    """A network that says nothing is right for class 0 alone, not for all."""
    scores = torch.full((4, 4), 0.25)
    assert label_rank(scores, torch.arange(4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_never_a_hit(value: float) -> None:
    scores = torch.tensor([[0.1, value, 0.2]])
    assert [label_rank(scores, torch.tensor([label])).item() for label in range(3)] == [3, 3, 3]


def test_loss_and_prediction_of_two_heads() -> None:
    logits = (torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[math.log(4.0), 0.0]]))
    label = torch.tensor([1])
    assert loss_over_heads(logits, label).item() == pytest.approx(-math.log(0.75) - math.log(0.2))
    assert loss_over_heads(logits, label, reduction="none").shape == (1,)
    assert mean_softmax(logits)[0].tolist() == pytest.approx([(0.25 + 0.8) / 2, (0.75 + 0.2) / 2])


def test_a_loss_of_probabilities_is_their_mean_of_losses() -> None:
    logits = [torch.randn(2, 4), torch.randn(2, 4)]
    targets = torch.tensor([[0.25, 0.75, 0, 0], [0, 0, 1, 0]])
    one, two = (loss_over_heads(logits, torch.tensor(labels), reduction="none") for labels in ([0, 2], [1, 2]))
    torch.testing.assert_close(loss_over_heads(logits, targets, reduction="none"), 0.25 * one + 0.75 * two)


def test_metrics_and_their_line() -> None:
    metrics = Metrics.of(torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([0, 2, 4, 5]))
    assert metrics == Metrics(videos=4, loss=3.0, top1=25.0, top3=50.0, top5=75.0)
    assert metrics.line() == "top-1 25.00 (4.6 to 69.9)  top-3 50.00 (15.0 to 85.0)  top-5 75.00 (30.1 to 95.4)"


def test_intervals_of_few_videos() -> None:
    low, high = interval(27, 46)
    assert (low, high) == pytest.approx((44.3, 71.7), abs=0.05)  # Wilson's, as statistics packages give it
    assert interval(0, 10)[0] == 0
    assert interval(10, 10)[1] == pytest.approx(100)
    assert interval(0, 0) == (0, 100)


def test_chance_is_what_a_network_without_preference_gets() -> None:
    logits = [torch.zeros(1, 8)] * 2
    loss = loss_over_heads(logits, torch.tensor([3])).item() / len(logits)
    assert chance(8) == f"chance: loss {loss:.2f}, accuracy 12.5 %"
