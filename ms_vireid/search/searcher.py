"""A trained model as an object that extracts features of pictures and searches with them."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ms_vireid.command import arguments
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import in_one_line
from ms_vireid.config.layout_templates import AUTO
from ms_vireid.data.folder_layout import UNKNOWN, FolderLayout
from ms_vireid.data.pictures import decoding, pixels_of
from ms_vireid.data.transforms import fitted, normalise
from ms_vireid.devices.turns import DEVICE
from ms_vireid.search.feature_files import Features, Pictures, check_features
from ms_vireid.search.local_gallery import LocalGallery, found_by
from ms_vireid.search.result import SearchResult, accepted, nearest_people
from ms_vireid.search.sources import read_source
from ms_vireid.search.start import begin, load_trained

InMemory = Image.Image | np.ndarray
Source = str | Path | InMemory | Sequence[str | Path] | Sequence[InMemory]


class Searcher:
    """A checkpoint's model on a device.

    checkpoint: a run folder, or its model.safetensors or last.safetensors. device: "auto", "CPU", "GPU" or "Ascend".
    backend, tf32: as `--backend` and `--tf32`. Make it before anything else imports mindspore. Any thread may call its
    methods: what several ask for at the same moment is computed as one batch. All methods raise `ms_vireid.InputError`,
    with one line that says what is wrong, where, and what to do; also in a process that was forked too late.
    """

    @in_one_line()
    def __init__(self, checkpoint: str | Path, device: str = "auto", backend: str = "auto", tf32: bool = False):
        checkpoint = arguments.as_path("checkpoint", checkpoint)
        arguments.require_switch("tf32", tf32)
        self.device, self.backend = begin(device, backend, checkpoint, tf32=tf32)
        (self.trained,) = load_trained([checkpoint], self.backend)
        self._extractor = dataclasses.replace(self.trained.extractor, workers=0)
        self._info = self.trained.feature_info()

    @in_one_line()
    def features(self, pictures: Source, modality: str = "auto", layout: str = AUTO) -> Features:
        """Extract the features of one picture or several: paths, one folder with all below it, one `.npz` of
        extract.py, PIL images, or arrays, uint8 [H, W, 3] (RGB) or [H, W].

        modality: "visible" or "infrared"; "auto" reads it from the pictures' folders, so not for images and arrays.
        layout: how the paths say who is in the pictures, as --layout takes it.

        Returns the columns of a feature file: `features`, float32 [N, C], L2-normalised, `paths`, `identities` and so
        on; images and arrays are named "0", "1", ... `ms_vireid.search.feature_files.save_features` writes them for
        retrieve.py.
        """
        return self._features_of(pictures, modality, layout, None)

    def _features_of(self, pictures: Source, modality: str, layout: str, gallery: FolderLayout | None) -> Features:
        """gallery: how pictures in its tree are read."""
        DEVICE.require_own_process()
        single = isinstance(pictures, str | os.PathLike | Image.Image | np.ndarray)
        arguments.require(single or isinstance(pictures, Iterable), "pictures", pictures, "paths, PIL images or arrays")
        pictures = [pictures] if single else list(pictures)
        if not pictures:
            raise InputError("no pictures are given")
        arguments.require_choice("modality", modality, (*MODALITIES, "auto"))
        arguments.require(isinstance(layout, str), "layout", layout, "a text")
        if all(isinstance(one, str | os.PathLike) for one in pictures):
            paths = [arguments.as_path("pictures", one) for one in pictures]
            source = read_source(paths, modality, "pictures", layout, gallery)
            if isinstance(source, Pictures):
                source = source.with_features(self._extractor.extract(source.images), self._info)
            return source
        if modality == "auto":
            raise InputError("images and arrays do not say their modality: give modality='visible' or 'infrared'")
        decoded = [self._pixels(number, one, modality) for number, one in enumerate(pictures)]
        return self._features_in_memory(decoded, modality)

    @in_one_line()
    def rank(
        self,
        query: Source | Features,
        gallery: Source | Features,
        top_k: int = 10,
        rerank: bool = False,
        by_identity: bool = False,
        threshold: float | None = None,
    ) -> list[SearchResult]:
        """Find the `top_k` nearest pictures of the gallery for each query, nearest first.

        query, gallery: what `features` returns, or paths that it takes. rerank: by k-reciprocal encoding of all queries
        and the whole gallery. by_identity: find `top_k` people, with the most similar picture of each. threshold:
        return only similarities of at least this, which may be none.
        """
        top_k = arguments.whole_number("top_k", top_k, 1)
        arguments.require_switch("rerank", rerank)
        arguments.require_switch("by_identity", by_identity)
        if threshold is not None:
            threshold = arguments.number_within("threshold", threshold, arguments.SIMILARITY)
        searched = gallery if isinstance(gallery, Features) else self.features(gallery)
        check_features("gallery", searched)
        queries = query if isinstance(query, Features) else self._features_of(query, "auto", AUTO, searched.layout)
        check_features("query", queries)
        local = LocalGallery("gallery", searched)
        search = partial(local.search_reranked if rerank else local.search, queries)
        hits = nearest_people(search, top_k, local.limit) if by_identity else search(top_k)
        return found_by(queries, accepted(hits, threshold))

    def _pixels(self, number: int, picture: object, modality: str) -> np.ndarray:
        """Check a picture: uint8 [H, W] or [H, W, 3]. number: names it in errors."""
        if isinstance(picture, Image.Image):
            with decoding(f"picture {number}"):
                picture = pixels_of(picture, True, self._extractor.value_ranges.of(modality == "infrared"))
        if not isinstance(picture, np.ndarray) or isinstance(picture, np.ma.MaskedArray):
            kind = type(picture).__name__
            raise InputError(f"picture {number}: is a {kind}; give paths alone, or PIL images and arrays")
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
            raise InputError(f"picture {number}: is {picture.dtype} {picture.shape}; give uint8 [H, W, 3] or [H, W]")
        if not picture.size:
            raise InputError(f"picture {number}: is empty {picture.shape}")
        return np.ascontiguousarray(picture)

    def _features_in_memory(self, pictures: list[np.ndarray], modality: str) -> Features:
        rows, size = [], self._extractor.batch_size
        for start in range(0, len(pictures), size):
            batch = [normalise(fitted(one, self.trained.image_size)) for one in pictures[start : start + size]]
            names = [f"picture {number}" for number in range(start, start + len(batch))]
            rows.append(self._extractor.checked(np.stack(batch), modality, names))
        count = len(pictures)
        return Features(
            np.concatenate(rows),
            np.array([str(number) for number in range(count)]),
            np.full(count, modality),
            np.full(count, ""),
            np.full(count, UNKNOWN, np.int32),
            self._info,
        )
