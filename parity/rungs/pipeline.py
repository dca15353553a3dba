"""Rung 6: from a picture on disk to the metrics: preprocessing against Pillow and torchvision, then one ranking."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ms_vireid.backends.choosing import backend_named
from ms_vireid.data import transforms
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.readers import read_data
from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.models import build_model as mindspore_model
from ms_vireid.search.features import FeatureExtractor
from parity.compare import EXACT, FORWARD, Comparison, compare
from parity.harness import once, same_weights
from parity.oracles import InterpolationMode
from parity.oracles import torchvision_transforms as functional
from parity.trajectory import configuration, same_batches
from torch_ref.evaluation.evaluating import FeatureExtractor as TorchFeatureExtractor
from torch_ref.models import build_model as torch_model

RECIPE = "PMT stage 2"
ONE_LEVEL = 1.0 / 255  # two ways to round a pixel to 8 bits


def preprocessing() -> list[Comparison]:
    """The deterministic parts of loading and augmentation against torchvision's transforms of Pillow images."""
    config = configuration(RECIPE)
    path = Path(read_data(config.data).train.paths[0])
    size = (96, 40)  # height, width: up in one direction, down in the other
    colour = Image.open(path).convert("RGB")
    resized = functional.resize(colour, size, interpolation=InterpolationMode.LANCZOS)
    pixels = transforms.load_image(path, size)
    larger = functional.resize(colour, (120, 60), interpolation=InterpolationMode.LANCZOS)
    twice = functional.resize(larger, size, interpolation=InterpolationMode.BILINEAR)
    tensor = functional.to_dtype(functional.pil_to_tensor(resized), torch.float32, scale=True)
    normalised = functional.normalize(tensor, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    brighter = functional.adjust_contrast(functional.adjust_brightness(resized, 1.2), 0.8)
    darker = functional.adjust_brightness(functional.adjust_contrast(resized, 1.3), 0.7)
    blurred = functional.gaussian_blur(functional.pil_to_tensor(resized).float(), [21, 21], [1.7, 1.7])
    blurred_gray = functional.gaussian_blur(
        functional.pil_to_tensor(resized.convert("L")).float(), [21, 21], [1.7, 1.7]
    )
    blur = lambda image: transforms.gaussian_blur(image, 1.7).transpose(2, 0, 1)  # noqa: E731
    return [
        compare("decoded and resized", pixels, np.asarray(resized), EXACT),
        compare("resized twice", transforms.load_image(path, size, (120, 60)), np.asarray(twice), EXACT),
        compare("normalised", transforms.normalise(pixels), normalised.numpy(), FORWARD),
        compare("flipped", pixels[:, ::-1], np.asarray(functional.horizontal_flip(resized)), EXACT),
        compare("gray", transforms.to_gray(pixels), np.asarray(functional.rgb_to_grayscale(resized, 3)), EXACT),
        compare("brightness, contrast", transforms.jitter(pixels, 1.2, 0.8, False), np.asarray(brighter), EXACT),
        compare("contrast, brightness", transforms.jitter(pixels, 0.7, 1.3, True), np.asarray(darker), EXACT),
        compare("blurred", blur(pixels), blurred.numpy(), ONE_LEVEL, 255.0),
        compare("gray, blurred", blur(transforms.to_gray(pixels))[:1], blurred_gray.numpy(), ONE_LEVEL, 255.0),
    ]


def ranking() -> list[Comparison]:
    """The same pictures through both networks: features, distances and every metric."""
    config = configuration(RECIPE)
    test = read_data(config.data).test
    cell, module = mindspore_model(config).set_train(False), torch_model(config).eval()
    same_weights(cell, module)
    ours = FeatureExtractor(cell, backend_named("eager"), config.data.image_size, 16).extract(test)
    theirs = TorchFeatureExtractor(module, torch.device("cpu"), config.data, 16).extract(test)
    query, gallery = np.flatnonzero(test.infrared), np.flatnonzero(~test.infrared)
    who = test.labels[query], test.labels[gallery], test.cameras[query], test.cameras[gallery]
    distance = 1.0 - ours[query] @ ours[gallery].T
    torch_distance = 1.0 - torch.from_numpy(theirs[query]) @ torch.from_numpy(theirs[gallery]).T
    actual = evaluate_ranking(distance, *who, protocol="sysu_mm01")
    expected = evaluate_ranking(torch_distance.numpy(), *who, protocol="sysu_mm01")
    plain = evaluate_ranking(distance, *who, protocol="regdb")
    cmc, mean_ap, mean_inp = by_sorting(torch_distance, *(torch.from_numpy(np.asarray(labels)) for labels in who[:2]))
    return [
        compare("features", ours, theirs, FORWARD),
        compare("distances", distance, torch_distance.numpy(), FORWARD, scale=1.0),  # of the terms of 1 - cosine
        compare("CMC", actual.cmc, expected.cmc, EXACT),
        compare("mAP", np.float64(actual.mean_ap), np.float64(expected.mean_ap), EXACT),
        compare("mINP", np.float64(actual.mean_inp), np.float64(expected.mean_inp), EXACT),
        compare("CMC, by sorting", plain.cmc[: len(cmc)], cmc, FORWARD),
        compare("mAP, by sorting", np.float64(plain.mean_ap), np.float64(mean_ap), FORWARD),
        compare("mINP, by sorting", np.float64(plain.mean_inp), np.float64(mean_inp), FORWARD),
    ]


def mirrored() -> list[Comparison]:
    """Features of pictures and of their mirror images, added, and scaled to unit length again, by both frameworks."""
    config = configuration(RECIPE)
    test = read_data(config.data).test
    cell, module = mindspore_model(config).set_train(False), torch_model(config).eval()
    same_weights(cell, module)
    extractor = FeatureExtractor(cell, backend_named("eager"), config.data.image_size, 16)
    mirror = TorchFeatureExtractor(module, torch.device("cpu"), config.data, 16)
    added = np.empty((len(test), config.model.embed_dim), np.float32)
    batches = EvaluationBatches(test, config.data.image_size, 16)
    with torch.no_grad():
        for number in range(len(batches)):
            images, index = batches[number]
            pixels = torch.from_numpy(images)
            added[index] = (module(pixels, "visible") + module(pixels.flip(3), "visible")).numpy() / 2
    again = torch.nn.functional.normalize(torch.from_numpy(added)).numpy()
    comparisons = []
    for case, renormalise, expected in (("added", False, added), ("added, normalised", True, again)):
        theirs = mirror.extract(test, flip=True, renormalise=renormalise)
        ours = extractor.extract(test, flip=True, renormalise=renormalise)
        comparisons.append(compare(case, ours, expected, FORWARD))
        comparisons.append(compare(f"{case}, the mirror", theirs, expected, FORWARD))
    return comparisons


def by_sorting(
    distance: torch.Tensor, query_ids: torch.Tensor, gallery_ids: torch.Tensor
) -> tuple[np.ndarray, float, float]:
    """CMC over pictures, mAP and mINP as they are usually computed: sort every row and accumulate, in PyTorch."""
    order = distance.argsort(dim=1, stable=True)
    matches = (gallery_ids[order] == query_ids[:, None]).double()  # [Q, G] in ranking order
    place = torch.arange(1, matches.shape[1] + 1)
    precision = matches.cumsum(1) / place
    average = (precision * matches).sum(1) / matches.sum(1)
    last = (matches * place).amax(1)  # rank of the hardest match
    cmc = (matches.cumsum(1) > 0).double().mean(0)[:20]
    return cmc.numpy(), average.mean().item(), (matches.sum(1) / last).mean().item()


CASES = [
    once(6, "preprocessing, torchvision", preprocessing),
    once(6, "batches", same_batches, RECIPE),
    once(6, "batches, three parts", same_batches, "MUN choices"),
    once(6, "mirrored pictures", mirrored),
    once(6, "ranking", ranking),
]
