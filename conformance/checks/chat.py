"""Checks of unstreamed chat completions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object
from roadworthy.conformance.facts import Capability, Facts
from roadworthy.conformance.probes import chat as probes
from roadworthy.conformance.probes.discovery import warmup
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.schemas import problem

API = "OpenAI API reference, chat completions"
SPEC = "published task specification, chat-completion"
JS_CLIENT = "JavaScript inference client, chat completion"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
PLAIN = (warmup, *probes.ANSWERS)
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
SECONDS = range(1_000_000_000, 1 << 33)
CLOSE = 0.01


def _cut_while_thinking(exchange: Exchange) -> bool:
    """Whether the token limit was spent before any answer: then nothing can be said of the answer."""
    return exchange.finish_reason == "length" and not exchange.text


# The shape


@check(
    "chat.json",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; RFC 8259",
    remedy="Serialise the whole body once with a JSON library that refuses NaN and double keys.",
    each=PLAIN,
    on=Usable.SUCCESS,
)
def json_body(exchange: Exchange) -> Iterator[Finding]:
    """The body is one JSON object, without NaN, without a key twice, with nothing after it.

    Parsers differ on everything else: some clients raise, others silently take another value than you meant.
    """
    if not isinstance(exchange.json, dict):
        reason = exchange.json.reason if isinstance(exchange.json, Malformed) else "not an object"
        yield Finding("one JSON object", f"{reason}: {show(exchange.reply.body)}", at="body")


@check(
    "chat.content_type",
    level=Level.MUST,
    lenses=BOTH,
    source=JS_CLIENT,
    remedy="Send `Content-Type: application/json` with every JSON body.",
    each=PLAIN,
    on=Usable.SUCCESS,
)
def content_type(exchange: Exchange) -> Iterator[Finding]:
    """The content type of an answer is application/json.

    The JavaScript client parses JSON only then; anything else reaches the caller as a blob of bytes.
    """
    if exchange.media_type != "application/json":
        yield Finding("application/json", exchange.media_type or "no content type", at="header Content-Type")


@check(
    "chat.shape",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {SPEC}",
    remedy="Compare your body with schemas/openai/chat_completion.json, field by field.",
    each=PLAIN,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """An answer has the shape of a chat completion: its fields, where present, are of the right type.

    Typed clients raise on the first field that is not.
    """
    if "error" in exchange.answer:
        return
    found = problem("openai/chat_completion.json", exchange.json)
    if found is not None:
        yield Finding(found.expected, found.got, at=found.pointer)


@check(
    "chat.no_error_in_200",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Answer a failed request with a 4xx or 5xx status.",
    each=PLAIN,
    on=Usable.JSON,
)
def no_error_in_200(exchange: Exchange) -> Iterator[Finding]:
    """A 200 answer is an answer, not an error.

    Clients look at the status: an error under 200 becomes an empty answer, and may be charged.
    """
    if exchange.answer.get("error"):
        yield Finding("a chat completion", show(exchange.answer), at="/error")


@check(
    "chat.choices",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {JS_CLIENT}",
    remedy="Return at least one choice, with indexes counted from 0.",
    each=PLAIN,
    on=Usable.JSON,
)
def choices(exchange: Exchange) -> Iterator[Finding]:
    """There is at least one choice, and their indexes count from 0.

    Every client reads `choices[0]`.
    """
    value = exchange.answer.get("choices")
    if "error" in exchange.answer or not isinstance(value, list):
        return
    if not value:
        yield Finding("at least one choice", "an empty array", at="/choices")
        return
    indexes = [index for choice in exchange.choices if is_integer(index := choice.get("index"))]
    if len(indexes) == len(exchange.choices) and sorted(indexes) != list(range(len(indexes))):
        yield Finding(f"indexes {list(range(len(indexes)))}", show(indexes), at="/choices")


@check(
    "chat.object",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=API,
    remedy='Set "object": "chat.completion".',
    each=PLAIN,
)
def object_kind(exchange: Exchange) -> Iterator[Finding]:
    """`object` is "chat.completion".

    Gateways and loggers tell kinds of answers apart by it.
    """
    if exchange.answer.get("object") != "chat.completion":
        yield Finding("chat.completion", show(exchange.answer.get("object")), at="/object")


@check(
    "chat.id",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}; {JS_CLIENT}",
    remedy="Give every answer an id of its own.",
    across=PLAIN,
)
def ids(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """Every answer has a non-empty string `id`, and no two have the same.

    The JavaScript client refuses an answer without it; support and billing look answers up by it.
    """
    seen: dict[str, str] = {}
    for exchange in exchanges:
        value = exchange.answer.get("id")
        if not isinstance(value, str):
            continue
        if not value:
            yield Finding("a non-empty string", '""', at="/id", exchange_id=exchange.id)
            return
        if value in seen:
            yield Finding(f"another id than {seen[value]} has", show(value), at="/id", exchange_id=exchange.id)
            return
        seen[value] = exchange.id


@check(
    "chat.created",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}; {SPEC}",
    remedy="Set `created` to the time of the answer in whole unix seconds.",
    each=PLAIN,
)
def created(exchange: Exchange) -> Iterator[Finding]:
    """`created` is the time of the answer, in whole unix seconds.

    Typed clients want an integer; milliseconds land in the year 57000.
    """
    value = exchange.answer.get("created")
    if is_number(value) and (not is_integer(value) or value not in SECONDS):
        yield Finding("an integer of unix seconds", show(value), at="/created")


@check(
    "chat.model",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Echo the model's public name, not the file or the replica that served it.",
    each=PLAIN,
)
def model(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """`model` names the model that was asked for.

    Callers account by this name. A longer name that contains it, such as one with a date or a version, is fine.
    """
    value = exchange.answer.get("model")
    if not isinstance(value, str):
        return
    short = facts.model.rpartition("/")[2].partition(":")[0].lower()
    if short not in value.lower() and value.lower() not in facts.model.lower():
        yield Finding(facts.model, show(value), at="/model")
    elif value.startswith(("/", "./")) or value.endswith((".gguf", ".safetensors", ".bin")):
        yield Finding(facts.model, f"a path: {show(value)}", at="/model")


@check(
    "chat.role",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=API,
    remedy='Set "role": "assistant" in each message.',
    each=PLAIN,
)
def role(exchange: Exchange) -> Iterator[Finding]:
    """The message's role is "assistant".

    Callers append the message to the history as it is; with another role the next request is refused.
    """
    for place, choice in enumerate(exchange.choices):
        value = as_object(choice.get("message")).get("role")
        if isinstance(choice.get("message"), dict) and value != "assistant":
            yield Finding("assistant", show(value), at=f"/choices/{place}/message/role")
            return


@check(
    "chat.content",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Return the text in `message.content`, as one string.",
    each=PLAIN,
)
def content(exchange: Exchange) -> Iterator[Outcome]:
    """A plain question gets text, in `message.content`.

    It is what clients show. Reasoning beside it is fine; instead of it, it is an empty answer.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
        return
    value = exchange.message.get("content")
    if value is None or (isinstance(value, str) and not value.strip()):
        yield Finding("a text", show(value), at="/choices/0/message/content")


