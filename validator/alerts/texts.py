"""What people read: one alert as a message, in plain text, Markdown and HTML. Pure.

Much of it was sent by the provider that fails, so it is shown as what it is: in Markdown and HTML
between marks of code, and never so that it calls the readers of a channel.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from roadworthy.validator.alerts.kinds import Kind, Severity

Form = Literal["text", "markdown", "html"]
PREFIX = "[roadworthy]"
_CALLS = re.compile(r"@(?=\w)|<(?=[!@#])")
_BACKTICKS = re.compile(r"`+")


@dataclass(frozen=True, slots=True)
class Item:
    """One mapping, or one fact: what it is, what is known of it, and what to type."""

    heading: str
    lines: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """All of one kind. `others` are further ones that are not shown."""

    heading: str
    items: tuple[Item, ...] = ()
    others: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What one channel is sent. `is_good`: it tells of nothing bad."""

    title: str
    severity: Severity
    is_good: bool
    sections: tuple[Section, ...]
    footer: tuple[str, ...]

    def render(self, form: Form, max_characters: int | None = None) -> str:
        """The body. Where it is too long, fewer mappings are shown; in the end the text is cut."""
        most = max((len(section.items) for section in self.sections), default=0)
        rendered = _RENDERERS[form](self)
        while max_characters is not None and len(rendered) > max_characters and most > 0:
            most -= 1
            rendered = _RENDERERS[form](_with_at_most(self, most))
        if max_characters is not None and len(rendered) > max_characters:
            # Half a tag or an open mark of code would spoil the rest, so what is cut is plain.
            return _cut(_plain(_with_at_most(self, 0)), max_characters)
        return rendered


def message(
    alert_id: str,
    subject: str,
    content: Mapping[str, Any],
    *,
    kinds: Collection[str] = (),
    least: Severity = Severity.WARNING,
) -> Message | None:
    """What a channel is told that wants these kinds, and what is at least so grave; None where that is nothing."""
    told = [
        (kind, content[kind.value])
        for kind in Kind
        if kind.value in content and (not kinds or kind.value in kinds) and kind.severity.rank >= least.rank
    ]
    if not told:
        return None
    name = subject or "the validator"
    sections = tuple(_section(kind, noted, name) for kind, noted in told)
    footer = (*_now(content.get("now"), subject), f"Alert {alert_id}")
    return Message(
        title=_cut(f"{PREFIX} {_title(told, name)}", 200),
        severity=max((kind.severity for kind, _ in told), key=lambda severity: severity.rank),
        is_good=all(kind.is_good for kind, _ in told),
        sections=sections,
        footer=footer,
    )


