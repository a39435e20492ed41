"""The notebook runs from its first cell to its last and shows what it says.

Its code cells are executed here, in order, in one namespace: a kernel (nbclient, ipykernel, pyzmq,
tornado) would be six more packages and another process, which could not use the tests' own Ray.
"""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples/notebook/events_to_recommendations.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    return [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == kind]


def test_it_is_a_notebook_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names))
    for cell in cells("code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
        assert not "".join(cell["source"]).startswith(("%", "!")), "plain Python, for every runner"


@pytest.mark.ray
def test_every_cell_runs(ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "notebook"}
    for cell in cells("code"):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), space)

    ndcg = space["ndcg"]
    assert ndcg["model"] > 1.2 * ndcg["popularity"], "it knows who likes the even videos"
    assert space["after"] >= 0.8 > space["before"], "four events say what somebody new likes"
    assert (tmp_path / "runs/notebook/run/bundles/CURRENT").is_file()
