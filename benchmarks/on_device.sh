#!/bin/sh
# What a card is worth, in parts that each end within 100 s and are on disk when done; no network is needed.
#   benchmarks/on_device.sh                       all parts on cuda, figures in benchmarks/results/device/
#   benchmarks/on_device.sh tests rounds-50k      these parts
#   DEVICE=cpu SMOKE=1 benchmarks/on_device.sh    tiny sizes, to see that it works
#   benchmarks/on_device.sh wheels                on a machine with a network: what an image with torch lacks, into .whl/
# OUT: another folder. PYTHON: another interpreter. LIMIT: seconds a part may take.
set -u
cd "$(dirname "$0")/.." || exit
DEVICE=${DEVICE:-cuda} OUT=${OUT:-benchmarks/results/device} PYTHON=${PYTHON:-python3} LIMIT=${LIMIT:-100}
SMALL=${SMOKE:+--smoke}

if [ "${1:-}" = wheels ]; then
    mkdir -p .whl
    "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        -d .whl hydra-core omegaconf python-dotenv annotated-types typing-inspection pydantic || exit
    core=$(unzip -p .whl/pydantic-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: pydantic-core==\([0-9.]*\).*/\1/p')
    "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .whl "pydantic-core==$core" || exit
    exec "$PYTHON" -m pip wheel -q --no-deps -w .whl 'antlr4-python3-runtime==4.9.3'  # only its source is published
fi
if [ -d .whl ] && ! "$PYTHON" -c 'import hydra, pydantic, dotenv' 2>/dev/null; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$PWD/.site" .whl/*.whl || exit
    PYTHONPATH="$PWD/.site":${PYTHONPATH:-}
fi
export PYTHONPATH="$PWD:$PWD/tests:${PYTHONPATH:-}"
"$PYTHON" -c 'import sys; from alfm import devices, errors
try: devices.choose_device(sys.argv[1])
except errors.UserError: sys.exit(f"There is no device {sys.argv[1]} here: DEVICE=cpu SMOKE=1 benchmarks/on_device.sh tries all parts.")' \
    "$DEVICE" || exit
mkdir -p "$OUT"

run() {
    timeout "$LIMIT" "$PYTHON" "$@"
}

part() {
    case $1 in
    tests) run -m pytest -p device.start -p no:cacheprovider -q tests/device/on_*.py ;;
    kernels) run -m pytest -p no:cacheprovider -q tests/fused ;;
    roofline) run benchmarks/roofline.py --pool 50k-1536 --device "$DEVICE" $SMALL --json "$OUT/$1.json" ;;
    extract-*)
        case $1 in *S14) arch=vit_small_patch14_dinov2 ;; *) arch=vit_large_patch14_dinov2 ;; esac
        run benchmarks/extract.py --arch $arch --device "$DEVICE" --images 2048 --repeats 2 $SMALL --json "$OUT/$1.json" ;;
    *) run benchmarks/on_device.py --part "$1" --device "$DEVICE" --seconds $((LIMIT - 15)) $SMALL --json "$OUT/$1.json" ;;
    esac
}

failed=
for name in ${*:-tests kernels rounds-10k rounds-50k rounds-1m study fits roofline extract-S14 extract-L14}; do
    began=$(date +%s)
    if part "$name" >"$OUT/$name.txt" 2>&1; then said=done; else said=FAILED failed="$failed $name"; fi
    echo "$name: $said after $(($(date +%s) - began)) s ($OUT/$name.txt)"
    tail -n 3 "$OUT/$name.txt" | cut -c1-200
done
[ -z "$failed" ]