def clock(at_us: int) -> str:
    """A time as messages say it."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(us: int) -> str:
    """A time span in its two greatest units."""
    seconds = max(us, 0) // 1_000_000
    for unit, size, smaller, smaller_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            return f"{whole} {unit} {rest // smaller_size} {smaller}" if rest // smaller_size else f"{whole} {unit}"
    return f"{seconds} s"


def _title(told: Sequence[tuple[Kind, Mapping[str, Any]]], name: str) -> str:
    if told[0][0] is Kind.TEST:
        return "test: alerts reach this channel"
    parts = [_short(kind, noted["count"]) for kind, noted in told]
    flapping = any("times_off" in item for _, noted in told for item in noted["items"])
    only = told[0][1]["items"]
    # One mapping alone is named.
    if len(told) == 1 and told[0][1]["count"] == 1 and only and "model" in only[0]:
        parts = [f"{only[0]['model']} {_verb(told[0][0])}"]
    return f"{name}: {', '.join(parts)}" + (" (flapping)" if flapping else "")


def _verb(kind: Kind) -> str:
    return {
        Kind.TAKEN_OFF: "taken off the list",
        Kind.BROUGHT_BACK: "is back on the list",
        Kind.DEGRADED: "degraded",
        Kind.RECOVERED: "recovered",
        Kind.REMINDER: "still off the list",
    }[kind]


def _short(kind: Kind, count: int) -> str:
    mappings = f"{count:,} mapping{'s' if count != 1 else ''}"
    return {
        Kind.STALE: "validation has stopped",
        Kind.BRAKE_ON: "brake on, most providers fail at once",
        Kind.DOWN: "DOWN as a whole",
        Kind.FRESH: "validation goes on",
        Kind.BRAKE_OFF: "brake off",
        Kind.UP: "up again",
        Kind.BROUGHT_BACK: f"{mappings} back on the list",
        Kind.REMINDER: "still not well",
    }.get(kind) or f"{mappings} {_verb(kind)}"


_HEADINGS = {
    Kind.STALE: "Validation has stopped: runs are due, and none was published",
    Kind.BRAKE_ON: "The validator suspects itself: most providers fail in the same minutes. It takes nothing off the "
    "list until that ends. Check its own network and DNS first",
    Kind.DOWN: "{name} is down as a whole; one mapping at a time is asked until it answers",
    Kind.FRESH: "Validation goes on",
    Kind.BRAKE_OFF: "The brake is off: failing mappings leave the list again",
    Kind.UP: "{name} answers again; its mappings are tested now and come back as they pass",
    Kind.TAKEN_OFF: "Taken off the list of active providers: {count:,}",
    Kind.BROUGHT_BACK: "Back on the list: {count:,}",
    Kind.DEGRADED: "Degraded (still on the list, but slow or without an ability that is declared): {count:,}",
    Kind.RECOVERED: "Recovered: {count:,}",
    Kind.REMINDER: "Reminder: this still lasts",
    Kind.TEST: "This is a test. Alerts of {name} reach this channel",
}


def _section(kind: Kind, noted: Mapping[str, Any], name: str) -> Section:
    items = tuple(_item(kind, item) for item in noted["items"])
    return Section(_HEADINGS[kind].format(name=name, count=noted["count"]), items, noted["count"] - len(items))


def _item(kind: Kind, item: Mapping[str, Any]) -> Item:
    lines: list[tuple[str, str]] = []
    at_us = item["at_us"]
    if "was_since_us" in item:
        lasted = span(at_us - item["was_since_us"])
        lines.append(("At", f"{clock(at_us)}, after {lasted}" if item["was_since_us"] else clock(at_us)))
    else:
        lines.append(("Since", clock(at_us)))
    if "times_off" in item:
        lines.append(("Flapping", f"{item['times_off']} times off the list within 24 h"))
    finding = item.get("finding")
    if finding and not kind.is_good:
        more = item.get("findings", 1) - 1
        lines.append(("Check", finding["check"] + (f" (and {more} more)" if more else "")))
        lines.append(("Expected", finding["expected"]))
        lines.append(("Got", finding["got"]))
        lines.append(("Remedy", finding["remedy"]))
    elif item.get("reason") and not kind.is_good:
        lines.append(("Why", item["reason"]))
    if item.get("lasting"):
        lines.append(("Lasting", item["lasting"]))
    commands = []
    if finding and not kind.is_good:
        commands.append(f"roadworthy explain {finding['check']}")
    if kind in {Kind.TAKEN_OFF, Kind.REMINDER} and "mapping_id" in item:
        commands.append(_replay(item["mapping_id"], "--failing"))
    elif kind is Kind.DEGRADED and "mapping_id" in item:
        commands.append(_replay(item["mapping_id"], "--passing"))
    shown = tuple((label, value) for label, value in lines if value)
    return Item(_named(item), shown, tuple(commands))


def _replay(mapping_id: str, which: str) -> str:
    return f"roadworthy validator recording {mapping_id} {which} -o run.jsonl && roadworthy replay run.jsonl"


def _named(item: Mapping[str, Any]) -> str:
    if "model" not in item:
        return ""
    return f"{item['model']} ({item['task']}, as {item['provider_model']})"


def _now(now: Mapping[str, Any] | None, subject: str) -> list[str]:
    if not now:
        return []
    lines = []
    if now.get("mappings"):
        degraded = f", {now['degraded']:,} degraded" if now["degraded"] else ""
        lines.append(f"Now: {now['off']:,} of {now['mappings']:,} mappings of {subject} are off the list{degraded}.")
    if now.get("braked"):
        lines.append("The brake is on: nothing is taken off the list.")
    return lines


def _with_at_most(message: Message, most: int) -> Message:
    sections = tuple(
        replace(section, items=section.items[:most], others=section.others + max(0, len(section.items) - most))
        for section in message.sections
    )
    return replace(message, sections=sections)


def _others(section: Section) -> str:
    return f"and {section.others:,} more" if section.items else f"{section.others:,} in all"


def _plain(message: Message) -> str:
    lines: list[str] = []
    for section in message.sections:
        lines.append(_quiet(section.heading))
        for item in section.items:
            if item.heading:
                lines.append(f"- {_quiet(item.heading)}")
            lines += [f"  {label}: {_quiet(value)}" for label, value in item.lines]
            lines += [f"  $ {command}" for command in item.commands]
        if section.others and section.items:
            lines.append(f"  {_others(section)}")
        lines.append("")
    return "\n".join([*lines, *message.footer])


def _markdown(message: Message) -> str:
    lines: list[str] = []
    for section in message.sections:
        lines += [f"**{_bare(section.heading)}**", ""]
        for item in section.items:
            if item.heading:
                lines.append(f"- {_code(item.heading)}")
            indent = "  - " if item.heading else "- "
            lines += [f"{indent}{label}: {_code(value)}" for label, value in item.lines]
            lines += [f"{indent}{_code(command)}" for command in item.commands]
        if section.others and section.items:
            lines.append(f"- {_others(section)}")
        lines.append("")
    return "\n".join([*lines, "  \n".join(map(_code, message.footer))])


def _html(message: Message) -> str:
    parts: list[str] = []
    for section in message.sections:
        parts.append(f"<p><strong>{_escaped(section.heading)}</strong></p>")
        items = []
        for item in section.items:
            rows = [f"{label}: <code>{_escaped(value)}</code>" for label, value in item.lines]
            rows += [f"<code>{_escaped(command)}</code>" for command in item.commands]
            heading = [f"<b>{_escaped(item.heading)}</b>"] if item.heading else []
            items.append(f"<li>{'<br>'.join(heading + rows)}</li>")
        if section.others and section.items:
            items.append(f"<li>{_others(section)}</li>")
        if items:
            parts.append(f"<ul>{''.join(items)}</ul>")
    parts.append(f"<p>{'<br>'.join(map(_escaped, message.footer))}</p>")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return html.escape(_quiet(text))


def _code(text: str) -> str:
    """As code: the fence is longer than any in the text, so that the text cannot end it."""
    quiet = _quiet(text)
    fence = "`" * (max((len(ticks) for ticks in _BACKTICKS.findall(quiet)), default=0) + 1)
    space = " " if quiet[:1] == "`" or quiet[-1:] == "`" else ""
    return f"{fence}{space}{quiet}{space}{fence}"


def _bare(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", _quiet(text))


def _quiet(text: str) -> str:
    """A text that calls nobody: `@everyone` and `<!channel>` get a space that is not seen."""
    return _CALLS.sub(lambda match: match[0] + "\u200b", text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


_RENDERERS = {"text": _plain, "markdown": _markdown, "html": _html}
