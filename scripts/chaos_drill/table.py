"""The outcome of a drill for people."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from scripts.chaos_drill.checks import verdicts
from scripts.chaos_drill.drill import Outcome
from scripts.chaos_drill.killer import Kill
from scripts.chaos_drill.ledger import POISON, Ledger


def table(outcome: Outcome) -> str:
    """Return the counts, the kills and the checks as Markdown."""
    return "\n\n".join(
        (
            _columns(("Orders", "Number"), _orders(outcome)),
            _columns(("Killed", "Times", "Ready again after, s", "Longest"), _kills(outcome.kills)),
            _columns(("Check", "Outcome"), _checks(outcome.ledger)),
        )
    )


def passed(outcome: Outcome) -> bool:
    """Return whether every check holds, and there was something to check."""
    return bool(outcome.ledger.taken) and not any(verdicts(outcome.ledger).values())


def _orders(outcome: Outcome) -> list[tuple[str, ...]]:
    ledger = outcome.ledger
    counts, reasons = ledger.counts(), ledger.reasons()
    failed = ", ".join(
        f"{count} {name}" for name, count in sorted(reasons.items()) if name != "cancelled"
    )
    twice = Counter(notice.delivery for notice in ledger.notices)
    accounts = list(ledger.accounts.values())
    rows: list[tuple[str, object]] = [
        ("accepted", len(ledger.taken)),
        ("= finished", counts["succeeded"]),
        (f"+ failed with a reason ({failed or 'none'})", counts["failed"]),
        ("+ cancelled as asked", counts["cancelled"]),
        ("+ lost", counts["never final"] + sum(bool(a.faults) for a in ledger.taken)),
        ("not handed in, as the time was over", outcome.unsent),
        ("by `POST /generate`, waiting for the answer", sum(a.order.synchronous for a in accounts)),
        ("given up as poison", reasons[POISON]),
        ("started more than once", sum(a.attempts > 1 for a in accounts)),
        ("most starts of one job", max((a.attempts for a in accounts), default=0)),
        ("requests refused with a time to come back", sum(a.refusals for a in accounts)),
        ("requests sent again for want of an answer", sum(a.retries for a in accounts)),
        ("jobs told of by webhook", len({n.job for n in ledger.notices if not n.refused})),
        ("deliveries that came again, with their id", sum(n - 1 for n in twice.values())),
        ("pictures compared with undisturbed ones", len(ledger.calm)),
        ("seconds in all", round(outcome.seconds)),
    ]
    return [(name, str(value)) for name, value in rows]


def _kills(kills: Sequence[Kill]) -> list[tuple[str, ...]]:
    rows = [_kill(blow, [k for k in kills if k.blow == blow]) for blow in _kinds(kills)]
    return [*rows, _kill("all", kills)]


def _kinds(kills: Sequence[Kill]) -> list[str]:
    return sorted({kill.blow.value for kill in kills})


def _kill(name: str, kills: Sequence[Kill]) -> tuple[str, ...]:
    taken = [kill.ready_after for kill in kills if kill.ready_after is not None]
    times = (f"{median(taken):.1f}", f"{max(taken):.1f}") if taken else ("", "")
    return (name, str(len(kills)), *times)


def _checks(ledger: Ledger) -> list[tuple[str, ...]]:
    return [
        (name, "ok" if not problems else f"FAILED ({len(problems)})")
        for name, problems in verdicts(ledger).items()
    ]


def _columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
