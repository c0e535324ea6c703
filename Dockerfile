# The service in a container: CPU by default, TORCH=cu126 or TORCH=cuda for a GPU.
#
#     docker build --tag sd-api:cpu .
#     docker build --tag sd-api:cu126 --build-arg TORCH=cu126 .
#
# It wants no root, no writable root file system and no capability. What it keeps is in two
# volumes: /models (MODEL_CACHE_DIR) and /data (DATA_DIR). It listens on 0.0.0.0, so it starts
# with keys only (API_KEYS_FILE), or with ALLOW_UNAUTHENTICATED=true, ALLOWED_HOSTS=localhost and a
# port published on loopback. `python -m tests.support.clean_room` carries these steps out without a
# container engine.

# Debian 12 has the Python 3.11 that the tests run on.
FROM debian:bookworm-slim AS base
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates python3 \
  && rm -rf /var/lib/apt/lists/*

# Everything that is not ours: made again only when the versions change.
FROM base AS packages
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3-venv \
  && rm -rf /var/lib/apt/lists/*
# pip works on the other environment from here, so that it is not in the image.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
ARG TORCH=cpu
# A mirror may stand in for it: the folder TORCH is looked for in there.
ARG TORCH_INDEX=https://download.pytorch.org/whl
# "engine tracing ray" for the nodes and the service of a Ray cluster (docs/SCALING.md).
ARG EXTRAS="engine tracing"
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# cpu: no CUDA at all. cuda: what the usual index has, for Turing and newer. cu126: from GTX 10
# (Pascal) and Volta on, for which CUDA 13 has no kernels.
RUN --mount=type=cache,target=/root/.cache/pip \
  set -eu; \
  case "$TORCH" in \
    cpu|cu126) set -- --no-deps --index-url "$TORCH_INDEX/$TORCH" ;; \
    cuda) set -- --no-deps ;; \
    *) echo "TORCH=$TORCH: must be cpu, cuda or cu126" >&2; exit 1 ;; \
  esac; \
  /opt/pip/bin/pip --python /opt/venv install "$@" "$(grep '^torch==' constraints.txt)"
# Headers and torch's own tests serve nobody here; of its programs one is used.
WORKDIR /opt/venv/lib/python3.11/site-packages/torch
RUN rm -rf include share test \
  && find bin -type f ! -name torch_shm_manager -delete
WORKDIR /build
# torch is there already, so that only what it needs comes with the rest. The service's own
# requirements are read from its project file: they are the same for everybody. Of the last
# package one file is read: CLIP's vocabulary, which single-file models lack.
RUN --mount=type=cache,target=/root/.cache/pip \
  python3 -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
more = project["optional-dependencies"]; \
rows = [row for name in sys.argv[1].split() for row in more[name]]; \
print(*project["dependencies"], *rows, sep="\n")' "$EXTRAS" > requirements.txt \
  && /opt/pip/bin/pip --python /opt/venv install \
    --constraint constraints.txt --requirement requirements.txt \
  && /opt/pip/bin/pip --python /opt/venv install \
    --constraint constraints.txt --no-deps open_clip_torch

# What is ours: a small layer, the only one that a new version of the service brings.
FROM packages AS service
COPY README.md LICENSE THIRD_PARTY.md ./
COPY service ./service
RUN --mount=type=cache,target=/root/.cache/pip \
  /opt/pip/bin/pip --python /opt/venv install --no-deps --target /opt/sd-api .

FROM base
COPY --from=packages /opt/venv /opt/venv
COPY --from=service /opt/sd-api /opt/sd-api
# Group 0 owns the volumes, so that any user of group 0 may keep things there:
# `--user "$(id -u):0"` gives the files in a mounted folder to whoever calls.
RUN useradd --uid 1000 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sd-api \
  && install --directory --owner=1000 --group=0 --mode=0770 /data /models
ENV PATH=/opt/sd-api/bin:/opt/venv/bin:/usr/bin:/bin \
  PYTHONPATH=/opt/sd-api \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1 \
  HOME=/tmp \
  HF_HOME=/models/.huggingface \
  NVIDIA_DRIVER_CAPABILITIES=compute,utility \
  API_HOST=0.0.0.0 \
  API_PORT=8000 \
  MODEL_CACHE_DIR=/models \
  DATA_DIR=/data
VOLUME ["/models", "/data"]
EXPOSE 8000
USER 1000:0
# The first start of a full model may download it: 2.7 GB take half an hour at 12 Mbit/s.
HEALTHCHECK --interval=15s --timeout=10s --start-period=30m --retries=3 CMD ["sd-api", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["sd-api"]
CMD ["serve"]
