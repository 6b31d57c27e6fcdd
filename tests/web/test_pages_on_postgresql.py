"""The same pages where the tables are PostgreSQL's."""

from pathlib import Path

from tests.servers.postgres import postgres_server, postgres_url
from tests.web.conftest import serving

__all__ = ["postgres_server", "postgres_url"]  # fixtures


def test_pages_are_made_from_postgresql(tmp_path: Path, postgres_url: str) -> None:
    with serving(tmp_path, server=f'[stores]\ndatabase = "{postgres_url}"\n') as site:
        ids = []
        for depth in (2, 4):
            with site.project.start_run(
                f"depth {depth}", experiment="parcels", params={"depth": depth}, system_metrics=False
            ) as run:
                for step in range(3):
                    run.log_metric("loss", depth / (step + 1), step=step)
                run.log_metric("auc", 0.7 + depth / 100)
                run.log_text("hello", "notes/readme.txt")
            ids.append(run.id)
        number = site.project.runs.get(ids[0]).experiment
        pages = {
            "/experiments": "parcels",
            f"/experiments/{number}?order=metrics.auc%20DESC&filter=params.depth%20LIKE%20'%25'": "depth 4",
            f"/experiments/{number}/leaderboard?metric=auc": "higher is better",
            f"/runs/{ids[0]}": "loss by step, 3 points",
            f"/runs/{ids[0]}/file?path=notes/readme.txt": "hello",
            f"/runs/compare?run={ids[0]}&run={ids[1]}": "loss by step of 2 runs",
            "/models": "No model yet",
        }
        for path, shown in pages.items():
            answer = site.get(path)
            assert answer.status == 200, (path, answer.text[-2_000:])
            assert shown in answer.text
        for odd in ("%00", "a%00b", "%FF", "%ED%A0%80", "9" * 400):
            for path in (
                f"/experiments/{odd}", f"/runs/{odd}", f"/models/{odd}", f"/runs/{ids[0]}?curve={odd}",
                f"/runs/{ids[0]}?folder={odd}", f"/runs/{ids[0]}/file?path={odd}", f"/runs/compare?run={odd}",
                f"/experiments?filter=name%20%3D%20'{odd}'", f"/experiments/{number}?filter=params.a='{odd}'",
                f"/experiments/{number}?page={odd}", f"/experiments/{number}/leaderboard?metric={odd}",
            ):  # fmt: skip
                assert site.get(path).status < 500, path
