#!/bin/bash
# Workers of `python -m evaluation batch` on Slurm: one task a node, which uses all GPUs of its node.
#
#   python -m evaluation.batch.scheduler ~/flare-certificates &          # where the nodes reach it
#   sbatch --nodes=4 --time=12:00:00 evaluation/batch/deploy/slurm.sh \
#       tls://LOGIN-NODE:8786 --certificates ~/flare-certificates
#   python -m evaluation batch SUBMISSIONS --cases ... --labels ... --output ... \
#       --scheduler tls://LOGIN-NODE:8786 --certificates ~/flare-certificates
#
# Submit it from the checkout, whose .venv every node sees at the same path, as it does submissions,
# scans, labels and output. Each node has an engine that its user may use, and a disk of its own at
# TMPDIR. Nodes may come and go: what they were at is run again.
#
#SBATCH --job-name=flare-batch
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=flare-batch-%j.log

# exclusive: whatever else runs on a node would be timed, too.
# no-kill, kill-on-bad-exit=0: a node that fails leaves the others at work.
exec srun --no-kill --kill-on-bad-exit=0 --label \
    .venv/bin/python -m evaluation.batch.worker "${@:?the address of the scheduler is missing}"
