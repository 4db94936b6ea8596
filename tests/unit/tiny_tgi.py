"""A text-generation server of a few lines, written against the published routes alone, with faults to switch on."""

from __future__ import annotations

import json

ROUTES = {
    ("POST", "/generate"), ("POST", "/generate_stream"), ("POST", "/tokenize"),
    ("GET", "/info"), ("GET", "/health"), ("GET", "/metrics"),
}  # fmt: skip
TYPES = {
    "max_new_tokens": int, "temperature": (int, float), "top_p": (int, float), "top_k": int, "details": bool,
}  # fmt: skip


class Tiny:
    """An ASGI application. `faults` holds the names of what is wrong with it."""

    def __init__(self, *faults):
        self.faults = set(faults)
        self.requests = []

    async def __call__(self, scope, receive, send):
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        self.requests.append((scope["method"], scope["path"], raw))
        status, kind, body = self.answer(scope["method"], scope["path"], raw)
        if status is None:
            raise ConnectionAbortedError("the worker died")
        headers = [(b"content-type", kind.encode())] if kind else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def answer(self, method, path, raw):
        if (method, path) not in ROUTES:
            return self.error(404, f"nothing at {path}")
        if method == "GET":
            if path == "/info":
                return (
                    200,
                    "application/json",
                    json.dumps(
                        {"model_id": "tiny", "version": "1", "max_total_tokens": 64, "max_input_tokens": 32}
                    ).encode(),
                )
            return 200, "text/plain" if path == "/metrics" else "", b""
        try:
            body = json.loads(raw)
        except ValueError:
            if "garbage" in self.faults:
                return None, "", b""
            return self.error(422, "not JSON")
        wrong = self.wrong(body)
        if wrong:
            return self.error(422, wrong)
        return self.good(path, body)

    def wrong(self, body):
        if not isinstance(body, dict):
            return "not an object"
        text = body.get("inputs")
        if not isinstance(text, str) and "inputs_unread" not in self.faults:
            return "inputs must be a text"
        given = body.get("parameters")
        if given is not None and not isinstance(given, dict):
            return "parameters must be an object"
        for name, types in TYPES.items():
            value = (given or {}).get(name)
            if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and types is not bool)):
                return f"{name} has a wrong type"
        return None

    def good(self, path, body):
        given = body.get("parameters") or {}
        text = str(body.get("inputs"))
        if "crash" in self.faults and "temperature" in given:
            return 500, "application/json", b'{"error": "internal"}'
        if path == "/tokenize":
            tokens = [{"id": ord(c), "text": c, "start": i, "stop": i + 1} for i, c in enumerate(text)]
            return 200, "application/json", json.dumps(tokens).encode()
        known = {"finish_reason": "length", "generated_tokens": 1, "seed": None}
        token = {"id": 1, "text": "a", "logprob": -0.5, "special": False}
        if path == "/generate_stream":
            if "stream_shape" in self.faults and given.get("details"):
                del token["text"]
            event = {"token": token, "generated_text": "a", "details": known}
            return 200, "text/event-stream", b"data:" + json.dumps(event).encode() + b"\n\n"
        answer = {"generated_text": "a"}
        if given.get("details"):
            answer["details"] = {**known, "tokens": [token], "prefill": []}
        if "shape" in self.faults and given.get("do_sample"):
            answer = [answer]
        if "always_shape" in self.faults:
            answer = {"text": "a"}
        kind = "text/html" if "type" in self.faults and given.get("details") else "application/json"
        status = 207 if "status" in self.faults and "stop" in given else 200
        return status, kind, json.dumps(answer).encode()

    def error(self, status, text):
        return status, "application/json", json.dumps({"error": text, "error_type": "validation"}).encode()
