"""How a program starts a child that is a part of paygate itself (R23): the same Python, and the same paygate."""

import os
import sys
import sysconfig
from pathlib import Path


def child_argv(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of `module`.

    `-P`: the directory that somebody started us in must not lend a child that holds secrets its modules.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def child_env() -> dict[str, str]:
    """An environment in which the child finds this very paygate, wherever somebody started us."""
    home = str(Path(__file__).parent.parent)
    if home in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return dict(os.environ)  # installed: found anyway
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{before}" if before else home}