@check(
    "chat.finish_reason.known",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy='Say "stop" at a natural end and "length" at the token limit; map your engine\'s own words.',
    each=PLAIN,
)
def finish_reason(exchange: Exchange) -> Iterator[Finding]:
    """Each choice has a finish reason that clients know.

    They branch on it; null or an unknown word reads as an answer that never ended.
    """
    for place, choice in enumerate(exchange.choices):
        if choice.get("finish_reason") not in FINISH_REASONS:
            got = show(choice.get("finish_reason"))
            yield Finding(" or ".join(FINISH_REASONS[:4]), got, at=f"/choices/{place}/finish_reason")
            return


@check(
    "chat.finish_reason.natural",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy='Say "stop" when the model ended its answer by itself.',
    each=probes.echo,
    bar=0.5,
)
def natural_end(exchange: Exchange) -> Iterator[Outcome]:
    """A one-word answer ends with "stop".

    Callers that retry on "length" would ask for ever. A model that rambles on is the model's choice, so it is tried.
    """
    if exchange.finish_reason in FINISH_REASONS and exchange.finish_reason != "stop":
        yield Finding("stop", show(exchange.finish_reason), at="/choices/0/finish_reason")


@check(
    "chat.no_think_leak",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.HUB],
    source="OpenAI-compatible servers, reasoning_content",
    remedy="Switch on the reasoning parser of your engine, so that thoughts go to `reasoning_content`.",
    each=PLAIN,
)
def no_think_leak(exchange: Exchange) -> Iterator[Finding]:
    """The text does not hold the model's thoughts between <think> tags.

    Users see them as the answer, and JSON answers no longer parse.
    """
    found = re.search(r"</?think(?:ing)?>|<\|channel\|>|<\|im_(?:start|end)\|>|<\|eot_id\|>", exchange.text)
    if found:
        place = max(0, found.start() - 40)
        yield Finding("an answer without control tags", show(exchange.text[place:]), at="/choices/0/message/content")


