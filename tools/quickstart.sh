#!/usr/bin/env bash
# From nothing to a trained, evaluated and searchable CLIP-GS on procedural toys, with a report at the end; or, with
# --model, straight to the search in your own splats.
#
#   bash tools/quickstart.sh [--short] [FILE ...]
#   bash tools/quickstart.sh --model NAME FILE ...
#
#   FILE          splat files, or folders of them, to embed and search; by default a few toys
#   --model NAME  answer with this model and train nothing: a published one such as uni3d-b (tools/download.py fetches
#                 it), views:vit-b-32-openai, a folder of tools/share.py, or hf-hub:owner/name
#   --text TEXT   text to search for ('a red chair')
#   --up AXIS     up axis of the files for --model, which no format stores (y)
#   --short       a few objects and epochs, to check that everything runs, in about two minutes
#
# All output goes to work_dirs/quickstart (-short, -search); an interrupted training resumes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

CONFIG=clipgs_pointbert-nano_vary-20e_toy-world
WORK=work_dirs/quickstart; OBJECTS=(); OPTIONS=()
FILES=(); MODEL=''; TEXT='a red chair'; UP=''

fail() { echo "error: $1" >&2; exit "${2:-2}"; }

while [ $# -gt 0 ]; do
    case "$1" in
        --short) WORK=work_dirs/quickstart-short; OBJECTS=(--num-train 120 --num-val 60 --num-test 60)
                 OPTIONS=(--cfg-options train_cfg.max_epochs=2 train_cfg.val_begin=1) ;;
        --model|--text|--up)
            [ $# -gt 1 ] || fail "$1 needs a value; see --help"
            case "$1" in --model) MODEL="$2" ;; --text) TEXT="$2" ;; --up) UP="$2" ;; esac
            shift ;;
        -h|--help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) fail "unknown option $1; see --help" ;;
        *) [ -e "$1" ] || fail "$1 does not exist" 1
           FILES+=("$(realpath "$1")") ;;
    esac
    shift
done
[ -n "$TEXT" ] || fail "--text is empty; write what to search for"
if [ -n "$MODEL" ]; then
    [ ${#FILES[@]} -gt 0 ] || fail "--model needs splat files or folders of them; see --help"
    [ ! -d "$MODEL" ] || MODEL="$(realpath "$MODEL")"
elif [ -n "$UP" ]; then
    fail "--up needs --model"
fi

make_environment triplets  # which the experiments on meshes need
cd "$ROOT"
started=$SECONDS

# search MODEL_OPTION ...: embed the files with a model, and search them.
search() {
    "$PY" tools/embed.py "${FILES[@]}" -o "$WORK/embeddings.npz" "$@"
    say "$STEP Searching them for '$TEXT'"
    "$PY" tools/search.py "$WORK/embeddings.npz" --text "$TEXT" -k 5
}

if [ -n "$MODEL" ]; then
    WORK=work_dirs/quickstart-search; STEP=2/2
    say "1/2 Embedding splat files with $MODEL"
    search --model "$MODEL" ${UP:+"--up=$UP"}
    say "Done in $((SECONDS - started)) s. Search on: $PY tools/search.py $ROOT/$WORK/embeddings.npz --text ..."
    exit 0
fi

export CLIPGS_TOY_WORLD="$ROOT/$WORK/toy_world"
say "1/7 Toy world: objects as Gaussians, with views and captions"
"$PY" tools/make_toy_world.py "$CLIPGS_TOY_WORLD" --export "$WORK/files" ${OBJECTS[@]+"${OBJECTS[@]}"}
[ ${#FILES[@]} -gt 0 ] || FILES=("$WORK/files")

say "2/7 Teacher: features of every view and caption by the frozen CLIP model 'toy-clip'"
"$PY" tools/cache_features.py "$CLIPGS_TOY_WORLD" --teacher toy-clip

say "3/7 Training the splat encoder ($CONFIG); curves: tensorboard --logdir $WORK"
"$PY" tools/train.py "$CONFIG" --work-dir "$WORK" --resume auto ${OPTIONS[@]+"${OPTIONS[@]}"}

say "4/7 Evaluating on unseen objects: zero-shot classification and retrieval"
CHECKPOINT="$(ls -t "$WORK"/best_*.pth | head -n 1)"
"$PY" tools/test.py "$WORK/$CONFIG.py" "$CHECKPOINT" --json > "$WORK/results.json"

STEP=6/7
say "5/7 Embedding splat files"
search --model "$WORK/$CONFIG.py" --checkpoint "$CHECKPOINT"

say "7/7 Writing the report"
"$PY" tools/report.py "$WORK" -o "$WORK/report.html"
say "Done in $((SECONDS - started)) s. Open $WORK/report.html"
