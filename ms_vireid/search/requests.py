"""Requests for features, from any thread. Those that wait together are computed as one batch."""

from collections import deque
from collections.abc import Callable

import numpy as np

from ms_vireid.backends.backend import Queued
from ms_vireid.devices.turns import DEVICE


class RequestQueue:
    """Pictures of one kind that wait for the device.

    features: queues the features of at most `batch_size` pictures, float32 [n, 3, H, W]; from `Computation.features`.
    """

    def __init__(self, features: Callable[[np.ndarray], Queued], batch_size: int):
        self._features = features
        self._batch_size = batch_size
        self._waiting: deque[Request] = deque()

    def put(self, pixels: np.ndarray) -> "Request":
        """Begin to compute the features of these pictures or, while another thread has the device, leave that to the
        first read. The array may change afterwards."""
        request = Request(self, pixels)
        if DEVICE.take(wait=False):
            try:
                self._waiting.append(request)
                self.launch(request)
            finally:
                DEVICE.give_back()
        else:
            request.pixels = pixels.copy()
            self._waiting.append(request)
        return request

    def launch(self, request: "Request") -> None:
        """Compute batches until this request is in one. The caller has the device."""
        while request.batch is None:
            self._launch()

    def _launch(self) -> None:
        while self._waiting[0].batch is not None:  # not before: Ctrl-C in this thread may leave others' waiting
            self._waiting.popleft()
        requests = self._fitting()
        pixels = [request.pixels for request in requests]
        try:
            batch = Batch(self._features(pixels[0] if len(pixels) == 1 else np.concatenate(pixels)))
        except Exception as error:
            batch = Batch(error=error)
        start = 0
        for request in requests:
            end = start + len(request.pixels)
            request.rows, request.batch, request.pixels = slice(start, end), batch, None
            start = end

    def _fitting(self) -> "list[Request]":
        """The requests that fit a batch, in order, at least one."""
        requests, count = [self._waiting[0]], len(self._waiting[0].pixels)
        for number in range(1, len(self._waiting)):  # by number: other threads append meanwhile
            count += len(self._waiting[number].pixels)
            if count > self._batch_size:
                break
            requests.append(self._waiting[number])
        return requests


class Batch:
    """Features that were computed together, or the error that stopped this."""

    def __init__(self, queued: Queued | None = None, error: Exception | None = None):
        self._queued = queued
        self._error = error
        self._rows: np.ndarray | None = None

    def read(self) -> np.ndarray:
        """Wait for the features, float32 [n, C]. The caller has the device."""
        if self._error is not None:
            raise self._error
        if self._rows is None:
            self._rows, self._queued = self._queued.read(), None  # the tensor goes while the device is this thread's
        return self._rows


class Request:
    """Pictures whose features are wanted."""

    def __init__(self, queue: RequestQueue, pixels: np.ndarray):
        self.pixels: np.ndarray | None = pixels  # float32 [n, 3, H, W], until they are part of a batch
        self.batch: Batch | None = None
        self.rows = slice(0)  # of the batch
        self._queue = queue

    def read(self) -> np.ndarray:
        """Wait for the features, float32 [n, C]. Raises what their computation raised."""
        with DEVICE:
            self._queue.launch(self)
            return self.batch.read()[self.rows]
