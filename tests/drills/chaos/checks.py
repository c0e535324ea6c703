"""What must be true at the end, asked of the clients' ledger and not of the service."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.drills.common.drill import Checks
from tests.drills.common.ledger import FINAL, Ledger

POISON: Final = "engine_crashed"
"""The reason of a job that is given up because engines or services ended with it."""

INPUT_LOST: Final = "input_lost"
"""The reason of a job whose input image is not there any more."""


def lost(ledger: Ledger) -> Iterator[str]:
    """Find accepted orders that do not end or become unknown; there must be some."""
    if not ledger.taken:
        yield "no order was accepted"
    for account in ledger.taken:
        if not account.ends:
            yield f"{account} never ended"
        for fault in account.faults:
            yield f"{account}: {fault}"


def ends_for_a_reason(ledger: Ledger) -> Iterator[str]:
    """Find failures that do not say why, and what was cancelled though nobody asked for it."""
    for account in ledger.taken:
        for end in account.ends[:1]:
            if end.state not in FINAL:
                yield f"{account} ended as {end.state!r}"
            if end.state == "failed" and not end.reason:
                yield f"{account} failed without a reason"
            if "cancelled" in (end.state, end.reason) and not account.cancel_asked:
                yield f"{account} was cancelled, and nobody had asked for it"
            if end.reason == "timeout" and "timeout_seconds" not in account.order.body:
                yield f"{account} ran out of time, and had all of it"


def inputs_are_there(ledger: Ledger) -> Iterator[str]:
    """Find orders with an image that the service lost; there must be some with one."""
    begun = [account for account in ledger.taken if "image" in account.order.body]
    if not begun:
        yield "no order with an image was accepted"
    for account in begun:
        if any(end.reason == INPUT_LOST for end in account.ends):
            yield f"{account} lost its image"


def disk_is_clean(ledger: Ledger) -> Iterator[str]:
    """Find input images of no job, and those that outlive it; there must be some of jobs."""
    if not ledger.inputs:
        yield "no input image was kept"
    for name in sorted(ledger.inputs):
        if name.partition(".")[0] not in ledger.listed:
            yield f"the input {name} belongs to no job"
    for name in sorted(ledger.left):
        yield f"the input {name} was not deleted with its job"


def one_end(ledger: Ledger) -> Iterator[str]:
    """Find ends that changed after they were told."""
    for account in ledger.taken:
        if len(set(account.ends)) > 1:
            yield f"{account} ended in several ways: {set(account.ends)}"


def one_job_per_key(ledger: Ledger) -> Iterator[str]:
    """Find keys that stand for several jobs, and jobs that stand for several keys."""
    owners: dict[str, int] = {}
    for account in ledger.accounts.values():
        if len(account.ids) > 1:
            yield f"{account} has the ids {', '.join(account.ids)}"
        for job_id in account.ids:
            if owners.setdefault(job_id, account.order.number) != account.order.number:
                yield f"{account} has the job of order {owners[job_id]}"


def nothing_made_twice(ledger: Ledger) -> Iterator[str]:
    """Find jobs beyond the clients' own: no order may be run as two jobs."""
    own = ledger.own()
    # The id of a synchronous order is not told; its seed is drawn from 2**32 and known.
    unnamed = {a.order.body["seed"]: a for a in ledger.accounts.values() if not a.ids}
    strangers = Counter(seed for job_id, seed in ledger.listed.items() if job_id not in own)
    for seed, count in strangers.items():
        if seed is None:
            if count > len(unnamed):
                yield f"{count} jobs without an image belong to no order"
        elif seed not in unnamed:
            yield f"{count} jobs with the seed {seed} belong to no order"
        elif count > 1:
            yield f"{unnamed[seed]} was made {count} times"


def told_once(ledger: Ledger) -> Iterator[str]:
    """Find jobs with a webhook that have not one delivery id, with the end that clients see."""
    own = ledger.own()
    for notice in ledger.notices:
        if not notice.genuine:
            yield f"a webhook for {notice.job} has a wrong signature"
        if notice.job not in own:
            yield f"a webhook came for {notice.job}, which nobody ordered"
    for account in ledger.taken:
        about = [notice for notice in ledger.notices if notice.job in account.ids]
        deliveries = {notice.delivery for notice in about}
        states = {notice.state for notice in about}
        if "webhook" not in account.order.body:
            if about:
                yield f"{account} has no webhook and was told of"
            continue
        if len(deliveries) > 1:
            yield f"{account} was delivered twice, as {', '.join(sorted(deliveries))}"
        if account.ends and states - {account.ends[0].state}:
            yield f"{account} ended as {account.ends[0].state} and was told of as {states}"
        if account.ends and all(notice.refused for notice in about):
            yield f"{account} was never told of"


def images_are_whole(ledger: Ledger) -> Iterator[str]:
    """Find finished orders without an image, or with another one each time it is fetched."""
    for account in ledger.taken:
        if account.ends and account.ends[0].state == "succeeded" and not account.images:
            yield f"{account} has no image"
        if len(set(account.images)) > 1:
            yield f"{account} has several images"


def images_are_right(ledger: Ledger) -> Iterator[str]:
    """Find images that look otherwise than without chaos."""
    for number, difference in ledger.calm.items():
        if difference:
            yield f"order {number}: {difference}"


def attempts_are_counted(ledger: Ledger) -> Iterator[str]:
    """Find jobs that were started too often, or given up before they lost so many engines."""
    for account in ledger.taken:
        if account.attempts > ledger.max_attempts:
            yield f"{account} was started {account.attempts} times"
        if not account.ends or account.ends[0].reason != POISON or account.ended is None:
            continue
        kills = sum(account.asked <= kill.at <= account.ended for kill in ledger.kills)
        if not account.order.synchronous and kills < ledger.max_attempts:
            yield f"{account} was given up after {kills} kills"


CHECKS: Final[Checks[Ledger]] = {
    "nothing is lost": lost,
    "ends have reasons": ends_for_a_reason,
    "no job is without its input image": inputs_are_there,
    "input images go with their jobs": disk_is_clean,
    "an end never changes": one_end,
    "one job for each Idempotency-Key": one_job_per_key,
    "every job was ordered": nothing_made_twice,
    "webhooks come, and as one delivery": told_once,
    "images are whole": images_are_whole,
    "images are those of an undisturbed service": images_are_right,
    "attempts stay in their bound": attempts_are_counted,
}
