"""A page that runs subnets in the browser, and the server for it.

The page (``page/``) is plain JavaScript on onnxruntime-web. :mod:`todm_sb.web.models` finds what an
export left in a folder, :mod:`todm_sb.web.runtime` gets onnxruntime-web, once, and
:mod:`todm_sb.web.server` serves these files and no others.
"""
