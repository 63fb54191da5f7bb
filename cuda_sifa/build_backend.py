"""The build backend of `pip install ./cuda_sifa`: setuptools, with the PyTorch that is installed.

pip builds in an isolated environment. A PyTorch installed there would take gigabytes, and could be another version than
the one that the op will run with. So this file makes the installed PyTorch visible, and requires one only if none is
installed.
"""

import importlib.util
import site
import sys
import sysconfig
from typing import Any

from setuptools.build_meta import *  # noqa: F403
from setuptools.build_meta import get_requires_for_build_wheel as _requires

sys.path += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """The requirements of the build: PyTorch if it is missing, else those of setuptools."""
    torch = [] if importlib.util.find_spec("torch") else ["torch>=2.11"]
    # setuptools finds its own requirements by running setup.py, which imports torch.
    return torch or _requires(config_settings)
