"""Inputs that wait together are computed together, as one batch."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from engine.answers import Record
from engine.predicting import Example, Predictor, Unreadable, name_of
from serving.inputs import preprocess
from serving.limits import BUG, Limits, Refused
from utils import UserError, logger


class Waiting(NamedTuple):
    """An example that is to be computed."""

    predictor: Predictor  # that read it: weights that came since may read differently
    example: Example
    record: asyncio.Future[Record]


class Batcher:
    """Answers with a network, a batch at a time.

    A pool of threads reads inputs, and one more thread decodes large photos, so that they neither fill the memory nor
    keep the pool from others. Another thread computes: whenever it is free it takes all examples that wait, up to
    `max_batch`. So a request that comes alone does not wait for others, and the more requests come, the larger the
    batches. All bookkeeping happens in the event loop, without locks.

    Attributes:
        predictor: answers; another may take its place at any time.
        pool: for work that would keep the event loop from other requests.
        large: decodes large photos.
        has_ended: a bug ended `run`: nothing is computed any more.
    """

    def __init__(self, predictor: Predictor, limits: Limits, max_batch: int):
        self.predictor, self.limits, self.max_batch = predictor, limits, max_batch
        num_threads = os.cpu_count() or 1
        self.at_once = 2 * num_threads  # inputs of one request that are read at a time: enough to keep the pool busy
        self.pool, self.large = ThreadPoolExecutor(num_threads, "read"), ThreadPoolExecutor(1, "read large")
        self.queue: deque[Waiting] = deque()
        self.arrived = asyncio.Event()
        self.num_unanswered = 0
        self.has_ended = False

    async def answer(self, raws: Sequence[Any], explain: bool = False) -> list[Record]:
        """A record for each input, in order. Bugs that spoil some of the inputs are told in their records.

        Args:
            explain: the records are also to say what decided.

        Raises:
            Refused: too many inputs wait already, or the network cannot explain.
            Exception: a bug spoilt all inputs, or ended `run`.
        """
        if self.num_unanswered and self.num_unanswered + len(raws) > self.limits.waiting:
            raise Refused(429, f"{self.num_unanswered} inputs are waiting; try again in a second")
        predictor = self.predictor
        if explain and not predictor.can_explain:
            raise Refused(422, 'explain: these weights cannot. Where GET /model says "explains": true, they can.')
        predictor = predictor.explaining if explain else predictor
        self.num_unanswered += len(raws)
        try:
            turns = asyncio.Semaphore(self.at_once)  # other requests come in between
            if len(raws) == 1:
                return [await self._answer(predictor, raws[0], turns)]
            answers = (self._answer(predictor, raw, turns) for raw in raws)
            return _without_bugs(raws, await asyncio.gather(*answers, return_exceptions=True))
        finally:
            self.num_unanswered -= len(raws)

    async def _answer(self, predictor: Predictor, raw: Any, turns: asyncio.Semaphore) -> Record:
        loop = asyncio.get_running_loop()
        async with turns:
            example = await loop.run_in_executor(self.pool, preprocess, predictor, raw, self.limits)
            if example is None:
                example = await loop.run_in_executor(self.large, predictor.preprocess, raw)
        if isinstance(example, Unreadable):
            return {"input": example.input, "error": example.error}
        if self.has_ended:
            raise RuntimeError("nothing is computed any more")
        waiting = Waiting(predictor, example, loop.create_future())
        self.queue.append(waiting)
        self.arrived.set()
        return await waiting.record

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()
        self.large.shutdown()

    async def run(self) -> None:
        """Compute what waits, until this is cancelled."""
        batch: list[Waiting] = []
        try:
            with ThreadPoolExecutor(1, "compute") as thread:
                while True:
                    await self.arrived.wait()
                    self.arrived.clear()
                    while batch := self._take():
                        await self._compute(batch, thread)
        except Exception as error:
            self.has_ended = True
            for waiting in (*batch, *self.queue):
                if not waiting.record.done():
                    waiting.record.set_exception(error)
            raise

    async def _compute(self, batch: Sequence[Waiting], thread: ThreadPoolExecutor) -> None:
        examples = [waiting.example for waiting in batch]
        found = await asyncio.get_running_loop().run_in_executor(thread, compute, batch[0].predictor, examples)
        for waiting, record in zip(batch, found, strict=True):
            if waiting.record.done():  # cancelled
                continue
            if isinstance(record, Exception):
                waiting.record.set_exception(record)
            else:
                waiting.record.set_result(record)

    def _take(self) -> list[Waiting]:
        """The oldest waiting examples that the same predictor has read."""
        batch: list[Waiting] = []
        if not self.queue:
            return batch
        # a power of two: torch prepares and keeps kernels for each size that it meets
        size = 2 ** (min(len(self.queue), self.max_batch).bit_length() - 1)
        while len(batch) < size:
            if batch and self.queue[0].predictor is not batch[0].predictor:
                break
            batch.append(self.queue.popleft())
        return batch


def _without_bugs(raws: Sequence[Any], answers: Sequence[Record | BaseException]) -> list[Record]:
    """Records in place of exceptions, which are logged. Raises the first if there is nothing else."""
    bugs = [answer for answer in answers if isinstance(answer, BaseException)]
    if len(bugs) == len(answers):
        raise bugs[0]
    for bug in bugs:
        logger.error("An input of a request:", exc_info=bug)
    return [
        {"input": name_of(raw), "error": BUG} if isinstance(answer, BaseException) else answer
        for raw, answer in zip(raws, answers, strict=True)
    ]


def compute(predictor: Predictor, examples: Sequence[Example]) -> list[Record | Exception]:
    """The records of a batch. If it fails, each example is tried alone, so that one does not spoil the others."""
    try:
        return [*predictor.answer(examples)]
    except UserError as error:
        if len(examples) == 1:
            return [{"input": examples[0].input, "error": str(error)}]
    except Exception as error:
        if len(examples) == 1:
            return [error]
    return [record for example in examples for record in compute(predictor, [example])]
