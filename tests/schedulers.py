"""Programs in the place of the batch systems' own: they keep scripts and states as files of one folder."""

SUBMIT = """
count=$(( $(ls {folder}/state-* 2>/dev/null | wc -l) + 101 ))
if grep -q REFUSED {folder}/new; then echo "no such queue" >&2; exit 1; fi
mv {folder}/new {folder}/script-$count
"""
PROGRAMS = {
    "bsub": f"cat > {{folder}}/new\n{SUBMIT}echo PEND > {{folder}}/state-$count\n"
    'echo "Job <$count> is submitted to default queue <normal>."',
    "bjobs": """
        echo "$@" >> {folder}/asked
        shift 4
        echo '{{"COMMAND":"bjobs","JOBS":1,"RECORDS":['
        for job in "$@"; do
            if [ -f {folder}/state-$job ]; then
                echo '{{"JOBID":"'$job'","STAT":"'$(cat {folder}/state-$job)'",'
                echo '"EXIT_REASON":"TERM_OWNER: job killed by owner","KILL_REASON":"","SUSPEND_REASON":""}},'
            else
                echo '{{"JOBID":"'$job'","ERROR":"Job <'$job'> is not found"}},'
                bad=1
            fi
        done
        echo '{{"JOBID":"0","ERROR":"end"}}]}}'
        exit $(( bad * 255 ))""",
    "bkill": "echo bkill $1 >> {folder}/cancelled; echo EXIT > {folder}/state-$1",
    "qsub": f"cp $1 {{folder}}/new\n{SUBMIT}echo Q > {{folder}}/state-$count\necho $count.server",
    "qstat": """
        echo "$@" >> {folder}/asked
        shift 4
        known=
        for job in "$@"; do
            if [ -f {folder}/state-${{job%.server}} ]; then
                known="$known,\\"$job\\":{{\\"job_state\\":\\"$(cat {folder}/state-${{job%.server}})\\"}}"
            else echo "qstat: Unknown Job Id $job" >&2; bad=153; fi
        done
        if [ -n "$known" ]; then echo '{{"timestamp":1,"Jobs":{{'"${{known#,}}"'}}}}'; fi
        exit $bad""",
    "qdel": """
        case $(cat {folder}/state-${{1%.server}}) in F) echo "qdel: Job has finished $1" >&2; exit 35;; esac
        echo qdel $1 >> {folder}/cancelled; echo F > {folder}/state-${{1%.server}}""",
    "flux": f"""
        if [ "$1" = --parent ]; then shift; fi
        case $1 in
            batch) cp $2 {{folder}}/new\n{SUBMIT}
                echo 'SCHED|' > {{folder}}/state-$count; echo f$count;;
            jobs) echo "$@" >> {{folder}}/asked; shift 3
                for job in "$@"; do echo "$job|$(cat {{folder}}/state-${{{{job#f}}}})"; done;;
            cancel) echo flux cancel $2 >> {{folder}}/cancelled
                echo 'INACTIVE|CANCELED' > {{folder}}/state-${{{{2#f}}}};;
            getattr) echo f101;;
        esac""",
}


def install(folder):
    """Write the programs into a folder, which is to come first in PATH."""
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text("#!/bin/bash\n" + text.format(folder=folder) + "\n")
        (folder / name).chmod(0o755)
