"""The ground floor: wire, drivers, arithmetic and data. It knows no protocol and no party."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vfl-framework")
except PackageNotFoundError:  # a checkout on the path that nobody installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
