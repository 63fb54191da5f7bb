"""The build backend of `pip install ./cuda_sifa`: setuptools, with the PyTorch that is installed.

pip builds in an isolated environment. A PyTorch installed there would take gigabytes. So this file makes the installed
PyTorch visible, and says so if none is installed.
"""

import site
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools.build_meta import *  # noqa: F403
from setuptools.build_meta import get_requires_for_build_wheel as _requires

sys.path += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
sys.path += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """The requirements of the build: those of setuptools, and no PyTorch.

    Raises:
        SystemExit: no PyTorch is installed, or one that is too old.
    """
    sys.path.insert(0, str(Path(__file__).parent))
    import toolkit

    toolkit.torch_folder()
    return _requires(config_settings)
