"""The HTTP door: ``app`` puts it together, ``server`` listens, ``guard`` lets in, and each noun has a file of routes.

A new route goes into the file of its noun (``jobs``, ``health``), or into a new one whose ``router`` is listed in
``app``.
"""
