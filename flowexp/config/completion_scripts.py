"""Shell scripts for Tab completion of ``flowexp``."""

from collections.abc import Sequence

from flowexp.errors import UsageError

__all__ = ["SCRIPTS", "script"]

_BASH = """\
_flowexp() {
    local IFS=$'\\n'
    COMPREPLY=($(flowexp completion query "${COMP_LINE:0:$COMP_POINT}" "$2" 2>/dev/null))
}
complete -o nospace -F _flowexp flowexp"""
SCRIPTS = {
    "bash": _BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{_BASH}",
    "fish": """\
function __flowexp
    flowexp completion query (commandline -cp | string collect) (commandline -ct) 2>/dev/null
end
complete -c flowexp -f -a '(__flowexp | string trim)'""",
}


def script(overrides: Sequence[str]) -> str:
    """The script that Hydra's ``--shell-completion install=SHELL`` asks for.

    Raises:
        UsageError: The overrides ask for anything else.
    """
    match [text.partition("=") for text in overrides]:
        case [("install", "=", shell)] if shell in SCRIPTS:
            return SCRIPTS[shell]
    raise UsageError(
        f"cannot do {' '.join(overrides) or 'nothing'!r}.",
        key="--shell-completion",
        remedy=f"Write flowexp completion {'|'.join(SCRIPTS)}.",
    )
