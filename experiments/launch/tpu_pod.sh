#!/bin/bash
# Trains on every host of a Cloud TPU pod slice; run again, it goes on.
#
#   experiments/launch/tpu_pod.sh NAME ZONE configs/imagenet_attention92.py gs://BUCKET/run \
#       --config.data_dir=gs://BUCKET/tfds --config.batch_size=1024
#
# Assumes: gcloud is set up; the slice exists and may read and write the bucket; this repository is
# in ~/rattn_jax on every host, installed with `pip install -e '.[tpu]'`. JAX finds the processes
# of the slice by itself.
set -euo pipefail
name=$1 zone=$2 config=$3 workdir=$4
shift 4
arguments=$(printf ' %q' --distributed --config="$config" --workdir="$workdir" "$@")
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd ~/rattn_jax && python3 main.py$arguments"
