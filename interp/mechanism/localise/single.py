"""Locators that ask one model which MLP makes it comply under attack: push, ablation, gradient, patching.

Signs. The refusal margin is logit mass of refusing over complying first tokens. The models that are located comply
under attack, so the layer sought is the one that pushes the margin *down*. Every score here is how many nats the margin
would rise without that push: positive where the layer's MLP works for compliance, negative where it works for refusal.
A model that refuses under attack (an edited one) is asked where its refusal is opposed; take the lowest score for where
it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.mechanism.localise.locator import Inputs, Scored
from interp.mechanism.localise.runs import by_batch, margin_above, margins_without, needed, run, writer
from interp.mechanism.margin import MarginTokens, last_margin, read_off
from interp.models import HookedModel, Tokens


def push(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Logit-lens push: the direct contribution of MLP(l) at the last token to the margin, attack minus bare.

    With x the final residual stream and d_l what MLP(l) wrote into it, the score is margin(x - d_l) - margin(x),
    through the final norm and the unembedding, under attack less the same on the bare question. One forward per prompt.
    Finds a layer that writes the decision itself. Blind to a layer that acts through later ones, and to attention.
    """

    def each(attack: Tokens, bare: Tokens | None) -> Tensor:
        under = _direct(model, attack, inputs.tokens)
        return under if bare is None else under - _direct(model, bare, inputs.tokens)

    return by_batch(model, inputs, each)


