"""Runs huggingface_hub or the openai SDK on recorded answers. A script: a job on stdin, results on stdout.

The job is one JSON object (see `ask.py`), each result one line of JSON: `{"version"}` first, one with `n` and
`method` for each call, `{"n"}` when a question is finished, `{"done"}` at the end, or `{"fault"}`. Connections to
anything but the replayer are refused by an audit hook, below every library, and reported.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

HOST = "127.0.0.1"
PROVIDER = "roadworthy"
SAID_CHARS = 600
ERROR_CHARS = 1500
SAMPLES = 3
"""Items of a stream shown; all of them are read."""
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
SENDS = ("socket.connect", "socket.sendto", "socket.sendmsg")
OPENAI_LIKE = ("deepinfra", "together", "scaleway", "nscale")
"""Providers whose helpers speak OpenAI's routes; the first that has a task lends the helper's checks for it."""
Call = tuple[str, Callable[[], Any]]


class BlockedError(Exception):
    """The client tried to leave loopback."""


class LateError(Exception):
    """The client came to no end."""


class Guard:
    """Refuses every connection and look-up but those of the replayer's address, and remembers what was tried."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.blocked: list[str] = []
        self.sent = False
        """Whether the replayer was reached since this was last set; it keeps no connection open."""

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Look at an audit event. Raises BlockedError for one that would leave loopback."""
        if event in LOOKUPS and args[0] not in (HOST, HOST.encode()):
            self._block(f"a look-up of {args[0]!r}")
        elif event in SENDS and args[1] != (HOST, self.port):
            self._block(f"a connection to {args[1]!r}")
        elif event == "socket.connect":
            self.sent = True

    def _block(self, what: str) -> None:
        self.blocked.append(what)
        raise BlockedError(f"blocked {what}: only the replayer may be reached")


def main() -> None:
    """Read the job, ask every question, write the results."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not pass for a result

    def tell(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    job = json.load(sys.stdin)
    guard = Guard(job["port"])
    sys.addaudithook(guard)
    try:
        client: HuggingFace | OpenAI = HuggingFace(job) if job["client"] == "python" else OpenAI(job)
    except Exception as error:  # noqa: BLE001 - whatever a release of the library lacks
        tell(fault=f"{type(error).__name__}: {error}"[:ERROR_CHARS])
        return
    tell(version=client.version)
    for question in job["questions"]:
        try:
            for method, call in client.calls(question):
                guard.blocked.clear()
                guard.sent = False
                tell(n=question["n"], method=method, **outcome(call, guard, client.api_errors, job["timeout_s"]))
        except Exception as error:  # noqa: BLE001 - likewise
            tell(fault=f"{type(error).__name__}: {error}"[:ERROR_CHARS])
            return
        tell(n=question["n"])
    tell(done=True)


@contextlib.contextmanager
def bounded(timeout_s: float) -> Iterator[list[str]]:
    """Interrupt what runs inside after `timeout_s`, where the system can, and say so in the list that is given."""
    late: list[str] = []

    def interrupt(*_: Any) -> None:
        late.append(f"the client came to no end within {timeout_s:g} s")
        raise LateError(late[0])

    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield late
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def outcome(call: Callable[[], Any], guard: Guard, api_errors: tuple[type, ...], timeout_s: float) -> dict[str, Any]:
    """What a call gave: `said`, `error` where it raised, and whether the answer was `judged` by it.

    It was not where the call lacked a package, raised before it sent anything, or was interrupted: a slow machine
    is no fault of the answer.
    """
    said, thrown, late = "", None, []
    try:
        with bounded(timeout_s) as late:
            said = excerpt(call())
    except ImportError as error:  # numpy or Pillow, which some methods of huggingface_hub use
        thrown = {"type": type(error).__name__, "message": str(error)[:ERROR_CHARS], "api": False}
        return {"said": "", "error": thrown, "judged": False}
    except Exception as error:  # noqa: BLE001 - any error is the client's verdict
        told = {"type": type(error).__name__, "message": str(error)[:ERROR_CHARS], "api": isinstance(error, api_errors)}
        # An answer that stops at the length asked for, or is withheld, is read well and told by an error of its own.
        if type(error).__name__ in ("LengthFinishReasonError", "ContentFilterFinishReasonError"):
            said = f"{told['type']}: {told['message']}"
        else:
            thrown = told
    judged = guard.sent and not late
    if late:  # whatever the client made of being interrupted
        thrown = {"type": "Timeout", "message": late[0], "api": False}
    if guard.blocked:
        thrown = {"type": "BlockedError", "message": f"blocked {guard.blocked[0]}", "api": False}
    return {"said": said[:SAID_CHARS], "error": thrown, "judged": judged or bool(guard.blocked)}


def excerpt(value: Any) -> str:
    """What a call returned, as short JSON."""
    return json.dumps(plain(value, 10), ensure_ascii=False)[:SAID_CHARS]


def plain(value: Any, depth: int) -> Any:
    """A client's object as JSON, cut to few items and levels."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:SAID_CHARS]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if depth == 0:
        return "…"
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_unset=True, warnings=False), depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, depth)
    if isinstance(value, dict):
        kept = [(k, v) for k, v in value.items() if v is not None]
        return {str(k): plain(v, depth - 1) for k, v in kept[:20]}
    if isinstance(value, list | tuple):
        return [plain(item, depth - 1) for item in value[:5]]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), depth)
    if hasattr(value, "size") and hasattr(value, "format"):
        return f"{value.format} image of {'x'.join(map(str, value.size))}"
    return type(value).__name__


def read_all(stream: Any, use: Callable[[Any], Any] = id) -> list[Any]:
    """Iterate to the end, use each item as a caller would, and keep the first few."""
    kept: list[Any] = []
    for item in stream:
        use(item)
        if len(kept) < SAMPLES:
            kept.append(item)
    return kept


def delta_of(chunk: Any) -> None:
    """What every caller reads of a chunk of a chat stream."""
    for choice in chunk.choices:
        _ = choice.delta.content


def message_of(completion: Any) -> Any:
    """What every caller reads of a chat completion."""
    _ = completion.choices[0].message.content
    return completion


class HuggingFace:
    """huggingface_hub's InferenceClient: as a provider of its own, or with the URL of a task."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.version = version("huggingface_hub")
        self.job = job
        self.hub = importlib.import_module("huggingface_hub")
        self.providers = importlib.import_module("huggingface_hub.inference._providers")
        self.common = importlib.import_module("huggingface_hub.inference._providers._common")
        self.mapping = importlib.import_module("huggingface_hub.hf_api").InferenceProviderMapping
        errors = importlib.import_module("huggingface_hub.errors")
        self.api_errors = (errors.HfHubHTTPError, errors.InferenceTimeoutError)

    def calls(self, question: dict[str, Any]) -> Iterator[Call]:
        """The methods that read this answer."""
        task, api = question["task"], question["api"]
        if api == "openai":
            client = self._as_provider(task, question)
        elif api == "serverless":
            client = self.hub.InferenceClient(
                base_url=question["url"], api_key=self.job["key"], timeout=self.job["timeout_s"]
            )
        else:
            return
        if client is None:
            return
        if task == "chat-completion":
            yield self._chat(client, question)
        elif task == "text-generation":
            # No release reads a stream of OpenAI's completions, whoever sends it, so that says nothing of an answer.
            if not (question["stream"] and api == "openai"):
                yield self._text(client, question)
        else:
            yield from self._task(client, task, question)

    def _as_provider(self, task: str, question: dict[str, Any]) -> Any:
        """A client of a provider made up here, whose helper is one that speaks OpenAI's routes; None without one."""
        name = "conversational" if task == "chat-completion" else task
        if name == "conversational":
            helper = self.common.BaseConversationalTask(PROVIDER, question["url"])
        else:
            known = self.providers.PROVIDERS
            model = next((known[p][name] for p in OPENAI_LIKE if name in known.get(p, {})), None)
            if model is None:
                return None
            helper = copy.copy(model)
            helper.provider, helper.base_url = PROVIDER, question["url"]
        self.providers.PROVIDERS[PROVIDER] = {name: helper}
        self.common.HARDCODED_MODEL_INFERENCE_MAPPING[PROVIDER] = {
            question["model"]: self.mapping(
                provider=PROVIDER,
                hf_model_id=question["model"],
                providerId=question["model"],
                task=name,
                status="live",
            )
        }
        return self.hub.InferenceClient(
            provider=PROVIDER, model=question["model"], api_key=self.job["key"], timeout=self.job["timeout_s"]
        )

    def _chat(self, client: Any, question: dict[str, Any]) -> Call:
        given = {name: question[name] for name in ("tools", "response_format") if question[name]}
        if question["stream"]:
            return "chat_completion(stream=True)", lambda: read_all(
                client.chat_completion(question["messages"], stream=True, **given), delta_of
            )
        return "chat_completion", lambda: message_of(client.chat_completion(question["messages"], **given))

    def _text(self, client: Any, question: dict[str, Any]) -> Call:
        prompt, details = question["inputs"], question["details"]
        if question["stream"]:
            return "text_generation(stream=True)", lambda: read_all(
                client.text_generation(prompt, stream=True, details=details)
            )
        return "text_generation", lambda: client.text_generation(prompt, details=details)

    def _task(self, client: Any, task: str, question: dict[str, Any]) -> Iterator[Call]:
        method, give = ARGUMENTS.get(task, ("", None))
        if give is not None and hasattr(client, method):
            yield method, lambda: _promised(task, getattr(client, method)(**give(question)))


def _promised(task: str, result: Any) -> Any:
    """What a method returned, where it is a list if its documentation promises one; the client does not look itself."""
    if task in LISTS:
        expect(isinstance(result, list), f"a list is promised, and {type(result).__name__} came")
    return result


def _one(name: str, *, binary: bool = False) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def give(question: dict[str, Any]) -> dict[str, Any]:
        return {name: base64.b64decode(question["inputs"]) if binary else question["inputs"]}

    return give


def _image_and_question(question: dict[str, Any]) -> dict[str, Any]:
    return {"image": base64.b64decode(question["inputs"]["image"]), "question": question["inputs"]["question"]}


ARGUMENTS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "audio-classification": ("audio_classification", _one("audio", binary=True)),
    "audio-to-audio": ("audio_to_audio", _one("audio", binary=True)),
    "automatic-speech-recognition": ("automatic_speech_recognition", _one("audio", binary=True)),
    "document-question-answering": ("document_question_answering", _image_and_question),
    "feature-extraction": ("feature_extraction", _one("text")),
    "fill-mask": ("fill_mask", _one("text")),
    "image-classification": ("image_classification", _one("image", binary=True)),
    "image-segmentation": ("image_segmentation", _one("image", binary=True)),
    "image-to-image": ("image_to_image", _one("image", binary=True)),
    "image-to-text": ("image_to_text", _one("image", binary=True)),
    "object-detection": ("object_detection", _one("image", binary=True)),
    "question-answering": ("question_answering", lambda q: q["inputs"]),
    "sentence-similarity": (
        "sentence_similarity",
        lambda q: {"sentence": q["inputs"]["source_sentence"], "other_sentences": q["inputs"]["sentences"]},
    ),
    "summarization": ("summarization", _one("text")),
    "table-question-answering": ("table_question_answering", lambda q: q["inputs"]),
    "tabular-classification": ("tabular_classification", _one("table")),
    "text-classification": ("text_classification", _one("text")),
    "text-to-image": ("text_to_image", _one("prompt")),
    "text-to-speech": ("text_to_speech", _one("text")),
    "token-classification": ("token_classification", _one("text")),
    "translation": ("translation", _one("text")),
    "visual-question-answering": ("visual_question_answering", _image_and_question),
    "zero-shot-classification": (
        "zero_shot_classification",
        lambda q: {"text": q["inputs"], "candidate_labels": q["labels"]},
    ),
    "zero-shot-image-classification": (
        "zero_shot_image_classification",
        lambda q: {"image": base64.b64decode(q["inputs"]), "candidate_labels": q["labels"]},
    ),
}
"""By task, the method and what it is given. `tabular_regression` is left out: it raises for every answer."""
LISTS = (
    "audio-classification",
    "image-classification",
    "image-segmentation",
    "object-detection",
    "text-classification",
    "token-classification",
    "visual-question-answering",
    "zero-shot-classification",
    "zero-shot-image-classification",
)
"""The tasks whose methods promise a list."""


