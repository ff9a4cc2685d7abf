# -*- test-case-name: gomux.test.tunnel.test_completion -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Completion of C{twistd gomux} and C{python -m gomux} in shells.

zsh has a completion for C{twistd}, which asks Twisted.  The same is done here for
C{python -m gomux}.  For bash, which Twisted does not support, the script has the names
of the options.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.python.usage import CompleteFiles
from twisted.python.usage import Options as AnyOptions

BASH = """\
# The completion of twistd gomux and python -m gomux, made by
# python -m gomux completion bash.

# Completes the current word: _gomux_complete OPTIONS FILE_OPTIONS.
_gomux_complete() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # bash splits --option=value into three words.
    if [ "$current" = = ]; then
        current=
    elif [ "$option" = = ]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case " $2 " in
        *" $option "*)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return ;;
    esac
    case $current in
        -*) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current") ;;
    esac
}

_gomux_twistd() {
    local word
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        if [ "$word" = gomux ]; then
            _gomux_complete "@SERVICE@" "@SERVICE_FILES@"
            return
        fi
    done
    case ${COMP_WORDS[COMP_CWORD]} in
        -*) ;;
        *) mapfile -t COMPREPLY < <(compgen -W gomux -- "${COMP_WORDS[COMP_CWORD]}") ;;
    esac
}

_gomux_python() {
    if [ "${COMP_WORDS[1]}" != -m ] || [ "${COMP_WORDS[2]}" != gomux ]; then
        # bash-completion has a function for python.
        if declare -F _python > /dev/null; then _python "$@"; fi
        return
    fi
    COMPREPLY=()
    if [ "$COMP_CWORD" = 3 ]; then
        mapfile -t COMPREPLY < <(compgen -W "@COMMANDS@" -- "${COMP_WORDS[3]}")
        return
    fi
    case ${COMP_WORDS[3]} in
@CASES@
    esac
}

complete -o default -F _gomux_twistd twistd
complete -o default -F _gomux_python python python3
"""

CASE = """\
        {name}) _gomux_complete "{options}" "" ;;"""

ZSH = """\
# The completion of python -m gomux, made by python -m gomux completion zsh.
# That of twistd gomux is a part of zsh.

_gomux_python() {
    if [[ $words[2] != -m || $words[3] != gomux ]] || (( CURRENT < 4 )); then
        return 1
    fi
    _compskip=all
    local python=$words[1] output
    shift 2 words
    (( CURRENT -= 2 ))
    output=$($python -m "$words[@]" --_shell-completion zsh:$CURRENT 2> /dev/null)
    if [[ $output == "#compdef "* ]]; then
        eval $output
    fi
}

compdef -p _gomux_python 'python*'
"""


def script(
    shell: str, service: AnyOptions, commands: Mapping[str, type[AnyOptions]]
) -> str:
    """
    @param shell: C{bash} or C{zsh}.
    @param service: the options of C{twistd gomux}.
    @param commands: the options of the commands by their names.
    @return: a script that the shell can source.
    """
    if shell == "zsh":
        return ZSH
    replacements = {
        "@SERVICE@": _names(service),
        "@SERVICE_FILES@": _files(service),
        "@COMMANDS@": " ".join(commands) + " --help --version",
        "@CASES@": "\n".join(
            CASE.format(name=name, options=_names(options()))
            for name, options in commands.items()
        ),
    }
    text = BASH
    for mark, replacement in replacements.items():
        text = text.replace(mark, replacement)
    return text


def _names(options: AnyOptions) -> str:
    """
    @return: the long options.
    """
    names = {name.rstrip("=") for name in options.longOpt}
    return " ".join(f"--{name}" for name in sorted(names))


def _files(options: AnyOptions) -> str:
    """
    @return: the long options whose values are files.
    """
    found: dict[str, object] = {}
    for kind in reversed(type(options).__mro__):
        data = getattr(kind, "compData", None)
        if data is not None:
            found.update(data.optActions)
    return " ".join(
        f"--{name}"
        for name, action in sorted(found.items())
        if isinstance(action, CompleteFiles)
    )
