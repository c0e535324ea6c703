"""Label values of ``sd_http_requests_total``: what answers are counted by."""

from http import HTTPStatus
from typing import Final

from aiohttp import hdrs

from service.errors import Disconnected
from service.http.route import UNMATCHED
from service.telemetry import labels

ANSWERS: Final = {
    "api": {*labels.APIS},
    "method": {*hdrs.METH_ALL, "other"},
    "route": {UNMATCHED},
    "status": {str(int(status)) for status in (*HTTPStatus, Disconnected.status)},
}
