"""The part of a run's page that the trained model computes on the test set."""

from itertools import zip_longest

from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.evaluation.protocol import protocol_trials
from ms_vireid.search.trained_model import TrainedModel
from ms_vireid.visualization.figure import LONGEST_LABEL, shortened
from ms_vireid.visualization.inline import drawing, photograph
from ms_vireid.visualization.maps import Decoded, gradcam, overlay
from ms_vireid.visualization.ranking import SHOWN, RankedQuery, choose_queries, rank_queries
from ms_vireid.visualization.similarity import Similarities, draw_similarity, sample_similarities

EXPLAINED = 2  # queries, of the best and of the worst


def find(trained: TrainedModel, data: ReIDData, queries: int, name: str) -> dict:
    """Compute similarities, rankings of at most `queries` of the best and of the worst queries, and Grad-CAM of some.
    name: the run's.

    Raises:
        InputError: a picture cannot be decoded, or the test set has no query with a match or no other picture.
    """
    test = data.test
    features = trained.extractor.extract(test)
    ranked = rank_queries(features, test, protocol_trials(data, trained.config.evaluation)[0], data.protocol)
    precisions = [one.average_precision for one in ranked]
    most = {"best": -(-len(ranked) // 2), "worst": len(ranked) // 2}  # no query is both
    chosen = {choice: choose_queries(ranked, min(queries, half), choice) for choice, half in most.items()}
    in_turn = [one for pair in zip_longest(*(some[:EXPLAINED] for some in chosen.values())) for one in pair if one]
    return {
        "similarity": _similarity(sample_similarities(features, test), name),
        "queries": len(precisions),
        "mean_precision": f"{sum(precisions) / len(precisions):.2%}",
        "chosen": {choice: [_ranking(test, one, trained) for one in some] for choice, some in chosen.items()},
        "explained": [_explained(trained, test, one) for one in in_turn],
    }


def _similarity(one: Similarities, name: str) -> dict:
    counts = f"{len(one.positive):,} pairs of the same identity and {len(one.negative):,} of different ones"
    description = f"Distributions of the cosine similarity of {counts}: {one}"
    figure = draw_similarity([one], [shortened(name, LONGEST_LABEL, is_text=True)])
    return {"drawing": drawing(figure, "similarity", description), "text": description}


def _ranking(test: ImageSet, ranked: RankedQuery, trained: TrainedModel) -> dict:
    """Describe a query: its first ten, each right or wrong, and the rank of the first right one."""
    first = f"first right picture at rank {int(ranked.matches.argmax()) + 1} of {len(ranked.gallery)}"
    shown = zip(ranked.gallery[:SHOWN], ranked.matches, ranked.similarity, strict=False)
    return {
        "title": f"average precision {ranked.average_precision:.1%}, {first}",
        "query": _picture(test, ranked.query, trained),
        "pictures": [
            _picture(test, i, trained) | {"right": bool(right), "similarity": f"{s:.2f}"} for i, right, s in shown
        ],
    }


def _explained(trained: TrainedModel, test: ImageSet, ranked: RankedQuery) -> dict:
    """Explain the similarity of a query and its nearest picture by a map over each."""
    query, nearest = (_picture(test, i, trained) for i in (ranked.query, ranked.gallery[0]))
    for one, other in ((query, nearest), (nearest, query)):
        heat = gradcam(trained.model, one["decoded"], other["decoded"], relative=True)
        one["map"] = photograph(overlay(one["decoded"], heat))
    right = "the same identity" if ranked.matches[0] else "another identity"
    title = f"Query of identity {query['identity']} and its nearest picture, of {right} "
    return {"title": f"{title}(similarity {ranked.similarity[0]:.2f})", "query": query, "nearest": nearest}


def _picture(test: ImageSet, index: int, trained: TrainedModel) -> dict:
    picture = Decoded.load(test, index, trained)
    shown = {"decoded": picture, "source": photograph(picture.pixels), "modality": picture.modality}
    return shown | {"identity": test.name(index), "camera": int(test.cameras[index])}
