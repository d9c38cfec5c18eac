#!/bin/sh
# Records a real chat as docs/chat.cast and draws it as docs/chat.svg, where waits of more than three seconds are cut to three.
# Needs tmux, and: pip install asciinema==2.4.0 termtosvg==1.1.0          Run from the repository: sh docs/record_chat.sh
set -eu
export CAMELBELL_HOME="${CAMELBELL_HOME:-$(mktemp -d)}" LANG=C.UTF-8
tmux() { command tmux -L camelbell-recording -f /dev/null "$@"; }

ready() { # wait until the prompt stands empty in the line above the bottom line
    for _ in $(seq 600); do
        if tmux capture-pane -p | grep -v '^ *$' | tail -2 | grep -q '^> *$'; then sleep 1; return; fi
        sleep 0.3
    done
    echo "the prompt did not come" >&2; exit 1
}

say() {
    printf %s "$1" | grep -o . | while read -r key; do tmux send-keys -l "${key:- }"; sleep 0.06; done
    sleep 0.5; tmux send-keys Enter; sleep 1; ready
}

tmux new-session -d -x 96 -y 34 \
    "asciinema rec --overwrite --command 'camelbell chat harry_potter --no-log' docs/chat.cast"
ready
say "你的教父是谁？"
say "Which house does Luna Lovegood belong to?"
say "/facts"
say "/at 1-5"
say "Who is Cedric Diggory?"
say "/why"
say "/at end"
say "谁教过你魔药课？"
tmux send-keys C-d
sleep 3
termtosvg render docs/chat.cast docs/chat.svg --max-frame-duration 3000 --loop-delay 4000 --template window_frame
