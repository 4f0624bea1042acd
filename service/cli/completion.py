"""Shell completion: every command and option, known to bash, zsh and fish."""

from __future__ import annotations

import sys
from typing import Literal

from service.cli import cli


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script that completes commands and options in a shell. The models' own parameters are not in it.

    For example:

        drover completion bash > ~/.local/share/bash-completion/completions/drover
        drover completion zsh > ~/.zfunc/_drover        # a folder of $fpath, before compinit
        drover completion fish > ~/.config/fish/completions/drover.fish

    Parameters
    ----------
    shell
        The shell.
    """
    cli.resolved_commands()
    sys.stdout.write(cli.generate_completion(shell=shell))
    return 0
