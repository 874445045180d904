"""Every chapter runs at its smallest, and refuses parameters that it does not have."""

from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[!_]*.ipynb"))


def run(notebook: Path, folder: Path, **parameters) -> nbformat.NotebookNode:
    executed = folder / notebook.name
    options = dict(kernel_name="python3", cwd=str(folder), progress_bar=False)
    papermill.execute_notebook(str(notebook), str(executed), parameters=parameters, **options)
    return nbformat.read(executed, as_version=4)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_smoke(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("TXFM_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    executed = run(notebook, tmp_path, profile="smoke")
    outputs = [o for c in executed.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert [o for o in outputs if "image/png" in o.get("data", {})]
    assert "| profile | smoke |" in str(outputs[-1])  # ends with its provenance


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_misspelt_parameter_fails_and_lists_the_right_ones(notebook, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match=r"unknown parameter 'sede'") as fault:
        run(notebook, tmp_path, profile="smoke", sede=1)
    assert "did you mean 'seed'" in str(fault.value) and "seed: int from 0" in str(fault.value)
