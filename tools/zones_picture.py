"""Write docs/zones.jpg: the zones of docs/events.md on a photograph of the tests.

Run `python -m tools.zones_picture` in the repository after a change of these zones.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import PIL.Image

ROOT: Final = Path(__file__).parents[1]
PHOTOGRAPH: Final = ROOT / "tests" / "data" / "camera.jpg"


def main() -> None:
    """Draw them as a user does, with `edgepose estimate --annotate`."""
    document = (ROOT / "docs" / "events.md").read_text()
    configuration = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(configuration)
        command = [sys.executable, "-m", "edgepose", "estimate", str(PHOTOGRAPH)]
        subprocess.run([*command, "-c", str(config), "--annotate", folder], check=True)
        drawn = PIL.Image.open(Path(folder, PHOTOGRAPH.name))
        drawn.save(ROOT / "docs" / "zones.jpg", quality=85)


if __name__ == "__main__":
    main()
