"""Errors planted one at a time in one framework: the ladder's case of the layer, loss or rule that has it must fail."""

import dataclasses
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import ops
from torch import nn

from ms_vireid import optimizers as mindspore_optimizers
from ms_vireid.config.models import MUNConfig
from ms_vireid.data import transforms
from ms_vireid.losses import logarithms as mindspore_logarithms
from ms_vireid.models.layers import GeM
from ms_vireid.optimizers import schedule as mindspore_schedule
from parity import states
from parity.cases import LADDER, run
from parity.mapping import values
from torch_ref import optimizers as torch_optimizers
from torch_ref.losses import enhanced as torch_enhanced
from torch_ref.losses import mmd as torch_mmd
from torch_ref.losses import msel as torch_msel
from torch_ref.losses import stage as torch_stage
from torch_ref.losses import triplet as torch_triplet
from torch_ref.models import agw as torch_agw
from torch_ref.models import auxiliary_generator as torch_generator
from torch_ref.models import layers as torch_layers
from torch_ref.models import mun as torch_mun
from torch_ref.models import noise as torch_noise
from torch_ref.models import pmt as torch_pmt
from torch_ref.models import prototypes as torch_prototypes
from torch_ref.models import vit as torch_vit

CASES = {str(case): case for case in LADDER}


def after(owner, change):
    """Let `change(module)` alter every instance of `owner` once it is made."""
    original = owner.__init__

    def changed(self, *arguments, **keywords):
        original(self, *arguments, **keywords)
        change(self)

    return lambda patch: patch.setattr(owner, "__init__", changed)


def changed(owner, name, wrong):
    """`wrong` gets a function and then what the function is called with."""
    original = getattr(owner, name)

    def called(*arguments, **keywords):
        return wrong(original, *arguments, **keywords)

    return lambda patch: patch.setattr(owner, name, called)


def made(module, name, change):
    """Let `change(layer)` alter what a function makes."""

    def altered(original, *arguments, **keywords):
        layer = original(*arguments, **keywords)
        change(layer)
        return layer

    return changed(module, name, altered)


def regrouped(**changes):
    """All groups of PyTorch's parameters with these fields otherwise."""

    def altered(original, model, config):
        return [dataclasses.replace(group, **changes) for group in original(model, config)]

    return changed(torch_optimizers.build, "parameter_groups", altered)


def biased_running_variance(patch):
    class Biased(nn.BatchNorm1d):
        def forward(self, x):
            before = self.running_var.clone()
            result = super().forward(x)
            if self.training:
                self.running_var = 0.9 * before + 0.1 * x.detach().var(dim=0, unbiased=False)
            return result

    patch.setattr(torch_layers.nn, "BatchNorm1d", Biased)


def transposed_dense_weight(patch):
    def transposed(cell):
        square = {name for name, value in values(cell).items() if value.ndim == 2 and len(set(value.shape)) == 1}
        return {name: value.T if name in square else value for name, value in values(cell).items()}

    patch.setattr(states, "values", transposed)


def dropped_position_embedding(patch):
    def drop(vit):
        vit.pos_drop.register_forward_pre_hook(lambda _module, inputs: (inputs[0] - vit.pos_embed, *inputs[1:]))

    after(torch_vit.VisionTransformer, drop)(patch)


def self_pair_in_msel(patch):
    def included(self, features, labels):
        distance = torch_msel.euclidean_distance(features, features)
        infrared = torch.arange(len(labels)) >= len(labels) // 2
        same_identity, same_modality = labels[:, None] == labels[None], infrared[:, None] == infrared[None]
        intra = (distance * (same_identity & same_modality)).sum(-1) / self.num_instances  # oneself, at 0, is one of K
        cross = (distance * (same_identity & ~same_modality)).sum(-1) / self.num_instances
        return torch.square(intra - cross).mean()

    patch.setattr(torch_msel.ModalitySharedEnhancementLoss, "forward", included)


def cosine_before_bnneck(patch):
    original = torch_stage.OnOutputs

    def pooled(term, num_instances, parts):
        loss = original(term, num_instances, parts)
        loss.fields = ["pooled" if name == "bnneck" else name for name in term.outputs]
        return loss

    patch.setattr(torch_stage, "OnOutputs", pooled)


