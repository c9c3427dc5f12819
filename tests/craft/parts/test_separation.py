"""Class separation: its gradient is autograd's, with the spreads as constants."""

import pytest
import torch

from hpcule.craft.parts.separation import of_centres, of_deltas


def slow_ratio(centres, spreads):
    """As it is written down, over ordered pairs."""
    terms = [
        (spreads[k] + spreads[j] + 1e-5) / ((centres[k] - centres[j]).norm() + 1e-5)
        for k in range(len(centres))
        for j in range(len(centres))
        if k != j
    ]
    return torch.stack(terms).mean()


def grouped(count=20, classes=4):
    """Deltas [n, 12], labels, centres and spreads that hang on the deltas."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.rand(count, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(count) % classes
    centres = torch.stack([delta[labels == k].mean(0) for k in range(classes)])
    spreads = torch.stack([(delta[labels == k] - centres[k]).norm(dim=1).mean() for k in range(classes)])
    return delta, labels, centres, spreads


def test_the_centres_gradient_is_autograds():
    _, labels, centres, spreads = grouped()
    leaf = centres.detach().requires_grad_()
    expected = slow_ratio(leaf, spreads.detach())
    expected.backward()
    gradient, ratio = of_centres(centres.detach(), spreads.detach(), labels.bincount())
    assert ratio == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(gradient, leaf.grad)


def test_no_gradient_flows_through_the_spreads():
    delta, labels, centres, spreads = grouped(23)  # classes of five and six
    (constant,) = torch.autograd.grad(slow_ratio(centres, spreads.detach()), delta, retain_graph=True)
    (through,) = torch.autograd.grad(slow_ratio(centres, spreads), delta)
    found = of_deltas(delta.detach().view(23, 3, 2, 2), labels).flatten(1).double()
    torch.testing.assert_close(found, constant, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(found, through, rtol=0.1)
    assert (found[0] == found[4]).all(), "alike for all samples of a class"


def test_classes_are_known_by_any_number_and_may_be_absent():
    delta, labels, centres, spreads = grouped()
    images = delta.detach().view(20, 3, 2, 2)
    torch.testing.assert_close(of_deltas(images, labels * 5 + 2), of_deltas(images, labels))
    whole, ratio = of_centres(centres.detach(), spreads.detach(), labels.bincount())
    wider = torch.cat([centres, torch.zeros_like(centres[:1])]).detach()
    counts = torch.cat([labels.bincount(), torch.zeros(1, dtype=torch.long)])
    gradient, same = of_centres(wider, torch.cat([spreads, torch.zeros(1)]).detach(), counts)
    torch.testing.assert_close(gradient[:4], whole)
    assert (gradient[4] == 0).all()
    assert same == pytest.approx(ratio)


def test_nothing_pushes_a_single_class_or_centres_that_coincide():
    delta = torch.rand(4, 3, 2, 2)
    assert (of_deltas(delta, torch.zeros(4, dtype=torch.long)) == 0).all()
    assert (of_deltas(torch.zeros(4, 3, 2, 2), torch.tensor([0, 0, 1, 1])) == 0).all()
