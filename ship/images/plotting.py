"""Makes matplotlib ready at build time: fallback fonts, and a list of the fonts there are.

Ship gives matplotlib a directory of its own in /tmp, which is empty in a new sandbox: without the list each sandbox would
look through all fonts at its first `import matplotlib.pyplot`.
"""

import os
import pathlib
import tempfile

LIST = "/usr/local/share/bay/matplotlib-fonts.json"
FALLBACK = ["Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Symbola"]

# Nothing of this build may be read back as somebody's cache.
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp()
import matplotlib  # noqa: E402

data = pathlib.Path(matplotlib.get_data_path())
settings = data / "matplotlibrc"
text = settings.read_text()
shipped = "#font.family:  sans-serif\n"
# Only the families of this list stand in for each other, character by character; those of `font.sans-serif` do not.
if text.count(shipped) != 1:
    raise SystemExit(f"{settings} is not what this patch was made for")
settings.write_text(text.replace(shipped, f"font.family: sans-serif, {', '.join(FALLBACK)}\n"))

code = data.parent / "font_manager.py"
text = code.read_text()
before = "    fm = FontManager()\n    json_dump(fm, fm_path)\n"
# A list of the user's own still comes first, and whoever asks for a new one gets one.
listed = (
    "    if try_read_cache:\n"
    "        try:\n"
    f"            fm = json_load({LIST!r})\n"
    "        except Exception:\n"
    "            pass\n"
    "        else:\n"
    "            if getattr(fm, '_version', object()) == FontManager.__version__:\n"
    "                return fm\n"
)
if text.count(before) != 1:
    raise SystemExit(f"{code} is not what this patch was made for")

from matplotlib import font_manager  # noqa: E402

names = {font.name for font in font_manager.fontManager.ttflist}
missing = [name for name in FALLBACK if name not in names]
if missing:
    raise SystemExit(f"fonts that are not there: {missing}")
font_manager.json_dump(font_manager.fontManager, LIST)
code.write_text(text.replace(before, listed + before))