class OpenAI:
    """The openai SDK, with its base URL at the replayer and retries off."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.version = version("openai")
        self.openai = importlib.import_module("openai")
        self.api_errors = (self.openai.APIStatusError,)
        self.client = self.openai.OpenAI(api_key=job["key"], max_retries=0, timeout=job["timeout_s"])

    def calls(self, question: dict[str, Any]) -> Iterator[Call]:
        """The methods that read this answer."""
        client = self.client.with_options(base_url=question["url"] + "/v1")
        if question["api"] == "responses":
            yield from self._responses(client, question)
        elif question["api"] == "openai":
            if question["task"] == "chat-completion":
                yield from self._chat(client, question)
            else:
                yield from self._task(client, question)

    def _chat(self, client: Any, question: dict[str, Any]) -> Iterator[Call]:
        base = {"model": question["model"], "messages": question["messages"]}
        given = base | {name: question[name] for name in ("tools", "response_format") if question[name]}
        create = client.chat.completions.create
        if question["stream"]:
            yield "chat.completions.create(stream=True)", lambda: read_all(create(**given, stream=True), delta_of)
            yield "chat.completions.stream", lambda: self._accumulated(client, base)
            return
        yield "chat.completions.create", lambda: message_of(create(**given))
        shape = shape_of(question["schema"])
        if shape is not None:
            yield (
                "chat.completions.parse",
                lambda: message_of(client.chat.completions.parse(**base, response_format=shape)),
            )

    @staticmethod
    def _accumulated(client: Any, base: dict[str, Any]) -> Any:
        """The completion that the SDK joins from a stream. Tools are not given, for it takes only strict ones."""
        with client.chat.completions.stream(**base) as stream:
            return message_of(stream.get_final_completion())

    def _responses(self, client: Any, question: dict[str, Any]) -> Iterator[Call]:
        given = {"model": question["model"], "input": question["input"]}
        if question["stream"]:
            yield "responses.create(stream=True)", lambda: read_all(client.responses.create(**given, stream=True))
            return
        yield "responses.create", lambda: output_of(client.responses.create(**given))
        shape = shape_of(question["schema"])
        if shape is not None:
            yield "responses.parse", lambda: output_of(client.responses.parse(**given, text_format=shape))

    def _task(self, client: Any, question: dict[str, Any]) -> Iterator[Call]:
        task, given = question["task"], {"model": question["model"]}
        if task == "text-generation":
            given |= {"prompt": question["inputs"]}
            if question["stream"]:
                yield (
                    "completions.create(stream=True)",
                    lambda: read_all(
                        client.completions.create(**given, stream=True), lambda chunk: [c.text for c in chunk.choices]
                    ),
                )
            else:
                yield "completions.create", lambda: used(client.completions.create(**given), text_of)
        elif task == "feature-extraction":
            given |= {"input": question["inputs"]}
            if question["encoding_format"]:
                given |= {"encoding_format": question["encoding_format"]}
            yield "embeddings.create", lambda: used(client.embeddings.create(**given), vectors_of)
        elif task == "text-to-image":
            given |= {"prompt": question["inputs"]}
            yield "images.generate", lambda: used(client.images.generate(**given), image_of)
        elif task == "automatic-speech-recognition":
            given |= {"file": ("audio.wav", base64.b64decode(question["inputs"]))}
            if question["plain"]:
                given |= {"response_format": "text"}
            yield "audio.transcriptions.create", lambda: used(client.audio.transcriptions.create(**given), words_of)
        elif task == "text-to-speech":
            given |= {"input": question["inputs"], "voice": "alloy"}
            yield "audio.speech.create", lambda: filled(client.audio.speech.create(**given).read())


def used(value: Any, use: Callable[[Any], Any]) -> Any:
    """`value`, after it was used as a caller would."""
    use(value)
    return value


def text_of(completion: Any) -> None:
    """What every caller reads of a text completion."""
    expect(isinstance(completion.choices[0].text, str), "choices[0].text is no string")


def vectors_of(answer: Any) -> None:
    """What every caller reads of embeddings."""
    vectors = [item.embedding for item in answer.data]
    expect(bool(vectors) and all(isinstance(v, list) and v for v in vectors), "data holds no embedding that is a list")


def image_of(answer: Any) -> None:
    """What every caller reads of a generated image."""
    image = answer.data[0]
    expect(isinstance(image.b64_json or image.url, str), "data[0] has neither b64_json nor url")
    if image.b64_json:
        base64.b64decode(image.b64_json)


def words_of(transcription: Any) -> None:
    """What every caller reads of a transcription."""
    text = transcription if isinstance(transcription, str) else transcription.text
    expect(isinstance(text, str), "text is no string")


def output_of(response: Any) -> Any:
    """What every caller reads of a response: its text, which joins the outputs."""
    expect(isinstance(response.output, list), "output is no list")
    _ = response.output_text
    return response


def filled(data: bytes) -> bytes:
    """Bytes that are there."""
    expect(bool(data), "the body is empty")
    return data


def expect(holds: bool, message: str) -> None:
    """Raise as a caller's use of the value would."""
    if not holds:
        raise TypeError(f"what the client returned cannot be used: {message}")


