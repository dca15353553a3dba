"""The papers' printed numbers of a run whose recipe is one of their tables' rows."""

from collections.abc import Iterator
from dataclasses import dataclass

from ms_vireid.ablations.runs import result_file
from ms_vireid.ablations.tables import Row, Search, Table, config_of, list_tables, load_table
from ms_vireid.config import FREE_KEYS, Config, EvaluationConfig, differing_keys, dump_config, flat, load_config
from ms_vireid.engine.run_folder import RunFolder

# Keys that may differ from a row's recipe: the papers state none of them. (Searches are compared separately.)
NOT_OF_THE_RECIPE = (
    *FREE_KEYS,
    "seed",
    "data.trial",
    "data.test_fraction",
    "data.synthetic.",
    "model.num_classes",
    "train.backend",
    "train.recompute",
    "train.amp",
    "train.select",
)

SearchKey = tuple[str, ...]  # identifies a search on a data set, in words


@dataclass
class Published:
    """Printed numbers of one search of a row, in percent by metric, and their sources."""

    search: SearchKey
    sources: list[str]
    label: str
    metrics: dict[str, float]

    @property
    def where(self) -> str:
        """For example: PMT (AAAI 2023), Table 5, Table 3."""
        papers: dict[str, list[str]] = {}
        for source in self.sources:
            paper, _, place = source.rpartition(", ")
            papers.setdefault(paper, []).append(place)
        return "; ".join(f"{paper}, {', '.join(places)}" for paper, places in papers.items())


def search_key(data: str, evaluation: EvaluationConfig, search: Search | None = None) -> SearchKey:
    """Identify a configured evaluation, or another `search` on the same data set."""
    mode, shots, direction = evaluation.mode, evaluation.shots, evaluation.direction
    if search is not None:
        mode, shots, direction = search.mode or mode, search.shots or shots, search.direction or direction
    gallery = (f"{mode} search", "single-shot" if shots == 1 else "multi-shot")
    corrupted = ("visible pictures corrupted",) if search is not None and search.corrupted else ()
    flip, renormalise = ((search and getattr(search, n)) or getattr(evaluation, n) for n in ("flip", "renormalise"))
    mirrored = (f"features of mirrored pictures added{', normalised again' if renormalise else ''}",) if flip else ()
    reranked = ("re-ranked",) if evaluation.rerank or (search is not None and search.rerank) else ()
    return (*(gallery if data in ("sysu_mm01", "synthetic") else ()), direction, *corrupted, *mirrored, *reranked)


def further_results(folder: RunFolder, config: Config) -> Iterator[tuple[SearchKey, str]]:
    """List the searches that `ablate.py` evaluated besides result.json, each with the name of its file."""
    for search in dict.fromkeys(c.search for name in list_tables() for c in load_table(name).columns if c.search):
        path = result_file(folder, search)
        if path.exists():
            yield search_key(config.data.name, config.evaluation, search), path.name


def published_results(config: Config) -> list[Published]:
    """List the papers' numbers for this configuration; equal numbers of several tables are one item."""
    data, printed = config.data.name, []
    ours = flat(dump_config(config)) | {"model.pretrained": not config.model.from_scratch}
    for name in list_tables():
        table = load_table(name)
        for row in table.rows if data in table.sets else ():
            if row.published and row.config and not row.stand_in:
                recipe = load_config(config_of(name, row, data), [*row.overrides, *table.sets[data]])
                # A row's recipe starts from ImageNet weights.
                theirs = flat(dump_config(recipe)) | {"model.pretrained": True}
                if not differing_keys(ours, theirs, NOT_OF_THE_RECIPE):
                    printed += _printed(table, row, recipe)
    merged: list[Published] = []
    for one in sorted(printed, key=lambda one: len(one.metrics), reverse=True):
        same = (m for m in merged if m.search == one.search and one.metrics.items() <= m.metrics.items())
        if earlier := next(same, None):
            earlier.sources += [source for source in one.sources if source not in earlier.sources]
        else:
            merged.append(one)
    return merged


def _printed(table: Table, row: Row, recipe: Config) -> Iterator[Published]:
    """Yield the row's numbers on the recipe's data set."""
    numbers = table.published(row)
    for column in table.columns:
        if column.data == recipe.data.name:
            key = search_key(column.data, recipe.evaluation, column.search)
            metrics = {name: n for name in column.metrics if (n := numbers[column.name, name]) is not None}
            yield Published(key, [table.source], row.label.removesuffix(" (Ours)"), metrics)
