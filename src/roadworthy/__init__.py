"""roadworthy: become, and stay, a listed inference provider on a model hub.

The top-level package only names the version; each house is imported by its
own name (``roadworthy.conformance``, ``roadworthy.sandbox``, ...), so that
using one costs nothing of the others.
"""

__version__ = "0.1.0"
