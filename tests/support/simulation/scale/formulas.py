"""Queueing formulas that simulations are compared with."""

import math


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a job of M/M/k waits; ``load`` is each server's, below 1.

    Erlang (1917), by the recursion of his formula B, which no number of servers makes overflow.
    """
    offered = servers * load
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def mean_wait(servers: int, load: float, *, variation: float = 1.0) -> float:
    """Return the mean wait of M/G/k in mean service times, first come first served.

    ``variation`` is the squared coefficient of variation of the service times: exact for 1
    (M/M/k), else by Lee and Longton (1959).
    """
    return (1 + variation) / 2 * erlang_c(servers, load) / (servers * (1 - load))


def largest_load(servers: int, wait: float, *, variation: float = 1.0) -> float:
    """Return the load of each server at which jobs wait so many mean service times on average."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if mean_wait(servers, middle, variation=variation) < wait:
            low = middle
        else:
            high = middle
    return low


def redone(rate: float, lost: float) -> float:
    """Return the share of the time of engines that failures cost.

    ``rate`` is that of the failures of an engine a second; ``lost`` are the seconds of work that
    each loses, and of work that is not done until it is back: a renewal-reward argument.
    """
    return rate * lost / (1 + rate * lost)


def lognormal(variation: float) -> tuple[float, float]:
    """Return mu and sigma of the lognormal distribution of mean 1 and this squared variation."""
    sigma = math.sqrt(math.log(1 + variation))
    return -(sigma**2) / 2, sigma
