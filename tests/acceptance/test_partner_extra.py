"""What the README shows a provider works as it stands, and the extra is as small as it is said to be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

from roadworthy.sandbox.server import running

README = Path(__file__).resolve().parents[2] / "README.md"
SECTION = "## For a provider: telling what each request cost"


def shown(language):
    section = README.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_the_example_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [program] = shown("python")
    names = {"__name__": "app"}
    exec(compile(program, "README.md", "exec", dont_inherit=True), names)
    try:
        with running(names["app"]) as url:
            answer = httpx.post(f"{url}/chat/completions", json={})
            key = {"Authorization": "Bearer the key that the hub uses for inference"}
            id = answer.headers["Inference-Id"]
            told = httpx.post(f"{url}/request-costs", json={"requestIds": [id]}, headers=key)
    finally:
        names["app"].close()
    assert answer.json()["usage"]["total_tokens"] == 15
    assert told.json() == {"requests": [{"requestId": id, "costNanoUsd": 12 * 200 + 3 * 600}]}
    example = shown("sh")[1]
    assert re.sub("[0-9a-f-]{36}", id, example.splitlines()[2]) == f"# {told.text}"
    assert (tmp_path / "costs.db").exists()


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_the_arithmetic_and_the_sandbox_need_no_database():
    ended = run(
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from roadworthy.partner import Price, Tokens\n"
        "import roadworthy.sandbox.app\n"
        "print(Price(input='0.2', output='0.6').cost_nano_usd(Tokens(1, 1)))\n"
        "from roadworthy.partner import CostMiddleware"
    )
    assert ended.stdout == "800\n"
    assert ended.stderr.endswith("ConfigError: the middleware needs sqlalchemy: pip install 'roadworthy[partner]'\n")


def test_the_middleware_needs_no_framework_and_no_migrations():
    absent = ("fastapi", "starlette", "alembic", "pydantic", "aiosqlite", "psycopg", "aiohttp", "structlog", "uvicorn")
    ended = run(
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from roadworthy.partner import CostMiddleware\n"
        "CostMiddleware(None, database_url='sqlite:///a.db', prices={}, api_key='k').close()\n"
        "CostMiddleware(None, database_url='postgresql://h/a', prices={}, api_key='k')"
    )
    assert ended.stderr.endswith(
        "ConfigError: PostgreSQL needs psycopg: pip install 'roadworthy[partner,postgres]'\n"
    ), ended.stderr