def no_bias_correction(patch):
    def plain(self, _step, base_lrs):
        rows = [(lr, decay, self.eps, *self.betas) for lr, decay in zip(base_lrs, self.decays, strict=True)]
        return np.array(rows, np.float32)

    patch.setattr(mindspore_optimizers.adamw.AdamW, "scalars", plain)


def swapped(original, self, channels, expansion=4, kernel_order=(5, 7), layer_scale="channel"):
    original(self, channels, expansion, kernel_order[::-1], layer_scale)


def aligned(original, positions, **options):
    return original(positions, **options | {"align_corners": True})


def coupled(optimizer):
    for group in optimizer.param_groups:
        group["decoupled_weight_decay"] = False


def norm_of_each_group(_original, optimizer, max_norm):
    for group in optimizer.groups:
        torch.nn.utils.clip_grad_norm_(group.parameters, max_norm)


def gradient_through_all_iterations(patch):
    def undetached(self, features, beta, labels=None):
        places = self.places(labels) if self.by_identity else torch.arange(self.shape[1])
        distilled = torch.bmm(features, self.projection.transpose(1, 2))
        ratio = torch.where(self.seen[:, places] > 0, beta, 1.0)[..., None]
        prototypes = ratio * distilled + (1.0 - ratio) * self.memory[:, places]
        self.memory = self.memory.index_copy(1, places, prototypes)
        self.seen = self.seen.index_fill(1, places, 1.0)
        return prototypes

    patch.setattr(torch_prototypes.ModalityPrototypes, "forward", undetached)


def attached(original, *squared):
    """A tensor whose `detach` does nothing."""
    tensor = original(*squared)
    return SimpleNamespace(detach=lambda: tensor)


def wrong_pairs(patch):
    """The auxiliary features are made of each visible picture and the next slot's infrared one."""

    def shift(model):
        def shifted(_generator, inputs):
            pictures, (visible, infrared), key = inputs
            return pictures, (visible, infrared.roll(1, dims=0)), key

        model.generator.register_forward_pre_hook(shifted)

    after(torch_mun.MUN, shift)(patch)


def overflowing_logits(patch):
    def unshifted(logits, labels):
        logarithms = logits - ops.log(ops.exp(logits).sum(-1, keepdims=True))
        return -ops.gather_elements(logarithms, 1, labels.astype(ms.int32).unsqueeze(1)).mean()

    patch.setattr(mindspore_logarithms, "cross_entropy", unshifted)


def cubic_gem(patch):
    def cubic(self, x):
        return (x.astype(ms.float32).clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)

    patch.setattr(GeM, "construct", cubic)


