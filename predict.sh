#!/bin/sh
# Segments inputs/*.nii.gz into outputs/. The organisers call `sh predict.sh` in the image's /workspace;
# without a container, call it in a folder that holds app/, volumes/, weights/, inputs/ and outputs/.
# On Grand Challenge the image's own command calls it, and the scan is in /input/images/SOCKET/.
# Arguments are handed on to the app.
python=$(command -v python3 || command -v python) || {
    echo "predict.sh: neither python3 nor python is on PATH" >&2
    exit 127
}
input=inputs output=outputs
if [ -n "$OUTPUT_SOCKET" ] && [ -d /input/images ]; then
    input=$(echo /input/images/*) output=/output/images/$OUTPUT_SOCKET
fi
# exec: signals reach Python itself, and its exit code is the container's.
exec "$python" -m app --input "$input" --output "$output" "$@"
