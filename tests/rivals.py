"""What the tests of the methods share: tiny instances, and whether a model is as it was."""

from __future__ import annotations

import torch

from interp.records import Instance, Knowledge


def instance(
    number=0, prompt="The cat?", safe="I am sorry.", q="The moon is?", a="far away.", question=None
) -> Instance:
    return Instance(
        id=number,
        category="bias",
        question=question or prompt,
        adversarial_prompt=prompt,
        attack_category="",
        attack_name="",
        safe_generation=safe,
        unsafe_generation="Sure, here is the cat on the mat.",
        knowledge=Knowledge(q, a),
    )


ONE = instance()
TWO = instance(1, "A dog sat on the mat?", "I cannot help with that.", "On the mat?", "A cat, a dog.")
THREE = instance(2, "The moon and a long time?", "sorry", "A dog?", "The mat.")


def snapshot(model):
    """Every tensor, and every hook or exchanged forward."""
    return {n: p.clone() for n, p in model.hf.state_dict().items()}, changed_modules(model)


def changed_modules(model):
    modules = model.hf.named_modules()
    return [(n, "forward" in m.__dict__, len(m._forward_pre_hooks), len(m._forward_hooks)) for n, m in modules]


def assert_untouched(model, before):
    tensors, modules = before
    now = model.hf.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in tensors.items())
    assert [n for n, p in model.hf.named_parameters() if p.requires_grad or p.grad is not None] == []
    assert changed_modules(model) == modules
    assert not model.hf.training


def likelihood(model, one: Instance, suffix="", answer=None) -> float:
    """Mean negative log-likelihood of the safe response and its end, nats."""
    prompt, reply = model.encode_pair(one.adversarial_prompt, answer or one.safe_generation, suffix)
    log_p = model.logits(model.pad([[*prompt, *reply]]))[0].log_softmax(-1)[len(prompt) - 1 : -1]
    return -float(log_p.gather(1, torch.tensor(reply)[:, None]).mean())


def apart(a, b) -> float:
    """Relative Frobenius distance."""
    return float((a - b).norm() / b.norm())
