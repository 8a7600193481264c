# Nobody has built this file yet.
#   docker build -t rattn_jax .                                       # for a CPU
#   docker build -t rattn_jax:cuda --build-arg EXTRAS='[cuda]' .      # for NVIDIA GPUs
#   mkdir -p runs                                                     # yours, and not root's
#   docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD/runs:/runs" rattn_jax train \
#       --config=digits --workdir=/runs/digits
#   docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD/runs:/runs" -v /data:/data \
#       --gpus=all rattn_jax:cuda train --config=cifar10_attention56 --workdir=/runs/cifar10 \
#       --config.data_dir=/data/tfds
# The CUDA libraries come with JAX's packages; the host needs the driver and the container toolkit.
FROM python:3.13-slim

ARG EXTRAS=""
WORKDIR /opt/rattn_jax
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY configs configs
COPY rattn_jax rattn_jax
RUN pip install --no-cache-dir --constraint requirements.lock ".${EXTRAS}" \
    && useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["rattn"]
CMD ["--help"]
