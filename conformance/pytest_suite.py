"""The provider's checks as pytest items: one item per check and model, the requests sent once.

The items are of a class of their own, not test functions: a repository's
fixtures, its event-loop plugin and its `python_files` setting have no say in
what a provider is asked. Under pytest-xdist the first worker that needs an
answer asks, and all judge from its recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from roadworthy.config import read_toml, validate
from roadworthy.conformance import baseline as baselines
from roadworthy.conformance import recording, session
from roadworthy.conformance.adapter import adapted
from roadworthy.conformance.baseline import Baseline
from roadworthy.conformance.check import Check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.plan import select
from roadworthy.conformance.pytest_plugin import PACKAGE, SHORT, dest
from roadworthy.conformance.report.curl import curl, key_variable
from roadworthy.conformance.report.model import Report
from roadworthy.conformance.report.text import one_line
from roadworthy.conformance.run import Run
from roadworthy.conformance.settings import CheckSettings, merge, target
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.target import Target
from roadworthy.conformance.verdict import CheckResult, Level, Verdict
from roadworthy.errors import ConfigError, RoadworthyError, UsageError

T = TypeVar("T")
FOLDER = Path(__file__).resolve().parent
DEFAULT_CONFIG = "roadworthy.toml"
WARNING = "roadworthy_warning"
SHARED = "roadworthy_shared"


@dataclass
class Inquiry:
    """One provider and what is asked of it in this pytest session; answers come on first use.

    `shared` is the folder of the workers of one pytest-xdist run, None without it.
    """

    provider: Target
    settings: CheckSettings
    known: Baseline
    shared: Path | None = None
    say: Callable[[str], None] = lambda _: None
    report: Report | None = None
    fault: Exception | None = None
    results: Mapping[tuple[str, str], CheckResult] = field(default_factory=dict)
    doubtful: frozenset[str] = frozenset()
    """The models of which nothing could be judged at all."""

    def answer(self, wanted: Mapping[str, Sequence[Check]]) -> None:
        """Ask for what these checks read (per model), once, and judge it. Never raises: items say what went wrong."""
        if self.report is not None or self.fault is not None:
            return
        started = time.monotonic()
        try:
            with warnings.catch_warnings():
                # The user's `-W error` is about the user's code, not about our dependencies.
                warnings.simplefilter("ignore")
                runs = self._shared(wanted) if self.shared else self._ask(wanted)
                self.report = session.report(runs, "", time.monotonic() - started, self.known)
        except Exception as error:  # noqa: BLE001 - one broken run must not end the user's other tests
            self.fault = error
            return
        self.results = {(model.model, row.check_id): row for model in self.report.models for row in model.results}
        self.doubtful = frozenset(m.model for m in self.report.models if m.verdict is Verdict.INCONCLUSIVE)

    def reproduce(self, model: str, exchange_id: str) -> str:
        """The command that sends an exchange's request again, empty where there is none of this id."""
        run = next((m.run for m in self.report.models if m.model == model), None) if self.report else None
        exchange: Exchange | None = next((x for x in run.exchanges if x.id == exchange_id), None) if run else None
        record = str(self.settings.reports.record or "run.jsonl")
        return curl(exchange, record, key_variable(exchange, run.facts)) if exchange and run else ""

    def _shared(self, wanted: Mapping[str, Sequence[Check]]) -> list[Run]:
        """What another worker recorded, or else ask and record."""
        try:
            from filelock import FileLock
        except ImportError:
            raise UsageError(
                'pytest-xdist needs filelock, so that the provider is asked once: pip install "roadworthy[pytest]"'
            ) from None
        folder = self.shared or Path()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "run.jsonl"
        with FileLock(folder / "run.lock"):
            if not path.exists():
                runs = self._ask(wanted)
                # Moved into place whole: a worker that dies while writing leaves the next one to ask again.
                _write(folder / "run.part", runs)
                (folder / "run.part").replace(path)
        return recording.read(path)

    def _ask(self, wanted: Mapping[str, Sequence[Check]]) -> list[Run]:
        self.say(f"roadworthy: asking {', '.join(wanted)} at {self.provider.base_url}")
        runs = _apart(lambda: self._send(wanted))
        if self.settings.reports.record:
            _write(self.settings.reports.record, runs)
        return runs

    async def _send(self, wanted: Mapping[str, Sequence[Check]]) -> list[Run]:
        from roadworthy.http.aiohttp_transport import AiohttpTransport

        connection = AiohttpTransport(ca_file=self.settings.target.ca_file)
        transport = adapted(connection, self.settings.adapter, self.provider.base_url, self.provider.cost_endpoint)
        try:
            reports = [
                await session.check(self.provider, [model], self.settings, checks, transport)
                for model, checks in wanted.items()
            ]
        finally:
            await transport.aclose()
        return [model.run for report in reports for model in report.models]