def shape_of(schema: dict[str, Any] | None) -> Any:
    """A pydantic model for `.parse`, of what a JSON schema says of types; None where it describes no object.

    What the schema says beyond types is left out: whether an answer obeys it is not the client's to judge.
    """
    if not schema or schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        return None
    pydantic = importlib.import_module("pydantic")

    def type_of(part: Any, depth: int) -> Any:
        if not isinstance(part, dict) or depth == 0:
            return Any
        kind = part.get("type")
        if isinstance(part.get("enum"), list):
            return Any
        if kind == "object" and isinstance(part.get("properties"), dict):
            required = part.get("required")
            named = required if isinstance(required, list) else []
            fields: Any = {
                f"field_{number}": (
                    type_of(value, depth - 1) if name in named else type_of(value, depth - 1) | None,
                    pydantic.Field(alias=name) if name in named else pydantic.Field(None, alias=name),
                )
                for number, (name, value) in enumerate(part["properties"].items())
            }
            return pydantic.create_model("Answer", **fields)
        if kind == "array":
            return list[type_of(part.get("items"), depth - 1)]  # type: ignore[misc]
        simple = {"string": str, "integer": int, "number": float, "boolean": bool}
        return simple.get(kind, Any) if isinstance(kind, str) else Any

    return type_of(schema, 6)


if __name__ == "__main__":
    main()
