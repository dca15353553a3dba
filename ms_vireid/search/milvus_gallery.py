"""Galleries in Milvus, with the same code for one embedded in a folder `PATH.db` (milvus-lite) and one on a server.

A picture is one entity with its absolute path as primary key: adding it again replaces it.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, repeat
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import progress
from ms_vireid.devices import runtime
from ms_vireid.files.writing import require_folder
from ms_vireid.search.feature_files import Features
from ms_vireid.search.result import NOTHING, Entry, Hit, hits_of, nearest

with runtime.environment({"GRPC_VERBOSITY": "NONE"}):  # read at the import; errors are raised as well
    from grpc import RpcError
    from pymilvus import DataType, MilvusClient, MilvusException

ROWS_AT_ONCE = 1000  # inserted in one message: 3 MiB of 768 dimensions, where servers take 64
QUERIES_AT_ONCE = 100
_LONGEST = {"picture": 4096, "path": 4096, "modality": 16, "checkpoint": 64, "identity": 255}  # bytes of a text
_MOST_RESULTS = 16384  # of a search, Milvus's own limit
_CONNECTION, _REPLY = 10, 60  # seconds to wait for a server's connection and its answers
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")  # Milvus's own rule for names
_EMBEDDED = {"LOCK", "collections"}  # milvus-lite makes these in a folder first
_LATER = {"databases", ".database-staging"}
_INDEXES = {  # type and parameters
    "exact": ("FLAT", {}),
    "flat": ("FLAT", {}),
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
}
_BREADTH = 128  # ef of HNSW
_FIELDS = ("picture", "path", "modality", "camera", "identity")  # that a search returns
_COLUMNS = (*_FIELDS, "checkpoint", "feature")
_STRONG = {"consistency_level": "Strong"}  # a search sees the last insertion


def check_gallery(address: str, collection: str, create: bool) -> None:
    """Raise InputError for a wrong address or name before connecting or writing anything.

    create: whether to make an embedded gallery where there is none.
    """
    name = f"milvus:{_without_password(address)}"
    if not _COLLECTION.fullmatch(collection):
        rule = "an ASCII letter or _, then up to 254 ASCII letters, digits and _"
        raise InputError(f"--collection {collection[:80]!r}: is not a valid name in Milvus, which takes {rule}")
    if "://" in address:
        if not _is_server(address):
            example = "http://HOST:PORT or https://HOST:PORT, HOST a name or an IPv4 address"
            raise InputError(f"{name}: is not a server's address; give {example}")
    elif not address.endswith(".db"):
        raise InputError(f"{name}: the embedded gallery's name must end in .db; a server's is http://...")
    else:
        _check_folder(name, Path(address), create)


def _is_server(address: str) -> bool:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # of a port, or of brackets
        return False
    return parts.scheme in ("http", "https") and host != "" and host.isprintable() and not set(host) & {" ", ":"}


def _check_folder(name: str, path: Path, create: bool) -> None:
    require_folder(path, "--gallery")
    if path.exists() and not path.is_dir():
        raise InputError(f"{name}: is a file; a gallery of milvus-lite 3 is a folder: choose another name")
    names = {one.name for one in path.iterdir()} if path.exists() else set()
    if names and not (names >= _EMBEDDED or names <= _EMBEDDED | _LATER):  # whole, or left by a killed process
        raise InputError(f"{name}: is a folder, but not of a gallery; choose another name")
    if not (names or create):
        raise InputError(f"{name}: no such gallery; make it with --add")


class MilvusGallery:
    """A collection, open until `close`.

    address: a path that ends in `.db`, or `http://...` (`http://USER:PASSWORD@HOST:PORT/DATABASE`). create: whether to
    make an embedded gallery where there is none.

    Raises (all methods):
        InputError: the server cannot be reached or refuses, in one line.
    """

    def __init__(self, address: str, collection: str, create: bool = False):
        check_gallery(address, collection, create)
        self.name = f"milvus:{_without_password(address)}"
        self.collection = collection
        for library in ("pymilvus", "milvus_lite"):  # which also log the errors that they raise
            logging.getLogger(library).setLevel(logging.CRITICAL)
        served = "://" in address
        self._limit = {"timeout": _REPLY} if served else {}
        local = "close it in other processes, check that its folder can be written, or choose another place"
        with self._errors("check the address, and that the server runs" if served else local):
            self.client = MilvusClient(address, timeout=_CONNECTION)

    def close(self) -> None:
        self.client.close()

    def __len__(self) -> int:
        """Count the pictures; 0 before the collection is made."""
        with self._errors():
            if not self._ask("has_collection", self.collection):
                return 0
            self._ask("load_collection", self.collection)
            return self._ask("query", self.collection, output_fields=["count(*)"], **_STRONG)[0]["count(*)"]

    def add(self, features: Features, kind: str | None = None) -> None:
        """Insert pictures in batches, replacing those of the same path; an interrupted call leaves whole batches.
        Raises InputError for a collection of another width, checkpoint or kind of index, or a path or name too long.

        kind: of the index of a new collection: "exact", "flat" or "hnsw".
        """
        files = [features.file(path).as_posix() for path in features.paths.tolist()]
        texts = {"picture": ("path", files), "identity": ("person's name", features.identities.tolist())}
        for field, (what, column) in texts.items():
            if long := next((text for text in column if len(text.encode()) > _LONGEST[field]), None):
                raise InputError(f"{long}: the {what} is longer than {_LONGEST[field]} bytes; shorten it")
        checkpoint = features.made_by
        with self._errors():
            if self._ask("has_collection", self.collection):
                self._check(features.features.shape[1], checkpoint, kind)
            else:
                self._create(features.features.shape[1], kind or "exact")
            columns = (features.paths, features.modality, features.cameras, features.identities)
            columns = (files, *(column.tolist() for column in columns), repeat(checkpoint), features.features)
            rows = zip(*columns, strict=False)
            starts = range(0, len(features), ROWS_AT_ONCE)
            for _ in progress(starts, len(starts), "insert", " pictures", ROWS_AT_ONCE):
                block = [dict(zip(_COLUMNS, row, strict=True)) for row in islice(rows, ROWS_AT_ONCE)]
                self._ask("upsert", self.collection, block)
            self._ask("flush", self.collection)

    @property
    def limit(self) -> int:
        """The most pictures that a search finds."""
        return max(1, min(len(self), _MOST_RESULTS))

    def search(
        self, queries: Features, top_k: int, cameras: Sequence[int] | None = None, breadth: int | None = None
    ) -> list[list[Hit]]:
        """Find the nearest pictures of each query, ties ordered by path; exact if the collection's index is exact.
        Raises InputError for a collection that is missing, empty or of another width or checkpoint, and for more
        results than Milvus returns."""
        size = len(self)
        if not size:
            raise InputError(f"{self.name}: collection {self.collection} holds no picture; fill it with --add")
        if min(top_k, size) > _MOST_RESULTS:
            most = f"{_MOST_RESULTS:,} pictures of its {size:,}"
            raise InputError(f"{self.name}: Milvus finds at most {most} for a query; give --top-k {_MOST_RESULTS}")
        with self._errors():
            self._check(queries.features.shape[1], queries.made_by)
            approximate = self._index_type() == "HNSW"
        if breadth is not None and not approximate:
            raise InputError(f"--breadth {breadth}: {self.name} is searched whole, not by hnsw; leave it out")
        ef = breadth or _BREADTH if approximate else None
        expression = "" if cameras is None else f"camera in {list(cameras)}"
        hits = []
        starts = range(0, len(queries), QUERIES_AT_ONCE)
        for start in progress(starts, len(starts), "search", " queries", QUERIES_AT_ONCE):
            block = queries.features[start : start + QUERIES_AT_ONCE]
            hits += self._search(block, top_k, min(size, _MOST_RESULTS), expression, ef)
        return hits

    def _search(self, queries: np.ndarray, top_k: int, limit: int, expression: str, ef: int | None) -> list[list[Hit]]:
        entries: list[Entry] = []  # of the last answer, ordered by path; `index` points into it

        def search(count: int) -> tuple[np.ndarray, np.ndarray]:
            parameters = {} if ef is None else {"ef": max(ef, count)}
            with self._errors():
                answer = self._ask(
                    "search",
                    self.collection,
                    data=list(queries),
                    anns_field="feature",
                    limit=count,
                    filter=expression,
                    output_fields=list(_FIELDS),
                    search_params={"metric_type": "IP", "params": parameters},
                    **_STRONG,
                )
            entries[:] = sorted({_entry(hit) for hits in answer for hit in hits}, key=lambda one: one.file)
            number = {entry: i for i, entry in enumerate(entries)}
            similarity = np.full((len(queries), count), -np.inf, np.float32)
            index = np.full((len(queries), count), NOTHING)
            for row, hits in enumerate(answer):
                similarity[row, : len(hits)] = [hit["distance"] for hit in hits]
                index[row, : len(hits)] = [number[_entry(hit)] for hit in hits]
            return similarity, index

        similarity, index = nearest(search, top_k, limit)
        return hits_of(entries, similarity, index)

    def _create(self, width: int, kind: str) -> None:
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        for name, length in _LONGEST.items():
            schema.add_field(name, DataType.VARCHAR, is_primary=name == "picture", max_length=length)
        schema.add_field("camera", DataType.INT64)
        schema.add_field("feature", DataType.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        index_type, parameters = _INDEXES[kind]
        index.add_index("feature", index_name="feature", index_type=index_type, metric_type="IP", params=parameters)
        self._ask("create_collection", self.collection, schema=schema, index_params=index, **_STRONG)

    def _check(self, width: int, checkpoint: str, kind: str | None = None) -> None:
        """Raise InputError unless the collection fits these features, and load it."""
        where = f"{self.name}: collection {self.collection}"
        fields = {field["name"]: field for field in self._ask("describe_collection", self.collection)["fields"]}
        if not fields.keys() >= {*_COLUMNS}:
            raise InputError(f"{where} was not made by this command; choose another --collection")
        stored = int(fields["feature"]["params"]["dim"])
        if stored != width:
            raise InputError(f"{where} holds features of {stored} dimensions, not {width}; choose another --collection")
        if kind is not None and _INDEXES[kind][0] != self._index_type():
            raise InputError(f"{where} has an index {self._index_type()}; leave out --index {kind}")
        self._ask("load_collection", self.collection)
        one = self._ask("query", self.collection, filter="", limit=1, output_fields=["checkpoint"], **_STRONG)
        if one and one[0]["checkpoint"] != checkpoint:
            problem = "holds features from another checkpoint or data.sixteen_bit"
            raise InputError(f"{where} {problem}; choose another --collection")

    def _ask(self, what: str, *arguments, **options):
        """Call one of the client's methods; a server that does not answer in time is an error."""
        return getattr(self.client, what)(*arguments, **options, **self._limit)

    def _index_type(self) -> str:
        return self._ask("describe_index", self.collection, "feature")["index_type"]

    @contextmanager
    def _errors(self, hint: str = "") -> Iterator[None]:
        try:
            yield
        except (MilvusException, RpcError) as error:
            problem = error.details() if isinstance(error, RpcError) else error.message
            check = "check the server" if self._limit else "free space, or check the folder"
            raise InputError(f"{self.name}: {problem}; {hint or f'{check}, or choose another --collection'}") from None


def _entry(hit: Mapping) -> Entry:
    return Entry.of(hit["path"], Path(hit["picture"]), hit["modality"], hit["camera"], hit["identity"])


def _without_password(address: str) -> str:
    user = re.split("[/?#]", address.partition("://")[2])[0].rpartition("@")[0]
    return address.replace(f"{user}@", "", 1) if user else address
