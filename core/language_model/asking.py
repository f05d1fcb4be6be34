"""Many prompts to one endpoint: a few calls at a time, each answer stored as soon as it is there."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.errors import EndpointFailure
from core.language_model.answers import Answer, Answers, answer_key
from core.language_model.chat import Chat, NoAnswer

_LOOK_SECONDS = 0.2
"""How often a stop request is looked for."""

_LINGER_SECONDS = 20.0
"""How long a stopped job waits for answers that are on their way: they are paid for."""

_MOST_FAILURES = 10
"""So many calls in a row that fail, whatever was tried, end the job; more if more are made at once."""

_CHARACTERS_PER_TOKEN = 3
"""A careful estimate, for the budget."""

_STORED_AT_ONCE = 256
"""Stored answers that are looked up before other calls have a turn."""


@dataclass
class Asking:
    """What became of the prompts. ``tokens`` counts all answers, ``new_tokens`` those of this attempt."""

    answered: int = 0
    from_store: int = 0
    invalid: int = 0
    without_answer: int = 0
    tokens: int = 0
    new_tokens: int = 0
    estimated: bool = False
    budget_reached: bool = False
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Prompt:
    """A request, and what judges the text of its answer."""

    request: dict[str, Any]
    is_usable: Callable[[str], bool]


def ask_all(
    prompts: Iterable[Prompt],
    chat: Callable[[], Chat],
    answers: Answers,
    *,
    budget: int | None,
    ask_again: bool,
    should_stop: Callable[[], bool],
    told: Callable[[Asking], None],
) -> Asking:
    """Get an answer to each prompt that has none yet. Memory does not grow with their number.

    ``ask_again``: whether a useless answer is asked for once more.
    ``told`` is called now and then, and at the end. If ``should_stop`` becomes true, no call is begun any
    more. Raises `EndpointFailure` if the endpoint does not answer, `BadSpec` if it refuses the calls.
    """
    return asyncio.run(_Asker(prompts, answers, budget, ask_again, should_stop, told).run(chat))


class _Asker:
    def __init__(
        self,
        prompts: Iterable[Prompt],
        answers: Answers,
        budget: int | None,
        ask_again: bool,
        should_stop: Callable[[], bool],
        told: Callable[[Asking], None],
    ) -> None:
        self._prompts: Iterator[Prompt] = iter(prompts)
        self._answers, self._budget = answers, budget
        self._ask_again = ask_again
        self._should_stop, self._told = should_stop, told
        self._reserved = 0  # tokens of calls on their way
        self._failures = 0  # in a row
        self._last_reason = ""
        self._ending = False
        self.found = Asking()

    async def run(self, make_chat: Callable[[], Chat]) -> Asking:
        async with make_chat() as chat:
            most = chat.limits.concurrency
            workers = [asyncio.create_task(self._work(chat)) for _ in range(most)]
            pending = set(workers)
            try:
                while pending and not self._ending:
                    done, pending = await asyncio.wait(
                        pending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                    )
                    for task in done:
                        task.result()  # raises what ended it
                    self._told(self.found)
                    self._ending = self._should_stop()
            finally:
                self._ending = True
                chat.end()
                if pending:  # answers that are on their way are paid for
                    await asyncio.wait(pending, timeout=_LINGER_SECONDS)
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
            self.found.reasons = chat.problems
        self._told(self.found)
        if self.found.without_answer and not self.found.answered and not self._should_stop():
            raise EndpointFailure(f"{chat.endpoint.url} has answered no call: {self._last_reason}")
        return self.found

    async def _work(self, chat: Chat) -> None:
        stored = 0
        while not self._ending and not self.found.budget_reached:
            prompt = next(self._prompts, None)
            if prompt is None:
                return
            for attempt in range(2 if self._ask_again else 1):
                key = answer_key(prompt.request, attempt)
                answer = self._answers.find(key)
                if answer is not None:
                    self.found.from_store += 1
                    stored += 1
                    if stored % _STORED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                elif (answer := await self._ask(chat, prompt.request, key, attempt)) is None:
                    break
                self.found.tokens += answer.tokens
                self.found.estimated |= answer.estimated
                if prompt.is_usable(answer.text):
                    self.found.answered += 1
                    break
                self.found.invalid += 1

    async def _ask(self, chat: Chat, request: dict[str, Any], key: str, attempt: int) -> Answer | None:
        """A new answer, which is stored; None if there is none, or the budget does not allow the call."""
        most = sum(len(message["content"]) for message in request["messages"]) // _CHARACTERS_PER_TOKEN
        most += request["max_tokens"]
        if self._budget is not None and self.found.tokens + self._reserved + most > self._budget:
            self.found.budget_reached = True
            return None
        if self._ending:
            return None
        self._reserved += most
        try:
            answer = await chat.complete({**request, "seed": request["seed"] + attempt})
        except NoAnswer as error:
            self._failures += not error.of_request
            self._last_reason = str(error)
            self.found.without_answer += 1
            if self._failures >= max(_MOST_FAILURES, chat.limits.concurrency):
                raise EndpointFailure(
                    f"{chat.endpoint.url} does not answer: {self._failures} calls in a row failed, the last: "
                    f"{error}. The answers so far are stored: none is asked for again."
                ) from error
            return None
        finally:
            self._reserved -= most
        self._failures = 0
        answer = self._answers.keep(key, answer)
        self.found.new_tokens += answer.tokens
        return answer