PLANTED = {
    "trainable_bnneck_bias": (
        after(torch_pmt.PMT, lambda model: model.bottleneck.bias.requires_grad_(True)),
        "1 pmt_vit_base",
    ),
    "swapped_kernels": (changed(torch_generator.IntraModalityLearner, "__init__", swapped), "1 mun_resnet50"),
    "layer_norm_eps": (lambda patch: patch.setattr(torch_vit, "LAYER_NORM_EPS", 1e-6), "2 LayerNorm"),
    "tanh_gelu": (after(torch_vit.Mlp, lambda mlp: setattr(mlp, "act", nn.GELU(approximate="tanh"))), "2 GELU"),
    "bn_momentum": (made(torch_layers, "bn_neck", lambda layer: setattr(layer, "momentum", 0.9)), "2 BNNeck"),
    "biased_running_variance": (biased_running_variance, "2 BNNeck"),
    "transposed_dense_weight": (transposed_dense_weight, "2 Attention"),
    "reversed_dropout_parts": (after(torch_layers.Dropout, lambda layer: layer.numbers.reverse()), "2 Dropout"),
    "unscaled_drop_path": (
        changed(torch_noise, "path_factors", lambda original, *given: (original(*given) > 0).float()),
        "2 hashes of dropout",
    ),
    "aligned_corners": (changed(torch_vit.functional, "interpolate", aligned), "2 position embedding resized"),
    "sum_instead_of_mean": (
        after(torch_triplet.ProgressiveHardTripletLoss, lambda loss: setattr(loss, "reduction", "sum")),
        "3 intra",
    ),
    "self_pair_in_msel": (self_pair_in_msel, "3 msel"),
    "weights_without_epsilon": (lambda patch: patch.setattr(torch_triplet, "RELEASED_EPS", 0.0), "3 wrt"),
    "unlimited_square": (lambda patch: patch.setattr(torch_enhanced, "LARGEST", 1e9), "3 esd"),
    "unscaled_rows": (
        lambda patch: patch.setattr(torch_stage, "l2_normalise", lambda rows: rows),
        "3 terms on their features, normalised",
    ),
    "fixed_power": (
        after(torch_layers.GeM, lambda layer: setattr(layer, "trained_power", lambda: 0.0 * layer.power + 3.0)),
        "2 GeM, learned",
    ),
    "cubic_gem_on_a_cpu": (cubic_gem, "2 GeM, learned"),
    "overflowing_logits_on_a_cpu": (overflowing_logits, "3 IdentityLoss"),
    "straight_softplus_on_a_cpu": (
        lambda patch: patch.setattr(mindspore_logarithms, "LINEAR", 5.0),
        "3 wrt, features of five scales",
    ),
    "beta_late": (
        changed(MUNConfig, "progress", lambda original, self, step, *rest: original(self, max(step - 1, 0), *rest)),
        "5 beta of MUN, torch.optim",
    ),
    "cosine_before_bnneck": (cosine_before_bnneck, "3 terms on their features"),
    "gradient_through_all_iterations": (gradient_through_all_iterations, "3 ModalityPrototypes, slots"),
    "gradient_through_the_bandwidth": (changed(torch_mmd, "mean_bandwidth", attached), "3 ma"),
    "wrong_pairs": (wrong_pairs, "4 MUN small, gradients"),
    "unlimited_scales": (regrouped(limits=None), "5 MUN, six updates"),
    "dropped_position_embedding": (dropped_position_embedding, "4 PMT small"),
    "unnormalised_features": (lambda patch: patch.setattr(torch_pmt, "l2_normalise", lambda x: x), "4 PMT small"),
    "no_bias_correction": (no_bias_correction, "5 PMT stage 1, six updates"),
    "coupled_decay": (after(torch_optimizers.adamw.AdamW, coupled), "5 PMT stage 1, six updates"),
    "norm_of_each_group": (
        changed(torch_optimizers.groups.GroupOptimizer, "clip", norm_of_each_group),
        "5 PMT stage 1, six clipped updates",
    ),
    "schedule_one_epoch_late": (
        changed(mindspore_schedule, "warmup_cosine", lambda original, epoch, *rest: original(max(epoch - 1, 1), *rest)),
        "5 schedule of PMT, timm",
    ),
    "wrong_group": (regrouped(lr_factor=1.0), "5 PMT stage 1, groups"),
    "resized_once": (
        changed(transforms, "load_image", lambda original, path, size, *_: original(path, size)),
        "6 preprocessing, torchvision",
    ),
    "wider_initialisation": (made(torch_vit, "dense", lambda layer: layer.weight.data.mul_(1.1)), "7 PMT small"),
    "constant_patch_bias": (after(torch_vit.PatchEmbed, lambda layer: nn.init.zeros_(layer.proj.bias)), "7 PMT small"),
    "constant_bnneck_scale": (
        after(torch_agw.AGW, lambda model: nn.init.ones_(model.bottleneck.weight)),
        "7 AGW small",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_ladder_notices(monkeypatch, name):
    plant, case = PLANTED[name]
    plant(monkeypatch)
    assert not run(CASES[case], ["eager"]).passed


def test_a_models_difference_is_traced_to_the_layer_where_it_starts(monkeypatch):
    dropped_position_embedding(monkeypatch)
    _, comparison = run(CASES["4 PMT small"], ["eager"]).worst
    assert comparison.tensor == "output of base.pos_drop"