def mean_ablation(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Margin with MLP(l) replaced by its mean at every prompt position, minus the margin as it is.

    The mean is over all positions of the attack prompts. Layers + 2 forwards, of which only the part above the layer
    runs. Finds direct and indirect effects. Early layers matter for everything (layer 0 makes words of tokens): a high
    score there may be damage.
    """
    means = _means(model, inputs)
    return _ablation(model, inputs, lambda layer: lambda out: means[layer].to(out).expand_as(out))


def mean_ablation_last(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Mean ablation at the last prompt token alone, where the answer begins.

    Leaves the reading of the prompt intact, and so is free of most of the damage that ablation of an early layer does
    everywhere. Blind to what the layer does at earlier positions.
    """
    means = _means(model, inputs)
    return _ablation(model, inputs, lambda layer: lambda out: _last_from(out, means[layer].expand_as(out)))


def zero_ablation(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Margin without MLP(l) at every prompt position, minus the margin as it is.

    Layers + 1 forwards. As mean ablation, but zero is further from anything that the model has met: more damage.
    """
    return _ablation(model, inputs, lambda _: torch.zeros_like)


def gradient_weight(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Gradient x weight: minus <d margin / d W_V(l), W_V(l)>, the first-order effect of taking the matrix away.

    With g_t the gradient at the output of W_V at position t, the product is the sum over t of g_t . (h_t W): no
    gradient of a matrix is formed, and one forward and backward gives all layers of a batch. Where a norm follows the
    MLP (Gemma2) the scale of W_V has no effect, and the product is taken after that norm. Finds what zero ablation
    finds as long as the effect is near linear; says nothing where the margin has saturated.
    """
    writers = [writer(model, layer) for layer in range(model.n_layers)]
    places = [w if w is not model.mlp(i) else model.value_module(i) for i, w in enumerate(writers)]

    def each(attack: Tokens, _bare: Tokens | None) -> Tensor:
        wrote, gradient, _ = graded(model, attack, inputs.tokens, places)
        return -torch.stack([along(g, w, attack) for g, w in zip(gradient, wrote, strict=True)], dim=1)

    return by_batch(model, inputs, each)


def residual_jump(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Causal tracing: the last token's residual stream of the bare question, put into the attack after block l.

    The score of l is what the margin gains over the same patch one block lower. Layers + 1 forwards. Finds the layer
    from which the last token carries the decision, wherever it was made: attention that fetches a decision made earlier
    scores too, and the bare question differs from the attack in more than compliance.
    """

    def each(attack: Tokens, bare: Tokens | None) -> Tensor:
        donor = run(model, needed(bare, "causal tracing"), inputs.tokens)
        clean = run(model, attack, inputs.tokens)
        mixed = [_last_from(ours, theirs) for ours, theirs in zip(clean.resid, donor.resid, strict=True)]
        margins = [margin_above(model, attack, inputs.tokens, layer, x) for layer, x in enumerate(mixed)]
        return torch.stack(margins, dim=1).diff(dim=1)

    return by_batch(model, inputs, each)


def mlp_patch(model: HookedModel, inputs: Inputs, _: HookedModel | None = None) -> Scored:
    """Causal tracing: MLP(l) of the bare question at the last token, put into the attack; the margin it gains.

    Layers + 2 forwards. Finds an MLP that decides at the last token. Blind to what earlier positions do, where an
    attack can have done its work already.
    """

    def each(attack: Tokens, bare: Tokens | None) -> Tensor:
        donor = run(model, needed(bare, "causal tracing"), inputs.tokens)
        clean = run(model, attack, inputs.tokens)
        patched = margins_without(
            model, attack, inputs.tokens, clean, lambda layer: lambda out: _last_from(out, donor.mlp[layer])
        )
        return patched - clean.margin[:, None]

    return by_batch(model, inputs, each)


# --------------------------------------------------------------------------------------------- parts
def graded(
    model: HookedModel, batch: Tokens, tokens: MarginTokens, places: Sequence[nn.Module]
) -> tuple[list[Tensor], tuple[Tensor, ...], list[Tensor]]:
    """What each module wrote [batch, seq, width], without its bias; the margin's gradient there; its inputs.

    One forward and backward; rows of a batch do not touch each other, so the gradients are each prompt's own.
    """
    outs: list[Tensor] = []
    inputs: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        inputs.append(args[0].detach())
        outs.append(out if outs else out.detach().requires_grad_())  # the weights are frozen: the graph starts here
        return outs[-1]

    handles = [module.register_forward_hook(keep) for module in places]
    try:
        with torch.enable_grad():
            gradient = torch.autograd.grad(last_margin(model, batch, tokens).sum(), outs)
    finally:
        for handle in handles:
            handle.remove()
    biases = [getattr(module, "bias", None) for module in places]
    wrote = [out.detach() if bias is None else out.detach() - bias for out, bias in zip(outs, biases, strict=True)]
    return wrote, gradient, inputs


def along(
    gradient: Float[Tensor, "batch seq d_model"], change: Float[Tensor, "batch seq d_model"], batch: Tokens
) -> Float[Tensor, "batch"]:
    """Sum over the prompt's tokens of gradient . change, in float32, where the tokens are: layers may lie apart."""
    padding = ~batch.attention_mask.bool().to(gradient.device)
    found = (gradient.float() * change.float()).sum(-1).masked_fill(padding, 0.0).sum(-1)
    return found.to(batch.input_ids.device)


def _direct(model: HookedModel, batch: Tokens, tokens: MarginTokens) -> Float[Tensor, "batch layer"]:
    """margin(x - d_l) - margin(x) at the last token, x read after the last block."""
    clean = run(model, batch, tokens)
    x = clean.resid[-1][:, -1:]
    less = torch.stack([x[:, 0] - wrote[:, -1].to(x) for wrote in clean.mlp])  # [layer, batch, d_model]
    return (
        torch.stack([read_off(model, part, tokens) for part in less], dim=1) - read_off(model, x[:, 0], tokens)[:, None]
    )


def _ablation(model: HookedModel, inputs: Inputs, replace: Callable[[int], Callable[[Tensor], Tensor]]) -> Scored:
    def each(attack: Tokens, _bare: Tokens | None) -> Tensor:
        clean = run(model, attack, inputs.tokens)
        return margins_without(model, attack, inputs.tokens, clean, replace) - clean.margin[:, None]

    return by_batch(model, inputs, each)


def _means(model: HookedModel, inputs: Inputs) -> Float[Tensor, "layer d_model"]:
    """Mean of what each MLP writes, over positions within an attack prompt, then over prompts."""
    total = torch.zeros(model.n_layers, model.d_model, dtype=torch.float64)

    def each(attack: Tokens, _bare: Tokens | None) -> Tensor:
        seen = run(model, attack, inputs.tokens)
        weights = (seen.real / seen.real.sum(-1, keepdim=True)).float()
        for layer, wrote in enumerate(seen.mlp):
            padding = ~seen.real[..., None].to(wrote.device)
            part = torch.einsum("bs,bsd->d", weights.to(wrote.device), wrote.float().masked_fill(padding, 0.0))
            total[layer] += part.double().cpu()
        return torch.zeros(len(attack), model.n_layers)

    by_batch(model, inputs, each)
    return (total / len(inputs.instances)).float()


def _last_from(
    ours: Float[Tensor, "batch seq d_model"], theirs: Float[Tensor, "batch other d_model"]
) -> Float[Tensor, "batch seq d_model"]:
    """`ours` with the last position of `theirs`."""
    mixed = ours.clone()
    mixed[:, -1] = theirs[:, -1].to(ours)
    return mixed
