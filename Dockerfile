# Two images from one recipe:
#   docker build --target cpu -t agile-ray:cpu .
#   docker build --target gpu -t agile-ray:gpu .     the CUDA libraries come as wheels; the host needs only the driver
# Run them with --shm-size=8g or --ipc=host: engines and Ray's object store use /dev/shm, of which Docker gives 64 MiB.
# As another user than root, the environment is read-only: set HOME, or TORCH_EXTENSIONS_DIR, to a folder that it can write.
FROM python:3.11-slim-bookworm AS base
# a C++ compiler: DeepSpeed compiles its communication op on first use, Triton its kernels. libibverbs: without it NCCL
# uses TCP sockets even where there is InfiniBand. wget, procps: probes of Kubernetes and Ray call them
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git libibverbs1 librdmacm1 ibverbs-providers wget procps \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/agile-ray
COPY Makefile pyproject.toml README.md LICENSE requirements-cpu.txt requirements-gpu.txt ./
COPY agile_ray agile_ray
COPY envs envs
COPY rollout rollout
COPY learner learner
COPY configs configs
COPY launch launch
ENV PATH=/opt/venv/bin:$PATH

FROM base AS cpu
RUN make install VENV=/opt/venv LOCK=requirements-cpu.txt
ENTRYPOINT ["agile-ray"]

FROM base AS gpu
RUN make install VENV=/opt/venv LOCK=requirements-gpu.txt
ENTRYPOINT ["agile-ray"]
