"""The page for newcomers is followed to the letter: its Python, and every command that it types."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "your_csv.md"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_a_newcomer_comes_from_a_csv_to_a_page_of_charts(tmp_path: Path) -> None:
    blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks].count("sh") > 6
    (code,) = [text for kind, text in blocks if kind == "python"]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    script = "".join(["set -e\n", *(text for kind, text in blocks if kind == "sh")])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = " ".join(done.stdout.split())
    for wanted in (
        "already",
        "too much of it is wrong",
        "2 built",
        "2 unchanged",
        "sales.csv landed",
        "more.csv landed",
    ):
        assert wanted in told, f"{wanted!r} is not in\n{done.stdout}\n{done.stderr}"
    shops = tmp_path / "shops"
    assert "Vega" in (shops / "shops.html").read_text(encoding="utf-8")
    assert (shops / "by_shop.csv").read_text(encoding="utf-8").startswith('"shop","eur"\n')