class Folder(pytest.Directory):
    """A folder on the way to the checks; nothing else in it is collected."""

    def collect(self) -> Iterator[pytest.Collector]:
        """The checks' own folder."""
        yield Checks.from_parent(self, path=self.path / FOLDER.name, nodeid=PACKAGE)


class Checks(pytest.Directory):
    """The collector of every check of every model, as the options select them."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item per check and model, and one for the baseline where there is one."""
        try:
            inquiry, checks = _inquire(self.config)
            models = [inquiry.settings.subject(model).label for model in inquiry.settings.target.models]
            chosen = {model: applicable(inquiry, checks, model) for model in models}
        except RoadworthyError as error:
            raise self.CollectError(f"roadworthy: {error}") from None
        for model in models:
            for check in chosen[model]:
                name = check.id if len(models) == 1 else f"{check.id}[{model}]"
                yield CheckItem.from_parent(self, name=name, inquiry=inquiry, check=check, model=model)
        if inquiry.known.entries:
            yield BaselineItem.from_parent(self, name="baseline", inquiry=inquiry)


def applicable(inquiry: Inquiry, checks: Sequence[Check], model: str) -> list[Check]:
    """The checks that have anything to do with a model's task and API. Raises `UsageError` where none has."""
    facts = inquiry.settings.facts(inquiry.provider, Subject.parse(model), 0)
    chosen = [check for check in checks if check.applies(facts)]
    if not chosen:
        raise UsageError(f"{model}: none of the selected checks is about its task and API")
    return chosen


