# Two images, for NVIDIA GPUs (the default) and for processors alone:
#
#   docker build -t sifa .
#   docker build -t sifa-cpu --target cpu .
#   docker run --rm -it --gpus all --shm-size=16g -v $PWD/data:/sifa/data -v $PWD/output:/sifa/output sifa
#
# Each has the packages first (gigabytes that rarely change), then the op (seconds, with CUDA minutes), then the rest.
# OpenCV needs libgl1 and libglib2.0, torch.compile Python's headers. The versions of Ubuntu's
# packages are those of the release: hadolint's DL3008 is not followed.

FROM ubuntu:24.04 AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ git libgl1 libglib2.0-0t64 python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o ubuntu -g ubuntu /opt/venv /sifa

USER ubuntu
WORKDIR /sifa
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH

# The address of PyTorch's CPU builds, as pytorch.org shows it; without it pip brings CUDA's gigabytes as well.
ARG PYTORCH_INDEX=""
COPY --chown=ubuntu:ubuntu requirements.txt ./
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir ${PYTORCH_INDEX:+--extra-index-url "$PYTORCH_INDEX"} -r requirements.txt

COPY --chown=ubuntu:ubuntu make.sh ./
COPY --chown=ubuntu:ubuntu cuda_sifa cuda_sifa
RUN SIFA_WITH_CUDA=0 bash make.sh && rm -rf cuda_sifa/build

COPY --chown=ubuntu:ubuntu . .
CMD ["bash"]

# The CUDA toolkit must have the major version that PyTorch on PyPI is built for; setup.py reports a difference.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ git libgl1 libglib2.0-0t64 python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o ubuntu -g ubuntu /opt/venv /sifa

USER ubuntu
WORKDIR /sifa
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH

COPY --chown=ubuntu:ubuntu requirements.txt ./
RUN python3 -m venv /opt/venv && pip install --no-cache-dir -r requirements.txt

# GPU architectures: by default all that the toolkit knows; "9.0" is an H100 or H200, "8.0;8.6" an A100 and an RTX 30.
ARG TORCH_CUDA_ARCH_LIST=""
ARG MAX_JOBS=4
COPY --chown=ubuntu:ubuntu make.sh ./
COPY --chown=ubuntu:ubuntu cuda_sifa cuda_sifa
RUN SIFA_WITH_CUDA=1 bash make.sh && rm -rf cuda_sifa/build

COPY --chown=ubuntu:ubuntu . .
CMD ["bash"]
