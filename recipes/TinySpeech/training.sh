# What the scripts that train whole models share. They say
#
#     source FOLDER/training.sh "$@"
#
# with arguments WORK_FOLDER [--debug], and are in the folder of TinySpeech then.
# `work` is the work folder's path, `size` that of the corpus, `few` and `few_lm` what
# shortens recipes and trainings of language models.
set -euo pipefail

mkdir -p "$1"
work=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
size=full few=() few_lm=()
if [ "${2:-}" = --debug ]; then
    size=debug few=(--debug) few_lm=(--debug --sample_count 1 --judged_count 2)
fi

# note PART: say what begins, when, and the CPU time of this run before it.
note() {
    times >"$work/times.txt"
    echo "$(date +%F\ %T) $(tail -n 1 "$work/times.txt") $1" |
        tee -a "$work/clock.txt"
}

# step PART SCRIPT YAML [ARGUMENTS]: run a recipe unless its part is there.
step() {
    local result=$work/$1 script=$2 yaml=$3
    shift 3
    if [ ! -e "$result/config.json" ]; then
        note "$result"
        python "$script" "$yaml" --output_folder "$(dirname "$result")" \
            "$@" "${few[@]}"
    fi
}
