#!/usr/bin/env bash
# What a machine with one NVIDIA GPU can tell in under ten minutes: the tests marked `cuda`, then tokens/s and MFU.
#
#     bench/gpu.sh [--nanogpt CLONE] [--peak FLOPS]
#
# Needs torch with CUDA, Fangcun and pytest with its plugins in $PYTHON (default: python), and no network. litgpt and
# float8 (torchao) are measured where they are installed. Writes tests.txt and steps.jsonl into ${OUT:-bench-out}. Ends with 1 when anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

nanogpt="" peak=()
while [ $# -gt 0 ]; do
    case "$1" in
        --nanogpt) nanogpt=$(cd "$OLDPWD" && cd "${2:?}" && pwd) || exit 2 ;;
        --peak) peak=(--peak "${2:?}") ;;
        *) echo "gpu.sh: expected --nanogpt CLONE or --peak FLOPS, got '$1'" >&2; exit 2 ;;
    esac
    shift 2
done

python=${PYTHON:-python} out=${OUT:-bench-out} failed=0
mkdir -p "$out" || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" CUBLAS_WORKSPACE_CONFIG=:4096:8
: >"$out/steps.jsonl"

timeout 200 "$python" -m pytest -m cuda -q tests/training/test_on_cuda.py 2>&1 | tee "$out/tests.txt" || failed=1

measure() {
    timeout 90 "$python" bench/gpu_step.py "$@" "${peak[@]}" | grep '^{' | tee -a "$out/steps.jsonl" || failed=1
}

measure --impl fangcun --shape 124m
[ -n "$nanogpt" ] && measure --impl nanogpt --shape 124m --nanogpt "$nanogpt"
"$python" -c 'import torchao' 2>/dev/null && measure --impl fangcun --shape 124m --fp8
measure --impl fangcun --shape 44m
"$python" -c 'import litgpt' 2>/dev/null && measure --impl litgpt --shape 44m
exit "$failed"