# The usage


@check(
    "chat.usage.present",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{JS_CLIENT}: usage must be an object",
    remedy="Return `usage` with every unstreamed answer.",
    each=PLAIN,
)
def usage_present(exchange: Exchange) -> Iterator[Finding]:
    """Every answer tells its usage.

    The JavaScript client refuses an answer without it, and nobody can check what was charged.
    """
    if not isinstance(exchange.answer.get("usage"), dict):
        yield Finding("an object", show(exchange.answer.get("usage", "absent")), at="/usage")


@check(
    "chat.usage.integers",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=f"{API}, usage",
    remedy="Count tokens as integers.",
    each=PLAIN,
)
def usage_integers(exchange: Exchange) -> Iterator[Finding]:
    """The three counts of tokens are non-negative integers.

    Callers add them up and are charged by them.
    """
    usage = exchange.answer.get("usage")
    if not isinstance(usage, dict):
        return
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        if not is_integer(usage.get(key)) or usage[key] < 0:
            yield Finding("a non-negative integer", show(usage.get(key, "absent")), at=f"/usage/{key}")


@check(
    "chat.usage.total",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=f"{API}, usage",
    remedy="Make the total the sum of prompt and completion tokens.",
    each=PLAIN,
)
def usage_total(exchange: Exchange) -> Iterator[Finding]:
    """`total_tokens` is the sum of prompt and completion tokens.

    Two meters that read different fields charge differently.
    """
    usage = as_object(exchange.answer.get("usage"))
    figures: list[Any] = [usage.get(key) for key in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if all(is_integer(figure) and figure >= 0 for figure in figures) and figures[0] + figures[1] != figures[2]:
        yield Finding(str(figures[0] + figures[1]), str(figures[2]), at="/usage/total_tokens")


@check(
    "chat.usage.plausible",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=f"{API}, usage",
    remedy="Count the tokens of this request alone; look for counters that are never set, or never reset.",
    each=PLAIN,
)
def usage_plausible(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """The counts fit the texts: some tokens for a prompt, some for an answer, and not more than its letters allow.

    Zeros give the answer away for nothing, and counts beyond the text charge for what was never said.
    """
    usage = as_object(exchange.answer.get("usage"))
    read, said = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if is_integer(read) and read == 0:
        yield Finding("at least one token for the prompt", "0", at="/usage/prompt_tokens")
    if is_integer(said) and said == 0 and exchange.text:
        yield Finding("at least one token for the text", "0", at="/usage/completion_tokens")
    if is_integer(said) and said > 4 * len(exchange.text.encode()) + 64 and not _thought(exchange, facts):
        yield Finding(
            f"no more tokens than a text of {len(exchange.text)} characters can have",
            str(said),
            at="/usage/completion_tokens",
        )


def _thought(exchange: Exchange, facts: Facts) -> bool:
    """Whether tokens may have gone into thoughts that are not shown."""
    details = as_object(as_object(exchange.answer.get("usage")).get("completion_tokens_details"))
    told = details.get("reasoning_tokens")
    return bool(
        (facts.ability(Capability.REASONING).offered and told is None)
        or told
        or exchange.message.get("reasoning_content")
        or exchange.message.get("reasoning")
        or "think>" in exchange.text
    )


@check(
    "chat.usage.details",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, usage details",
    remedy="Count cached tokens within the prompt's and reasoning tokens within the completion's.",
    each=PLAIN,
)
def usage_details(exchange: Exchange) -> Iterator[Finding]:
    """Cached tokens are part of the prompt's, and reasoning tokens of the completion's.

    Discounts and surcharges are computed from these parts.
    """
    usage = as_object(exchange.answer.get("usage"))
    for part, whole in (
        ("prompt_tokens_details/cached_tokens", "prompt_tokens"),
        ("completion_tokens_details/reasoning_tokens", "completion_tokens"),
    ):
        key, _, inner = part.partition("/")
        value = as_object(usage.get(key)).get(inner)
        most = usage.get(whole)
        if value is None or (is_integer(most) and most < 0):
            continue
        if not is_integer(value) or value < 0 or (is_integer(most) and value > most):
            yield Finding(f"an integer from 0 to {show(most)}", show(value), at=f"/usage/{part}")


# The parameters


@check(
    "chat.max_tokens",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=API,
    remedy="Hand `max_tokens` to the engine as the limit of new tokens.",
    each=probes.cut,
)
def max_tokens(exchange: Exchange) -> Iterator[Finding]:
    """`max_tokens` limits the answer.

    It is how callers bound what a request costs.
    """
    yield from _limited(exchange)


@check(
    "chat.max_completion_tokens",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Accept `max_completion_tokens` as the newer name of `max_tokens`.",
    each=probes.newer_limit,
)
def max_completion_tokens(exchange: Exchange) -> Iterator[Finding]:
    """`max_completion_tokens` limits the answer.

    Newer SDKs send only this name; ignored, it leaves the cost unbounded.
    """
    yield from _limited(exchange)


def _limited(exchange: Exchange) -> Iterator[Finding]:
    said = as_object(exchange.answer.get("usage")).get("completion_tokens")
    if is_integer(said) and said > probes.CUT_TOKENS:
        yield Finding(f"at most {probes.CUT_TOKENS} tokens", str(said), at="/usage/completion_tokens")
    elif not is_integer(said) and len(exchange.text) > 24 * probes.CUT_TOKENS:
        yield Finding(f"at most {probes.CUT_TOKENS} tokens", show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.finish_reason.length",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=API,
    remedy='Say "length" when the token limit ended the answer.',
    each=[probes.cut, probes.newer_limit],
)
def length(exchange: Exchange) -> Iterator[Outcome]:
    """An answer that the token limit cut off says "length".

    "stop" tells the caller that a torso is the whole answer.
    """
    said = as_object(exchange.answer.get("usage")).get("completion_tokens")
    if not is_integer(said) or said != probes.CUT_TOKENS:
        yield NotApplicable("the answer did not meet the limit")
    elif exchange.finish_reason == "stop" and "thirty" not in exchange.text:
        yield Finding("length", show(exchange.finish_reason), at="/choices/0/finish_reason")


@check(
    "chat.stop.honoured",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=API,
    remedy="End the answer before the first stop sequence, and leave the sequence out.",
    each=probes.stop,
)
def stop(exchange: Exchange) -> Iterator[Outcome]:
    """The answer ends before a stop sequence, which is not part of it.

    Agents cut their model's turns with it; ignored, the model goes on to speak for the user.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
    elif probes.STOP in exchange.text:
        yield Finding(f"a text that ends before {probes.STOP!r}", show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.stop.finish_reason",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy='Say "stop" when a stop sequence ended the answer.',
    each=probes.stop,
)
def stop_reason(exchange: Exchange) -> Iterator[Outcome]:
    """An answer that a stop sequence ended says "stop".

    "length" would make callers ask for the rest.
    """
    reached = "six" in exchange.text and probes.STOP not in exchange.text
    if not reached:
        yield NotApplicable("the answer did not reach the stop sequence")
    elif exchange.finish_reason in FINISH_REASONS and exchange.finish_reason != "stop":
        yield Finding("stop", show(exchange.finish_reason), at="/choices/0/finish_reason")


@check(
    "chat.accepts",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {SPEC}",
    remedy="Accept every parameter of the published specification, and the roles system, user and assistant.",
    each=[probe for probe in probes.ANSWERS if probe not in probes.NEWER],
    on=Usable.COMPLETE,
)
def accepts(exchange: Exchange) -> Iterator[Finding]:
    """The ordinary parameters, roles and content forms are accepted.

    temperature, top_p, stop, max_tokens, system messages, several turns, and content as an array of text parts are
    sent by every SDK and agent; a refusal breaks them at the first request.
    """
    if exchange.status is not None and 400 <= exchange.status < 500:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "chat.accepts_newer",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Take the role developer for system, and max_completion_tokens for max_tokens.",
    each=probes.NEWER,
    on=Usable.COMPLETE,
)
def accepts_newer(exchange: Exchange) -> Iterator[Finding]:
    """The newer names are accepted: the role "developer", and `max_completion_tokens`.

    Newer applications send nothing else. The published task specification does not have them yet.
    """
    if exchange.status is not None and 400 <= exchange.status < 500:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "chat.succeeds",
    level=Level.MUST,
    lenses=ALL,
    source="registration guide, Automatic validation",
    remedy="Answer 200 at the URL that is asked; look for a proxy that redirects, or cuts long answers.",
    each=[*probes.ANSWERS],
    on=Usable.RESPONSE,
)
def succeeds(exchange: Exchange) -> Iterator[Finding]:
    """A plain question gets a whole answer: no redirect, no other kind of success, no body that breaks off.

    Clients do not follow redirects with a key, and the hub's validation counts anything but an answer as a failure.
    """
    if exchange.status is not None and exchange.status != 200 and exchange.status < 400:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
    elif exchange.status == 200 and exchange.reply.failure is not None:
        yield Finding("a whole answer", exchange.reply.failure.message, at="body")


@check(
    "chat.n",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Return n choices, or refuse n > 1 with a 400 that says so.",
    each=probes.several,
    needs=[Capability.MULTIPLE_CHOICES],
)
def n_choices(exchange: Exchange) -> Iterator[Finding]:
    """`n` gives as many choices.

    A caller that takes the best of n silently gets the first of one.
    """
    if len(exchange.choices) != 2:
        yield Finding("2 choices", str(len(exchange.choices)), at="/choices")


@check(
    "chat.logprobs.values",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, logprobs",
    remedy="Return `logprobs.content`, one entry for each token, or refuse the parameter with a 400.",
    each=probes.logprobs,
    needs=[Capability.LOGPROBS],
)
def logprobs(exchange: Exchange) -> Iterator[Outcome]:
    """`logprobs` gives each token, its logarithm, which is not positive, and the alternatives asked for.

    Scoring and uncertainty are computed from them; a made-up or missing figure goes unnoticed.
    """
    if not exchange.text:
        yield NotApplicable("there is no text to have probabilities")
        return
    entries = as_object(exchange.choices[0].get("logprobs")).get("content")
    if not isinstance(entries, list) or not entries:
        yield Finding("an array of entries", show(entries), at="/choices/0/logprobs/content")
        return
    for number, entry in enumerate(entries):
        at = f"/choices/0/logprobs/content/{number}"
        token, value = as_object(entry).get("token"), as_object(entry).get("logprob")
        if not isinstance(token, str):
            yield Finding("a string", show(token), at=f"{at}/token")
            return
        if not is_number(value) or math.isnan(value) or value > CLOSE:
            yield Finding("a number not above 0", show(value), at=f"{at}/logprob")
            return
        top = as_object(entry).get("top_logprobs")
        if not isinstance(top, list) or len(top) > 3 or not top:
            got = f"{len(top)} of them" if isinstance(top, list) else show(top)
            yield Finding("the 2 alternatives asked for", got, at=f"{at}/top_logprobs")
            return


@check(
    "chat.logprobs.join",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, logprobs",
    remedy="Return an entry for every token of the text, decoded as the text is.",
    each=probes.logprobs,
    needs=[Capability.LOGPROBS],
)
def logprobs_join(exchange: Exchange) -> Iterator[Outcome]:
    """The tokens of `logprobs` join to the text.

    Callers align probabilities with words by it.
    """
    entries = as_object(exchange.choices[0].get("logprobs")).get("content")
    tokens = [as_object(entry).get("token") for entry in entries] if isinstance(entries, list) else []
    if not tokens or not all(isinstance(token, str) for token in tokens):
        yield NotApplicable("there are no tokens; see chat.logprobs.values")
        return
    joined = "".join(str(token) for token in tokens)
    if exchange.text.strip() not in joined and not any(
        "\ufffd" in str(t) or str(t).startswith("bytes:") for t in tokens
    ):
        yield Finding(show(exchange.text), show(joined), at="/choices/0/logprobs/content")


@check(
    "chat.seed",
    level=Level.MAY,
    lenses=[Lens.OPENAI],
    source=f"{API}, seed",
    remedy="Seed the sampler of each request with the seed that was sent.",
    across=[probes.seeded],
    needs=[Capability.SEED],
)
def seed(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """The same seed at temperature 0 gives the same answer.

    Tests of applications rely on it; batching can break it, which is why it is only good manners.
    """
    texts = {exchange.text for exchange in exchanges}
    if len(exchanges) < 2:
        yield NotApplicable("there are no two answers to compare")
    elif len(texts) > 1:
        yield Finding(show(exchanges[0].text), show(exchanges[1].text), at="/choices/0/message/content")


# The behaviour of server and model together


@check(
    "chat.echo",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, content parts",
    remedy="Look at the chat template: the text of an array of parts must reach the model.",
    each=probes.echo,
    bar=0.5,
)
def echo(exchange: Exchange) -> Iterator[Outcome]:
    """Asked in so many words for one word, the model says it.

    The question comes as an array of text parts; a template that drops them leaves the model guessing.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
    elif probes.PONG not in exchange.text:
        yield Finding(probes.PONG, show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.system",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, messages",
    remedy="Look at the chat template: the system message must be part of the prompt.",
    each=probes.system,
    bar=0.5,
)
def system(exchange: Exchange) -> Iterator[Outcome]:
    """The system message is followed.

    Applications put all their rules there.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
    elif probes.SYSTEM_WORD.lower() not in exchange.text.lower():
        yield Finding(probes.SYSTEM_WORD, show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.history",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, messages",
    remedy="Look at the chat template: the earlier turns must be part of the prompt.",
    each=probes.history,
    bar=0.5,
)
def history(exchange: Exchange) -> Iterator[Outcome]:
    """The model knows the earlier turns of a conversation.

    A chat that forgets is no chat.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
    elif probes.CODE_WORD.lower() not in exchange.text.lower():
        yield Finding(probes.CODE_WORD, show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.unicode",
    level=Level.MUST,
    lenses=ALL,
    source="RFC 8259, section 8.1",
    remedy="Decode requests and encode answers as UTF-8 everywhere, and detokenise across token borders.",
    each=[*PLAIN],
)
def unicode_text(exchange: Exchange) -> Iterator[Finding]:
    """Texts beyond ASCII arrive as they were meant: no replacement characters, no UTF-8 read as Latin-1.

    Most of the world's users see it in their first answer.
    """
    damaged = re.search("\ufffd|Ã[\u0080-\u00bf©®¯]|â€|ð\u009f|\\\\u[dD][89aAbB]", exchange.text)
    if damaged:
        place = max(0, damaged.start() - 20)
        yield Finding("readable text", show(exchange.text[place : place + 60]), at="/choices/0/message/content")


@check(
    "chat.reasoning.told",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, reasoning_effort",
    remedy="Return thoughts in `reasoning_content` and count them in `completion_tokens_details.reasoning_tokens`.",
    each=probes.reasoning,
    needs=[Capability.REASONING],
)
def reasoning(exchange: Exchange) -> Iterator[Outcome]:
    """A reasoning model's thoughts are told or counted beside the answer.

    They are charged as tokens; a caller who cannot see them cannot check the bill.
    """
    details = as_object(as_object(exchange.answer.get("usage")).get("completion_tokens_details"))
    told = exchange.message.get("reasoning_content") or exchange.message.get("reasoning")
    if not told and not details.get("reasoning_tokens"):
        yield Finding(
            "reasoning_content, or reasoning_tokens above 0", "neither", at="/usage/completion_tokens_details"
        )


@check(
    "chat.reasoning.answer",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, reasoning_effort",
    remedy="Look at the reasoning parser: the text after the thoughts belongs into `content`.",
    each=probes.reasoning,
    needs=[Capability.REASONING],
    bar=0.5,
)
def reasoning_answer(exchange: Exchange) -> Iterator[Outcome]:
    """After its thoughts a reasoning model answers, in `content`.

    A parser that never sees the end of the thoughts swallows the answer.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
    elif "42" not in exchange.text:
        yield Finding("42", show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.images.accepted",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, image content",
    remedy="Accept `image_url` parts with data: URIs, or do not declare vision.",
    each=probes.images,
    needs=[Capability.VISION],
    on=Usable.RESPONSE,
)
def images_accepted(exchange: Exchange) -> Iterator[Finding]:
    """A model that is said to see accepts images as data: URIs.

    SDKs and agents send screenshots and uploads this way.
    """
    if exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "chat.images.seen",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, image content",
    remedy="Look at the chat template and the image processor: all pixels must reach the model, in order.",
    each=probes.images,
    needs=[Capability.VISION],
    bar=0.5,
)
def images_seen(exchange: Exchange) -> Iterator[Outcome]:
    """The model sees the images: it names a red one and a blue one.

    A server that drops images answers fluently about nothing.
    """
    if _cut_while_thinking(exchange):
        yield NotApplicable("the token limit was spent before any answer")
    elif not all(colour in exchange.text.lower() for colour in ("red", "blue")):
        yield Finding("red and blue", show(exchange.text), at="/choices/0/message/content")


@check(
    "chat.images.counted",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, usage",
    remedy="Count the tokens of images in `prompt_tokens`.",
    each=probes.images,
    needs=[Capability.VISION],
)
def images_counted(exchange: Exchange) -> Iterator[Finding]:
    """Images count as tokens of the prompt.

    Their cost would otherwise be charged to nobody, or outside what the caller can check.
    """
    read = as_object(exchange.answer.get("usage")).get("prompt_tokens")
    if is_integer(read) and 0 < read < 20:
        yield Finding("more tokens than the text alone", str(read), at="/usage/prompt_tokens")
