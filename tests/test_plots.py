"""The book's look: fixed colours, told apart by shape too, always on white."""

import pytest

from txfm_lite import plots


def test_models_differ_in_more_than_colour():
    assert plots.MODELS["PCA"] == plots.MODELS["PCA (corpus)"]  # one model, two names
    looks = [look for name, look in plots.MODELS.items() if name != "PCA"]
    markers = [marker for _, marker in looks]
    assert len(set(looks)) == len(looks)
    twice = {m for m in markers if markers.count(m) > 1}
    assert twice == {"o", "*", "$k$", "$b$"}  # a model and its untrained twin: one shape, two colours


def test_colours_stand_out_on_white():
    from matplotlib.colors import to_rgb

    for model, (colour, _) in plots.MODELS.items():
        red, green, blue = to_rgb(colour)
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.75, model


def test_an_unknown_model_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="'Txfm'.*TxFM.*PCA"):
        plots.colour("Txfm")


def test_style_gives_a_white_face_and_units(tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context():
        plots.style()
        figure, ax = plt.subplots()
        ax.set_xlabel(plots.label("library size", "counts"))
        figure.savefig(tmp_path / "figure.png")
        corner = plt.imread(tmp_path / "figure.png")[0, 0]
        plt.close(figure)
    assert ax.get_xlabel() == "library size [counts]" and plots.label("loss") == "loss"
    assert corner.tolist() == [1, 1, 1, 1]
