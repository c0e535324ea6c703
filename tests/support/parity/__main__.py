"""Compare random requests with diffusers, and print what each construct showed with each model.

``python -m tests.support.parity --requests 1000 --seed 1`` takes ten minutes on an idle core.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
import torch
from tqdm import tqdm

from tests.support.parity.cases import Verdict
from tests.support.parity.random_requests import Comparison, random_request, table


def main() -> int:
    """Return 1 if the service drew a request in another way than diffusers does."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    warnings.simplefilter("ignore")  # diffusers corrects old files, and says so each time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    torch.set_num_threads(1)
    requests = [random_request(told.seed, number) for number in range(told.requests)]
    with TemporaryDirectory() as folder, tqdm(total=len(requests), file=sys.stderr) as bar:
        found: list[Verdict] = []
        for each in Comparison(Path(folder))(requests):
            found.append(each)
            bar.update()
    print(table(found))
    others = [each for each in found if each.kind != "same"]
    print(*others, sep="\n")
    return int(not all(each.good for each in others))


if __name__ == "__main__":
    sys.exit(main())
