#!/bin/sh
# Compiles every module ahead: the root of a sandbox is read-only, so what is missing would be compiled at each start.
# Unchecked: a copy of the image with other times must not make all of it stale.
# Argument: `stdlib`, or `packages` (what pip installed).
set -eu
# Test data is broken on purpose. In a Python image the packages lie within the standard library.
case $1 in
    stdlib) name=stdlib skip='/site-packages/|/tests?/|/lib2to3/' ;;
    packages) name=purelib skip='/tests?/' ;;
esac
where=$(python3 -c "import sysconfig; print(sysconfig.get_path('$name'))")
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -x "$skip" "$where"
