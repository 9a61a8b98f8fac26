"""Measure the dashboard's answers over HTTP, many at once. No test: `python -m tests.bench.pages URL`.

The addresses are drawn at random from the kinds below, for the jobs that `many_jobs` makes; so hardly one is asked for
twice, and no answer comes from a cache of ours.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import httpx

from tests.bench.many_jobs import DAYS, ENGINES, QUEUES, STATUSES, TENANTS, TYPES

Address = tuple[str, dict[str, object]]
_RARE = ("expired", "processing", "scheduled", "retrying", "skipped", "pending")


def _jobs(**query: object) -> Address:
    return "/jobs", query


def _tenant(chance: random.Random) -> str:
    return f"t{chance.randrange(TENANTS)}"


def _time(chance: random.Random) -> dict[str, str]:
    begin = datetime.now(UTC) - timedelta(days=chance.random() * DAYS)
    end = begin + timedelta(hours=chance.choice([1, 6, 24, 24 * 7]))
    return {"from": begin.strftime("%Y-%m-%dT%H:%M"), "to": end.strftime("%Y-%m-%dT%H:%M")}


def _mixed(chance: random.Random) -> Address:
    query: dict[str, object] = {}
    if chance.random() < 0.6:
        query["status"] = chance.sample(STATUSES, chance.choice([1, 1, 2, 3]))
    for name, values in (("type", TYPES), ("queue", QUEUES), ("engine", ENGINES)):
        if chance.random() < 0.35:
            query[name] = chance.choice(values)
    if chance.random() < 0.4:
        query["tenant"] = _tenant(chance)
    if chance.random() < 0.3:
        query |= _time(chance)
    if chance.random() < 0.25:
        query["text"] = chance.choice(["smtp", "timeout", "no such text", "attempt 3"])
    return "/jobs", query


#: What is asked for: a name, and how an address of that kind is drawn.
SEARCHES: Mapping[str, Callable[[random.Random], Address]] = {
    "newest": lambda _: _jobs(),
    "a tenant": lambda chance: _jobs(tenant=_tenant(chance)),
    "a status": lambda chance: _jobs(status=chance.choice(STATUSES)),
    "a rare status": lambda chance: _jobs(status=chance.choice(_RARE)),
    "a rare status of a tenant": lambda chance: _jobs(status=chance.choice(_RARE), tenant=_tenant(chance)),
    "a rare status and a type": lambda chance: _jobs(status=chance.choice(_RARE), type=chance.choice(TYPES)),
    "a type and a queue": lambda chance: _jobs(type=chance.choice(TYPES), queue=chance.choice(QUEUES)),
    "a type of a tenant": lambda chance: _jobs(type=chance.choice(TYPES), tenant=_tenant(chance)),
    "an unknown type": lambda chance: _jobs(type=f"unknown-{chance.random()}"),
    "an unknown queue, failed": lambda chance: _jobs(status="failed", queue=f"unknown-{chance.random()}"),
    "text that is there": lambda chance: _jobs(text=chance.choice(["smtp", "Timeout", "attempt 3"])),
    "text that is not": lambda chance: _jobs(text=f"nothing {chance.random()}"),
    "text that is not, failed": lambda chance: _jobs(text=f"nothing {chance.random()}", status="failed"),
    "text that is not, failed, of a tenant": lambda chance: _jobs(
        text=f"nothing {chance.random()}", status="failed", tenant=_tenant(chance)
    ),
    "a time": lambda chance: _jobs(**_time(chance)),
    "a time, failed": lambda chance: _jobs(status="failed", **_time(chance)),
    "a time, rare, of a tenant": lambda chance: _jobs(
        status=chance.choice(_RARE), tenant=_tenant(chance), **_time(chance)
    ),
    "anything": _mixed,
    "anything, too": _mixed,
}

PAGES: Mapping[str, Callable[[random.Random], Address]] = {
    "overview": lambda chance: ("/", {"range": chance.choice(["24h", "7d", "30d"])}),
    "overview of a tenant": lambda chance: ("/", {"tenant": _tenant(chance)}),
    "schedules": lambda _: ("/schedules", {}),
    "workers": lambda _: ("/workers", {}),
    "tenants": lambda _: ("/tenants", {}),
    "health": lambda _: ("/health", {}),
    "metrics": lambda _: ("/metrics", {}),
}


def measure(client: httpx.Client, kind: str, address: Address) -> tuple[str, int, float, str]:
    path, query = address
    text = f"{path}?{urlencode(query, doseq=True)}"
    begun = time.perf_counter()
    response = client.get(text)
    return kind, response.status_code, 1000 * (time.perf_counter() - begun), text


def run(url: str, kinds: Sequence[str], *, clients: int, requests: int, seed: int, token: str | None) -> None:
    chance = random.Random(seed)
    known = {**SEARCHES, **PAGES}
    drawn = [(kind, known[kind](chance)) for kind in kinds for _ in range(requests // len(kinds) + 1)]
    chance.shuffle(drawn)
    headers = {"Accept": "text/html"} | ({"Authorization": f"Bearer {token}"} if token else {})
    with (
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
        ThreadPoolExecutor(clients) as pool,
    ):
        found = list(pool.map(lambda one: measure(client, *one), drawn))
    _tell(found, clients)


def _tell(found: Sequence[tuple[str, int, float, str]], clients: int) -> None:
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    for kind, _, took, _ in found:
        by_kind[kind].append(took)
    print(f"{len(found)} requests, {clients} at a time; statuses {dict(Counter(row[1] for row in found))}")
    print(f"{'ms':38} {'p50':>7} {'p95':>7} {'p99':>7} {'most':>7}")
    for kind, times in sorted(by_kind.items(), key=lambda item: -_quantile(item[1], 0.95)):
        print(f"{kind:38} {_line(times)}")
    print(f"{'all':38} {_line([row[2] for row in found])}")
    for _, status, took, text in sorted(found, key=lambda row: -row[2])[:8]:
        print(f"  {took:7.0f} {status} {text}")


def _line(took: Sequence[float]) -> str:
    return " ".join(f"{_quantile(took, share):7.1f}" for share in (0.5, 0.95, 0.99, 1))


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where `jobbridge dashboard` is")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--token")
    parser.add_argument("--pages", action="store_true", help="the other pages instead of searches")
    given = parser.parse_args()
    kinds = list(PAGES if given.pages else SEARCHES)
    run(given.url, kinds, clients=given.clients, requests=given.requests, seed=given.seed, token=given.token)


if __name__ == "__main__":
    main()
