import io

import pytest
from exchanges import completion, exchange
from reports import HOSTILE, STREAM, every_verdict, green, report, result, rule, streamed
from rich.console import Console

from roadworthy.conformance.report import terminal
from roadworthy.conformance.run import Progress
from roadworthy.conformance.verdict import Finding, Verdict


def shown(made, width=80, **kwargs) -> str:
    file = io.StringIO()
    terminal.show(made, Console(file=file, width=width, highlight=False, **kwargs))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_all_green_fits_a_screen(width):
    said = shown(report(green(), *(streamed(f"latency.first_token#{n}", *STREAM) for n in range(1, 6))), width)
    lines = said.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]
    for words in ("✓ PASS", "acme/chat-1", "120 passed", "first token 100 ms median", "limit 5 s", "warm-up"):
        assert words in said


def test_a_failure_says_what_came_how_to_mend_it_and_how_to_see_it_again():
    said = shown(report(every_verdict(), streamed("chat.stream#1", *STREAM)))
    flat = " ".join(said.split())
    for words in (
        "✗ FAIL chat.must MUST (hub, openai)", "The rule of `chat.must`.", "expected good", "got bad",
        "at /choices/0 of chat.basic#1", "also at event 1 /id of chat.stream#1", "remedy Send `it`.",
        "! WARN chat.stream.should", "could not tell: bad: tools.rule", "not declared bad: vision.rule",
        "0 of 4 trials passed", "1 known to the baseline",
    ):  # fmt: skip
        assert words in flat, words
    [line] = [line for line in said.splitlines() if "curl" in line and "it'\"'\"'s" in line][:1]
    assert line.endswith("}'"), "the curl line is one line, however narrow the terminal"


def test_what_empties_a_verdict_comes_first():
    check = rule("target.answers")
    rows = [(check, result(check, Verdict.INCONCLUSIVE, reason="could not tell: HTTP 401"))]
    locked = report(rows)
    refused = tuple(exchange(probe, {"error": {}}, status=401) for probe in ("warmup", "discovery.models"))
    object.__setattr__(locked.models[0].run, "exchanges", refused)
    said = shown(locked)
    assert "Every request was answered 401" in " ".join(said.split())
    assert said.index("Every request") < said.index("checks")
    said = " ".join(shown(report(every_verdict(), stale_baseline=("x on a",))).split())
    assert "x on a no longer fails" in said
    assert "1 failure known to the baseline did not count" in said


def test_no_colour_without_a_terminal_nor_with_no_color(monkeypatch):
    made = report(every_verdict())
    assert "\x1b" not in shown(made)
    assert "\x1b[1;31m" in shown(made, force_terminal=True, color_system="standard", no_color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(made, force_terminal=True)


def test_a_server_cannot_draw_on_the_terminal():
    said = shown(report(every_verdict(HOSTILE)))
    assert not set("\x1b\x9b\x00\u202e\ud800") & set(said)
    assert "[link" not in said
    assert "**b** [l](http://x.example)" in " ".join(said.split())


def test_a_console_that_knows_no_unicode_is_served_too():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    terminal.show(report(every_verdict("é")), Console(file=file, width=80))
    file.flush()
    assert b"FAIL  chat.must" in raw.getvalue()


def test_several_models_are_told_apart():
    said = shown(report(every_verdict(), models=("acme/a", "acme/b")))
    assert "2 models" in said
    for name in ("acme/a", "acme/b"):
        assert f"✗ FAIL  {name}" in said
        assert f"failures of {name}" in said


def steps(watch, total=5):
    callback = watch.model("acme/chat-1")
    for number in range(1, total + 1):
        callback(Progress(exchange("chat.basic", completion(), trial=number), number, total))
    watch.close()
    watch.close()


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch):
    file = io.StringIO()
    steps(terminal.Watch(Console(file=file, width=80)))
    assert file.getvalue() == "roadworthy: asking acme/chat-1\n"
    monkeypatch.setattr(terminal, "SILENCE_S", 0.0)
    steps(terminal.Watch(Console(file=file, width=80)), 2)
    assert file.getvalue().splitlines()[-1] == "roadworthy: acme/chat-1: 2 of about 2 requests answered"


def test_on_a_terminal_progress_is_a_bar_that_leaves_nothing_behind():
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, force_interactive=True)
    steps(terminal.Watch(console))
    assert "acme/chat-1" in file.getvalue()
    assert file.getvalue().rstrip().endswith(("\x1b[2K", "\x1b[?25h"))


def test_a_quiet_console_stays_quiet():
    file = io.StringIO()
    console = Console(file=file, width=80, quiet=True, force_terminal=True)
    steps(terminal.Watch(console))
    terminal.show(report(every_verdict()), console)
    assert file.getvalue() == ""


def test_a_long_command_points_to_the_recording():
    check = rule("errors.too_long")
    long = exchange("errors.too_long", {"error": {}}, sent={"text": "x" * 100_000})
    rows = [(check, result(check, Verdict.FAIL, Finding("400", "500", exchange_id=long.id)))]
    assert "jq -jn" in shown(report(rows, long))
    assert len(shown(report(rows, long))) < 5000
