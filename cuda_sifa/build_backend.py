"""The build of `pip install ./cuda_sifa`: setuptools', against the PyTorch that is installed.

pip builds in an environment of its own. A PyTorch brought there would cost gigabytes and might be another version than
the one the op is to run with, so the installed one is made visible; only where there is none is one asked for.
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
    torch = [] if importlib.util.find_spec("torch") else ["torch>=2.11"]
    # setuptools finds its own requirements by running setup.py, which imports torch.
    return torch or _requires(config_settings)
