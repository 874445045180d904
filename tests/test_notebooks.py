"""Notebooks: derived freshly from their sources, in the shared form, runnable and strict about parameters."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

DERIVED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def papermill(source: Path, folder: Path, *parameters: str) -> subprocess.CompletedProcess:
    """Run a notebook as a user would; the working folder is a fresh one."""
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        str(source),
        "out.ipynb",
        "-k",
        "python3",
    ]
    given = [word for pair in parameters for word in ("-p", *pair.split("=", 1))]
    return subprocess.run([*command, *given], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path):
    """A project with one notebook in form, to be spoilt."""
    (tmp_path / "notebooks").mkdir()
    for name in ("_template", "10_trial"):
        shutil.copy(ROOT / "notebooks" / "_template.py", tmp_path / "notebooks" / f"{name}.py")
    notebooks.write(tmp_path)
    return tmp_path


def spoil(project: Path, old: str, new: str, derive: bool = True) -> list[str]:
    source = project / "notebooks" / "10_trial.py"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))
    if derive:
        notebooks.write(project)
    return notebooks.faults(project)


def test_the_notebooks_of_this_project_are_fresh_and_in_form():
    assert notebooks.faults(ROOT) == []


@pytest.mark.parametrize("path", DERIVED, ids=lambda p: p.stem)
def test_derived_notebooks_hold_no_outputs_and_one_parameters_cell(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    "old, new, fault",
    [
        ("format_name: percent", "format_name: percent\n#   a: b", None),  # a harmless change is no fault
        (
            "cell_metadata_filter: tags,mystnb,cellView,-all",
            "cell_metadata_filter: -all",
            "cell_metadata_filter",
        ),
        ("# # Title of the chapter", "# ## Title of the chapter", "exactly one title"),
        ("# ## Exercises", "# # Exercises", "exactly one title"),
        ("    import subprocess\n", "    import subprocess, os\n", "setup cell"),
        ('tags=["parameters"]', 'tags=["parametres"]', "tagged `parameters`"),
        ("cfg = notebook.resolve(", "cfg = dict(", "notebook.resolve"),
        ("notebook.provenance(cfg)", "print(cfg)", "notebook.provenance"),
        ("plt.show()", "plt.show()\ncfg", "must end with its figure"),
    ],
)
def test_what_is_out_of_form_is_named(project, old, new, fault):
    found = spoil(project, old, new)
    assert found == [] if fault is None else any(fault in line and "10_trial.py" in line for line in found)


def test_a_stale_or_foreign_ipynb_is_named(project):
    (project / "notebooks" / "20_lone.ipynb").write_text("{}")
    found = spoil(project, "Title of the chapter", "Another title", derive=False)
    assert any("10_trial.ipynb is not what 10_trial.py gives" in line for line in found)
    assert any("20_lone.ipynb: has no .py source" in line for line in found)


def test_ids_of_unchanged_cells_are_stable(project):
    target = project / "notebooks" / "10_trial.ipynb"
    before = {cell.source: cell.id for cell in nbformat.read(target, as_version=4).cells}
    spoil(project, "# ## Exercises", "# ## More exercises")
    after = {cell.source: cell.id for cell in nbformat.read(target, as_version=4).cells}
    assert {source: after[source] for source in before if source in after} == {
        source: before[source] for source in before if source in after
    }
    assert len(set(before) - set(after)) == 1
    assert notebooks.write(project) == []  # derived twice: the same bytes


def test_the_template_runs_in_the_smoke_profile(tmp_path):  # the chapters: test_chapters.py
    run = papermill(ROOT / "notebooks" / "_template.ipynb", tmp_path, "profile=smoke")
    assert run.returncode == 0, run.stderr[-3000:]


def test_papermill_fails_on_a_misspelt_name_or_a_wrong_value(tmp_path):
    run = papermill(ROOT / "notebooks" / "_template.ipynb", tmp_path, "profil=smoke", "n_genes=-4", "seed=x")
    assert run.returncode != 0
    for text in (
        "unknown parameter 'profil' (did you mean 'profile'?)",
        "n_genes = -4: should be int from 1 to 50,000",
        "seed = 'x': should be int",
        "This notebook takes",
        "n_genes: int from 1 to 50,000 (smoke 50, book 500, full 20000)",
    ):
        assert text in run.stderr


def setup_cell_runs(monkeypatch, tmp_path, missing: bool) -> list[list[str]]:
    """Execute the setup cell, with the package absent if asked; return the commands that it would run."""
    commands = []

    def run(command, check):
        commands.append(command)
        monkeypatch.delitem(sys.modules, "txfm_lite", raising=False)  # now it is installed

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    if missing:
        monkeypatch.setitem(sys.modules, "txfm_lite", None)  # makes the import fail
    exec(notebooks.setup_cell(ROOT), {})
    return commands


def test_the_setup_cell_does_nothing_where_the_package_is_there(monkeypatch, tmp_path):
    assert setup_cell_runs(monkeypatch, tmp_path, missing=False) == []
    assert list(tmp_path.iterdir()) == []


def test_the_setup_cell_installs_without_touching_numpy_or_torch(monkeypatch, tmp_path):
    from importlib.metadata import version

    (command,) = setup_cell_runs(monkeypatch, tmp_path, missing=True)
    kept = Path(command[command.index("-c") + 1]).read_text().splitlines()
    assert {f"numpy=={version('numpy')}", f"torch=={version('torch')}"} <= set(kept)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1].startswith("txfm-lite[evaluate] @ git+https://github.com/txfm-lite/txfm-lite")