class ProviderItem(pytest.Item):
    """What both kinds of item share.

    The empty attributes are those that conftest.py hooks often read from every
    item, having only met test functions.
    """

    fixturenames: tuple[str, ...] = ()
    module = cls = function = obj = None

    def __init__(self, *, inquiry: Inquiry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inquiry = inquiry

    def raise_fault(self) -> None:
        """Fail where no verdict could be come to at all."""
        fault = self.inquiry.fault
        if isinstance(fault, RoadworthyError):
            pytest.fail(f"roadworthy: {fault}", pytrace=False)
        if fault is not None:
            raise fault


class CheckItem(ProviderItem):
    """One check of one model."""

    def __init__(self, *, check: Check, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.model = model

    def runtest(self) -> None:
        """Report the check's verdict in pytest's words."""
        self.raise_fault()
        result = self.inquiry.results[self.model, self.check.id]
        shown = next((finding.exchange_id for finding in result.findings), "")
        text = explain(self.check, result, self.inquiry.reproduce(self.model, shown))
        self.user_properties.append(("roadworthy_verdict", result.verdict.value))
        if result.known:
            pytest.xfail(f"known: {text}")
        match result.verdict:
            case Verdict.FAIL:
                pytest.fail(text, pytrace=False)
            case Verdict.WARN:
                self.user_properties.append((WARNING, f"{self.name}: {text}"))
            case Verdict.SKIPPED:
                pytest.skip(result.reason)
            case Verdict.INCONCLUSIVE:
                # As on the command line, doubt about a SHOULD alone does not end a run red; but it never passes.
                if result.level is Level.MUST or self.model in self.inquiry.doubtful:
                    pytest.fail(text, pytrace=False)
                pytest.skip(f"inconclusive: {result.reason}")

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where this stands, for headlines."""
        return self.path, None, f"{self.check.id} ({self.model})"


class BaselineItem(ProviderItem):
    """Whether the baseline is still true: an entry whose failure is gone must go."""

    def runtest(self) -> None:
        """Fail for stale entries."""
        self.raise_fault()
        report = self.inquiry.report
        if report is not None and report.stale_baseline:
            pytest.fail(
                "stale baseline entries, which no longer fail; remove them:\n"
                + "\n".join(f"  {entry}" for entry in report.stale_baseline),
                pytrace=False,
            )

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where this stands, for headlines."""
        return self.path, None, "the baseline of known failures"


class Suite:
    """The hooks of a run that is about the provider's checks."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._temporary: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect the package's folder as the checks it holds, not as files."""
        if path.name == FOLDER.name and path.resolve() == FOLDER:
            return Checks.from_parent(parent, path=path, nodeid=PACKAGE)
        if (path / FOLDER.name).resolve() == FOLDER:
            return Folder.from_parent(parent, path=path)
        return None

    @pytest.hookimpl(tryfirst=True, wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Ask before the first item's clock starts: a per-test timeout is not meant for the whole run."""
        if isinstance(item, ProviderItem):
            wanted: dict[str, list[Check]] = {}
            for other in item.session.items:
                if isinstance(other, CheckItem):
                    wanted.setdefault(other.model, []).append(other.check)
            item.inquiry.answer(wanted)
        return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give all workers of pytest-xdist one folder to share the recording in."""
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="roadworthy-"))
        node.workerinput[SHARED] = str(self._temporary)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List the rules that were broken without turning the run red."""
        texts = [
            text
            for report in terminalreporter.stats.get("passed", [])
            for name, text in report.user_properties
            if name == WARNING
        ]
        if texts:
            terminalreporter.section("roadworthy warnings", yellow=True)
            terminalreporter.write_line("\n\n".join(texts))

    def pytest_unconfigure(self) -> None:
        """Remove the shared folder."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def explain(check: Check, result: CheckResult, command: str = "") -> str:
    """A failed, broken or undecided check in words: what was found, why it matters, how to mend and to repeat it."""
    word = "inconclusive: " if result.verdict is Verdict.INCONCLUSIVE else ""
    lines = [f"{word}{one_line(result.reason, 500) or check.rule}"]
    if result.reason:
        lines.append(f"rule:   {check.rule}")
    for finding in result.findings:
        lines += [
            f"  {finding.exchange_id}{' at ' if finding.at else ''}{one_line(finding.at)}",
            f"    expected: {one_line(finding.expected, 500)}",
            f"    got:      {one_line(finding.got, 500)}",
        ]
        if finding.note:
            lines.append(f"    note:     {one_line(finding.note, 500)}")
    lines += [f"why:    {check.why}", f"source: {check.source} ({check.level})", f"remedy: {check.remedy}"]
    if command:
        lines.append(f"repeat: {command}")
    return "\n".join(lines)


def _inquire(config: pytest.Config) -> tuple[Inquiry, tuple[Check, ...]]:
    """What the options ask for. Raises `UsageError` for options that cannot be used."""

    def option(name: str) -> Any:
        return config.getoption(dest(name))

    record = option("--roadworthy-record")
    flags = {
        "target": {
            "url": option("--provider-url"),
            "models": option("--provider-model"),
            "api_key_env": option("--provider-api-key-env"),
            "billing_url": option("--provider-billing-url"),
            "billing_api_key_env": option("--provider-billing-api-key-env"),
        },
        "limits": {"billing_timeout_s": option("--roadworthy-billing-timeout")},
        "check": {
            "lens": option("--roadworthy-lens"),
            "only": option("--only-check"),
            "exclude": option("--exclude-check"),
            "trials": option("--roadworthy-trials"),
            "max_requests": option("--roadworthy-max-requests"),
            "fuzz_examples": option("--roadworthy-fuzz-examples"),
            "seed": option("--roadworthy-seed"),
            "baseline": option("--roadworthy-baseline"),
        },
        "reports": {"record": record and Path(record).absolute()},
    }
    path = option("--roadworthy-config")
    if path is None and not flags["target"]["url"] and Path(DEFAULT_CONFIG).exists():
        path = DEFAULT_CONFIG
    settings = validate(CheckSettings, merge(read_toml(Path(path)) if path else {}, flags), path or "the command line")
    if not settings.target.url:
        raise ConfigError(
            f"no API to check: give --provider-url URL, as in "
            f"`pytest --pyargs {PACKAGE} --provider-url https://api.example.com/v1 --model NAME`, "
            "or --roadworthy-config FILE"
        )
    if not settings.target.models:
        raise ConfigError(f"which model? Give --provider-model NAME (repeatable).{_who_has_model(config)}")
    checks = select(settings.check.only, settings.check.exclude, settings.check.lens)
    known = baselines.read(settings.check.baseline) if settings.check.baseline else Baseline()
    inquiry = Inquiry(target(settings.target), settings, known)
    shared = getattr(config, "workerinput", {}).get(SHARED)
    if shared:
        inquiry.shared = Path(shared)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.verbosity >= 0:

        def say(text: str) -> None:
            reporter.ensure_newline()
            reporter.write_line(text)

        inquiry.say = say
    return inquiry, checks


def _who_has_model(config: pytest.Config) -> str:
    try:
        other = config.getoption("--model")
    except ValueError:
        return ""
    return "" if other is config.getoption(dest(SHORT["--model"])) else " (--model belongs to another plugin here.)"


def _write(path: Path, runs: Sequence[Run]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        recording.write(file, runs)


def _apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread of its own, since this one may have a loop running (notebooks, Playwright)."""
    outcome: Future[T] = Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def main() -> T:
        task = asyncio.current_task()
        if task is not None:
            running.append((asyncio.get_running_loop(), task))
        return await work()

    def body() -> None:
        try:
            outcome.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread
            outcome.set_exception(error)

    thread = threading.Thread(target=body, name="roadworthy", daemon=True)
    thread.start()
    try:
        return outcome.result()
    except BaseException:
        for loop, task in running:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
