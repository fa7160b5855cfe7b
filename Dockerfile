# The image that the organisers load and call:  docker build -t teamname .
#
# Build arguments:
#   BASE_IMAGE       a Debian 12 (its Python is 3.11)
#   TORCH            what pip installs as torch: a requirement, or the name of a wheel that lies beside this
#                    file. The default is locked and built for CUDA 13 (driver 580 or newer). For an older driver:
#                      --build-arg TORCH=torch==2.10.0        CUDA 12.8
#                      --build-arg TORCH=torch==2.8.0+cu126 --build-arg TORCH_INDEX_URL=(PyTorch's cu126 index)
#   TORCH_INDEX_URL  one more package index to look for torch in
#   MODEL            the one folder of weights/ that goes into the image
#   RUN_AS           the user; Grand Challenge refuses root: --build-arg RUN_AS=1000
#   OUTPUT_SOCKET    slug of Grand Challenge's socket that masks go to
#
# Written for the legacy builder as well as BuildKit: no mounts, no here-documents.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*


FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /build
COPY requirements/image.txt requirements/torch.txt *.whl ./
ARG TORCH="--requirement torch.txt"
ARG TORCH_INDEX_URL=
# By their hashes, but for another torch. --no-compile: everything is compiled once, below.
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile --no-deps --requirement image.txt \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile \
      ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} ${TORCH}
# What inference never opens: torch's own tests and C++ headers, build tools, the packages' test suites.
# torch_shm_manager stays: importing torch looks for it.
RUN cd /opt/venv/lib/python3*/site-packages \
 && rm -rf torch/test torch/include torch/bin/test_* torch/bin/protoc* torch/share/cmake \
 && find . -name '*.a' -delete \
 && find numpy sympy networkx -type d -name tests -prune -exec rm -rf {} + \
 && /opt/venv/bin/pip uninstall -q -y setuptools pip
# Importing torch without bytecode takes twice as long, and a container with a read-only root or a uid of
# its own would compile again on every run. unchecked-hash: valid whatever timestamps the files get on the
# way into the final stage. compileall also fails for a single file that is written for a newer Python,
# and torch ships such files: what counts is that torch itself got compiled.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib \
 || ls /opt/venv/lib/python3*/site-packages/torch/__pycache__/__init__.*.pyc

WORKDIR /workspace
COPY volumes/ volumes/
COPY app/ app/
# The norm's kernel, by the compiler that torch's CUDA builds bring: needs no GPU. Then what the app can leave
# out when it imports torch; where that cannot be found out it says so, and all of torch is imported.
RUN /opt/venv/bin/python -B -m app.kernels.compile --if-possible \
 && python3 -m compileall -q --invalidation-mode unchecked-hash app volumes \
 && { /opt/venv/bin/python -m app.lean.find || true; }
ARG MODEL=cpu-small
COPY weights/${MODEL}/ weights/${MODEL}/
COPY predict.sh ./
# a+rX: a checkout may be private to its owner, the container's uid may be anyone's.
RUN mkdir inputs outputs && chmod -R a+rX . && chmod 777 outputs


FROM python
LABEL org.opencontainers.image.title="FLARE 2024 CT lesion segmentation" \
      org.opencontainers.image.description="Segments every scan of /workspace/inputs into /workspace/outputs"
# HOME, USER: an unknown uid has no entry in /etc/passwd; what looks for a home or a name finds these, and
# /tmp is the one place that is writable under a read-only root.
# NVIDIA_*: what NVIDIA's container runtime hands in when it is asked for a GPU; without one they do nothing.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=flare \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build /opt/venv /opt/venv
COPY --from=build /workspace /workspace
WORKDIR /workspace
ARG OUTPUT_SOCKET=tumor-lesion-segmentation
ENV OUTPUT_SOCKET=${OUTPUT_SOCKET}
# root: files of FLARE's organisers may be for their owner alone, and docker gives them to root.
ARG RUN_AS=root
USER ${RUN_AS}
# No ENTRYPOINT: FLARE's organisers give the whole command, /bin/bash -c "sh predict.sh". Grand Challenge
# gives none, and so calls this one.
CMD ["sh", "predict.sh"]
