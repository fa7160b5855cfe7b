#!/bin/sh
# Segments inputs/*.nii.gz into outputs/. The organisers call `sh predict.sh` in the image's /workspace;
# without a container, call it in a folder that holds app/, weights/, inputs/ and outputs/.
# Arguments are handed on to the app.
python=$(command -v python3 || command -v python) || {
    echo "predict.sh: neither python3 nor python is on PATH" >&2
    exit 127
}
# exec: signals reach Python itself, and its exit code is the container's.
exec "$python" -m app --input inputs --output outputs "$@"
