#!/bin/sh
# Segments inputs/*.nii.gz into outputs/. The organisers call `sh predict.sh` in the image's /workspace;
# without a container, call it in a folder that holds app/, weights/, inputs/ and outputs/.
# Arguments are handed on to the app.
python=$(command -v python3 || command -v python) || {
    echo "predict.sh: neither python3 nor python is on PATH" >&2
    exit 127
}
# Threads that wait must sleep, not spin: where another program or a CPU quota takes a core away, spinning
# makes a CPU run 5 to 10 times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
# exec: signals reach Python itself, and its exit code is the container's.
exec "$python" -m app --input inputs --output outputs "$@"
