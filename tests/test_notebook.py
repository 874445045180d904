"""txfm_lite.notebook: parameters are checked, pages say where their numbers come from."""

import re
import subprocess
from types import SimpleNamespace

import pytest

from txfm_lite import notebook

VALID = {"seed": (0, 100), "rate": (0.0, 1.0), "data": ["a", "b"], "path": str, "fast": bool}
PROFILES = {
    "smoke": {"rate": 0.1, "data": "a"},
    "book": {"rate": 0.5, "data": "b"},
    "full": {"rate": 1, "data": "b"},
}
CELL = {"profile": "book", "seed": 0, "rate": None, "data": None, "path": "x.h5ad", "fast": False}


def resolve(injected: str = "", **values):
    history = ["", "profile = 'book'", f"# Parameters\n{injected}\n"] if injected else [""]
    return notebook.resolve({**CELL, "In": history, **values}, valid=VALID, profiles=PROFILES)


@pytest.mark.parametrize("profile, rate", [("smoke", 0.1), ("book", 0.5), ("full", 1.0)])
def test_a_profile_fills_in_what_is_none(profile, rate):
    cfg = resolve(profile=profile)
    assert (cfg.profile, cfg.seed, cfg.rate, cfg.path) == (profile, 0, rate, "x.h5ad")
    assert isinstance(cfg.rate, float)


def test_a_given_value_beats_the_profile():
    assert resolve("rate = 0.25", profile="smoke", rate=0.25).rate == 0.25


@pytest.mark.parametrize(
    "values, message",
    [
        ({"profile": "boook"}, "profile = 'boook': should be one of 'smoke', 'book', 'full'"),
        ({"profile": ["book"]}, r"profile = \['book'\]: should be one of"),
        ({"seed": -1}, "seed = -1: should be int from 0 to 100"),
        ({"seed": 1.5}, "seed = 1.5: should be int"),
        ({"seed": "1"}, "seed = '1': should be int"),
        ({"seed": True}, "seed = True: should be int"),
        ({"rate": 2}, r"rate = 2: should be float from 0.0 to 1.0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"data": "c"}, "data = 'c': should be one of 'a', 'b'"),
        ({"path": 3}, "path = 3: should be str"),
        ({"path": None}, "path = None: should be str"),
        ({"fast": 1}, "fast = 1: should be bool"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(values, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve(**values)
    assert "rate: float from 0.0 to 1.0 (smoke 0.1, book 0.5, full 1)" in str(error.value).split("takes")[1]


def test_a_misspelt_name_is_named_with_its_neighbour():
    with pytest.raises(ValueError, match=r"unknown parameter 'sede' \(did you mean 'seed'\?\)"):
        resolve("sede = 3", sede=3)


def test_other_variables_of_a_session_are_no_parameters():
    assert resolve("seed = 3", seed=3, adata=object(), n_cells=12).seed == 3  # the cell run a second time


def test_mistakes_of_the_author_are_errors_too():
    with pytest.raises(ValueError, match="does not define 'steps'"):
        notebook.resolve(CELL, valid={**VALID, "steps": int}, profiles=PROFILES)
    with pytest.raises(ValueError, match="profile 'smoke' sets 'steps', which has no rule"):
        notebook.resolve(CELL, valid=VALID, profiles={**PROFILES, "smoke": {"steps": 3}})
    with pytest.raises(ValueError, match="profiles must be smoke, book, full"):
        notebook.resolve(CELL, valid=VALID, profiles={"book": {}})


@pytest.fixture
def shown(monkeypatch):
    """Collect what a notebook would display."""
    pieces = []
    monkeypatch.setattr("IPython.display.display", lambda piece: pieces.append(piece.data))
    return pieces


@pytest.mark.parametrize("stand_ins, boxes", [(True, 1), (False, 0)])
def test_the_banner_shows_only_with_simulated_studies(shown, stand_ins, boxes):
    notebook.banner(stand_ins)
    assert len(shown) == boxes and all("simulated studies" in box for box in shown)


def test_provenance_names_all_that_made_the_numbers(shown):
    import anndata

    source = {"dataset": "darmanis_brain", "part": "main", "files": {"f": "0" * 64}}
    adata = anndata.AnnData(uns={"source": source})
    corpus = SimpleNamespace(fingerprint="abcdef0123456789")
    notebook.provenance(resolve(seed=7), data=[adata, corpus, "a table"])
    (table,) = shown
    for text in (
        "profile | book",
        "seed = 7",
        "rate = 0.5",
        "darmanis_brain (main)",
        "abcdef012345",
        "a table",
    ):
        assert text in table
    assert re.search(r"\| versions \| Python 3\.\d+\.\d+, txfm_lite \d", table)
    assert re.search(r"\| time \| \d+\.\d minutes \|", table) and re.search(r"memory \| \d+\.\d GiB", table)
    assert "CPU cores" in table
    assert all(line.count("|") == 3 for line in table.splitlines())


def test_the_commit_is_that_of_the_package_and_marks_changed_files(tmp_path, monkeypatch):
    def git(*args):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", tmp_path, *identity, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True)

    module = tmp_path / "notebook.py"
    module.write_text("1")
    monkeypatch.setattr(notebook, "__file__", str(module))
    git("init", "-q")
    git("add", "notebook.py")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD").stdout.strip()
    assert head.startswith(notebook.commit()) and len(notebook.commit()) >= 7
    module.write_text("2")
    assert notebook.commit().endswith("+")


@pytest.mark.parametrize(
    "origin, commit", [('{"vcs_info": {"commit_id": "0123456789abcdef"}}', "0123456"), (None, "")]
)
def test_an_installed_copy_tells_its_own_commit_not_that_of_the_checkout_around_it(
    tmp_path, monkeypatch, origin, commit
):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "notebook.py").write_text("not tracked")
    monkeypatch.setattr(notebook, "__file__", str(tmp_path / "notebook.py"))
    installed = SimpleNamespace(read_text=lambda name: origin)
    monkeypatch.setattr(notebook.importlib.metadata, "distribution", lambda name: installed)
    assert notebook.commit() == commit
